"""The arrays of a case, and what rsref answers for them: every engine is compared with it before it is timed."""

from __future__ import annotations

from typing import Any

import numpy as np

import rsref
from benchmarks.cases import Case
from rsref import cells
from rsref.engine import ReferenceEngine

Array = np.ndarray


def layer_of(case: Case) -> Any:
    """Return rsref's layer for a case, built, in float32."""
    rsref.set_random_seed(0)
    layer = getattr(cells, case.cell)(case.units).get_layer(return_sequences=True, dtype="float32")
    layer.build((case.batch, case.steps, case.features))
    return layer


def arrays_of(case: Case, layer: Any) -> tuple[Array, Array, dict[str, Array]]:
    """Return x, the gradient of y, and the weights by the end of their names."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.batch, case.steps, case.features)).astype(np.float32)
    dy = rng.standard_normal((case.batch, case.steps, case.units)).astype(np.float32)
    weights = {
        name_of(p.name): rng.standard_normal(p.shape).astype(np.float32) / case.units**0.5 for p in layer.weights
    }
    return x, dy, weights


def name_of(path: str) -> str:
    """Return the end of a weight's path, by which rsref's and Keras's weights are paired."""
    return path.split("/")[-1]


def expected(case: Case, layer: Any, x: Array, dy: Array, weights: dict[str, Array]) -> dict[str, Array]:
    """Return y and, for training, the gradients of x and of every weight, computed by rsref in float32."""
    recurrence = layer.recurrence
    states = [np.zeros((case.batch, *t.shape[1:]), np.float32) for t in recurrence.graph.states]
    parameters = [weights[name_of(p.name)] for p in recurrence.graph.parameters]
    engine = ReferenceEngine(recurrence)
    outputs, _, tape = engine.forward([x], [], states, parameters)
    found = {"y": outputs[0]}
    if case.training:
        gradients = engine.backward(tape, [dy], [None] * len(states))
        found["x"] = gradients.sequences[0]
        found |= {name_of(p.name): g for p, g in zip(recurrence.graph.parameters, gradients.parameters)}
    return found
