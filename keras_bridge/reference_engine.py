"""The engine that runs a step with rsref: traced once, forward and backward by hand inside the backend's autodiff."""

from __future__ import annotations

import weakref
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bridge.loops import backend_module
from keras_bridge.trace import TracedStep, trace
from rsref.engine import ReferenceEngine
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence

Array = np.ndarray


_known: weakref.WeakKeyDictionary[Any, dict[Any, TracedRecurrence]] = weakref.WeakKeyDictionary()


class TracedRecurrence:
    """A traced step with the pure functions on arrays that a custom gradient needs.

    `forward` takes sequences, states, variables and, at the end, the mask if there is one; it answers outputs and final
    states. `backward` takes the same and the gradients of the answer; it answers the gradients of all but the mask.
    Nothing is kept between the two: backward runs the step forward again.
    """

    def __init__(self, traced: TracedStep, sequences: int, zero_output_for_mask: bool):
        states = len(traced.inputs) - sequences
        outputs = len(traced.outputs) - states
        graph = StepGraph(
            sequences=traced.inputs[:sequences],
            states=traced.inputs[sequences:],
            outputs=traced.outputs[:outputs],
            new_states=traced.outputs[outputs:],
        )
        place = {parameter: variable for variable, parameter in traced.variables}
        self.variables = [place[parameter] for parameter in graph.parameters]
        self.engine = ReferenceEngine(Recurrence(graph, zero_output_for_mask))
        self.counts = (sequences, states, len(self.variables), outputs)

    def forward(self, arrays: list[Array]) -> list[Array]:
        outputs, states, _ = self._run(arrays)
        return [*outputs, *states]

    def backward(self, arrays: list[Array], gradients: list[Array]) -> list[Array]:
        outputs, states, tape = self._run(arrays)
        given = [g if y.dtype.kind == "f" else None for g, y in zip(gradients, (*outputs, *states))]
        found = self.engine.backward(tape, given[: len(outputs)], given[len(outputs) :])
        leaves = [*found.sequences, *found.states, *found.parameters]
        return [np.zeros_like(a) if g is None else g for a, g in zip(arrays, leaves)]

    def _run(self, arrays: list[Array]) -> tuple[list[Array], list[Array], Any]:
        sequences, states, variables, _ = self.counts
        last = sequences + states + variables
        mask = arrays[last] if len(arrays) > last else None
        return self.engine.forward(
            arrays[:sequences],
            [],
            arrays[sequences : sequences + states],
            arrays[sequences + states : last],
            mask=mask,
        )


def recurrence_of(step: Any, sequences: int, zero_output_for_mask: bool, training: bool) -> TracedRecurrence:
    """Return a step model as a recurrence whose first inputs are sequences and the others states; traced once.

    Errors: TraceError if the step has a layer or operation without a counterpart in rsref.
    """
    known = _known.setdefault(step, {})
    key = (sequences, zero_output_for_mask, training)
    if key not in known:
        known[key] = TracedRecurrence(trace(step, training), sequences, zero_output_for_mask)
    return known[key]


def run(
    step: Any,
    sequences: list[Any],
    states: list[Any],
    outputs: list[Any],
    mask: Any = None,
    *,
    zero_output_for_mask: bool = False,
    return_sequences: bool = False,
    training: bool | None = None,
) -> tuple[list[Any], list[Any]]:
    """Run a step model over sequences with rsref; arguments and answer as `keras_bridge.keras_engine.run`.

    Errors: TraceError if the step has a layer or operation without a counterpart in rsref.
    """
    recurrence = recurrence_of(step, len(sequences), zero_output_for_mask, bool(training))
    dtypes = [keras.backend.standardize_dtype(value.dtype) for value in (*outputs, *states)]
    precision = next((dtype for dtype in dtypes if "float" in dtype), keras.config.floatx())
    variables = [ops.cast(variable.value, precision) for variable in recurrence.variables]
    arrays = [*sequences, *states, *variables, *([] if mask is None else [mask])]
    length = sequences[0].shape[1]
    shapes = [(y.shape[0], length, *y.shape[1:]) for y in outputs] + [tuple(state.shape) for state in states]

    def forward(arrays: list[Array]) -> list[Array]:
        return [answer.astype(dtype, copy=False) for answer, dtype in zip(recurrence.forward(arrays), dtypes)]

    call = backend_module("keras_bridge.gradients").call
    answer = list(call(forward, recurrence.backward, arrays, list(zip(shapes, dtypes))))
    found, final_states = answer[: len(outputs)], answer[len(outputs) :]
    if not return_sequences:
        found = [y[:, -1] if length != 0 else blank for y, blank in zip(found, outputs)]
    return found, final_states
