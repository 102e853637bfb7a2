"""The arrays of a case, and what rsref answers for them: every engine is compared with it before it is timed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import rsref
from benchmarks.cases import Case
from rsref.engine import ReferenceEngine

Array = np.ndarray
VOWELS = Path(__file__).parents[1] / "examples" / "data" / "japanese_vowels.npz"


@dataclass
class Problem:
    """A case with its arrays, float32. weights: in the order of rsref's layer, which is Keras's too.

    dy: the gradient of y. lengths: of the sequences, or None.
    """

    case: Case
    layer: Any
    x: Array
    dy: Array
    weights: list[Array]
    lengths: Array | None = None

    @property
    def mask(self) -> Array | None:
        return None if self.lengths is None else np.arange(self.case.steps) < self.lengths[:, None]


def drawn(case: Case, library: Any, new_input: Any, **options: Any) -> Any:
    """Return the layer of a case, of rsref or of keras_bridge: both draw it with the same words.

    library: has the cells, RecurrentModel, RecurrentSequential and Dense. new_input: a shape as a step's input.
    """
    cells, units = library.cells, case.units
    if case.cell == "Nested":
        x, (h, c, s) = new_input((case.features,)), (new_input((units,)) for _ in range(3))
        y, new_h, new_c = cells.LSTMCell(units)([x, h, c])
        z, new_s = cells.GRUCell(units)([y, s])
        return library.RecurrentModel(x, z, [h, c, s], [new_h, new_c, new_s], return_sequences=True, **options)
    if case.cell == "Readout":
        stack = [cells.LSTMCell(units), library.Dense(case.features, activation="softmax")]
        return library.RecurrentSequential(stack, readout="add", return_sequences=True, **options)
    if case.cell == "AttentionDecoder":
        return cells.AttentionDecoderCell(units).get_layer(
            decode=True, output_length=case.steps, return_sequences=True, **options
        )
    kind = getattr(cells, f"{case.cell.split()[0]}Cell")
    if case.layers > 1:
        stack = [kind(units) for _ in range(case.layers)]
        return library.RecurrentSequential(stack, return_sequences=True, **options)
    return kind(units).get_layer(return_sequences=True, **options)


def problem_of(case: Case) -> Problem:
    """Return a case's arrays, the same in every process."""
    rsref.set_random_seed(0)
    layer = drawn(case, rsref, rsref.Input, dtype="float32")
    layer.build((case.batch, case.steps, case.features))
    rng = np.random.default_rng(0)
    width = layer.recurrence.graph.outputs[0].shape[-1]
    lengths = None
    if case.lengths == "vowels":
        with np.load(VOWELS) as data:
            lengths = np.asarray(data["train_lengths"][: case.batch])
    elif case.lengths == "uniform":
        lengths = rng.integers(1, case.steps + 1, case.batch)
        lengths[0] = case.steps
    return Problem(
        case,
        layer,
        rng.standard_normal((case.batch, case.steps, case.features)).astype(np.float32),
        rng.standard_normal((case.batch, case.steps, width)).astype(np.float32),
        [rng.standard_normal(p.shape).astype(np.float32) / case.units**0.5 for p in layer.weights],
        lengths,
    )


def given(problem: Problem) -> tuple[list[Array], list[Array], list[Array], list[Array]]:
    """Return sequences, constants, states and parameters, as an engine of rsref takes them."""
    case, graph = problem.case, problem.layer.recurrence.graph
    states = [np.zeros((case.batch, *t.shape[1:]), np.float32) for t in graph.states]
    place = {id(p): w for p, w in zip(problem.layer.weights, problem.weights)}
    parameters = [place[id(p)] for p in graph.parameters]
    if case.cell == "AttentionDecoder":
        return [], [problem.x, np.ones((case.batch, case.steps), bool)], states, parameters
    return [problem.x], [], states, parameters


def answer(problem: Problem, outputs: Any, gradients: Any) -> dict[str, Array]:
    """Return y and the gradients of x and of the weights, by name, of an engine of rsref."""
    found = {"y": outputs[0]}
    if gradients is not None:
        found["x"] = (*gradients.sequences, *gradients.constants)[0]
        place = {id(p): g for p, g in zip(problem.layer.recurrence.graph.parameters, gradients.parameters)}
        found |= {f"w{i}": place[id(p)] for i, p in enumerate(problem.layer.weights)}
    return found


def expected(problem: Problem) -> dict[str, Array]:
    """Return y and, for training, the gradients of x and of every weight, computed by rsref in float32."""
    case, arrays = problem.case, given(problem)
    engine = ReferenceEngine(problem.layer.recurrence)
    outputs, _, tape = engine.forward(*arrays, mask=problem.mask, steps=case.steps)
    if not case.training:
        return answer(problem, outputs, None)
    y = outputs[0]
    dy = 2 * y / y.size if case.suite == "shop" else dy_of(problem)  # there the loss is the mean of the squares
    return answer(problem, outputs, engine.backward(tape, [dy], [None] * len(arrays[2])))


def dy_of(problem: Problem) -> Array:
    """Return the gradient of y, zero where the mask leaves steps out."""
    return problem.dy if problem.mask is None else problem.dy * problem.mask[..., None]
