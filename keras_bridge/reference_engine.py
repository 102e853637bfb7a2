"""The engine that runs a step with rsref: traced once, forward and backward by hand inside the backend's autodiff."""

from __future__ import annotations

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


class TracedRecurrence:
    """A traced step with the pure functions on arrays that a custom gradient needs.

    `forward` takes sequences, states, variables and, at the end, the mask if there is one; it answers outputs and final
    states. `backward` takes the same and the gradients of the answer; it answers the gradients of all but the mask.
    """

    def __init__(self, traced: TracedStep, sequences: int, states: int, zero_output_for_mask: bool):
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
        outputs, _, tape = self._run(arrays)
        found = self.engine.backward(tape, gradients[: len(outputs)], gradients[len(outputs) :])
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
    traced = trace(step, bool(training))
    recurrence = TracedRecurrence(traced, len(sequences), len(states), zero_output_for_mask)
    precision = next(s.dtype for s in (*outputs, *states) if "float" in keras.backend.standardize_dtype(s.dtype))
    variables = [ops.cast(variable.value, precision) for variable in recurrence.variables]
    arrays = [*sequences, *states, *variables, *([] if mask is None else [mask])]
    length = sequences[0].shape[1]
    specs = [((y.shape[0], length, *y.shape[1:]), y.dtype) for y in outputs]
    specs += [(tuple(s.shape), s.dtype) for s in states]
    call = backend_module("keras_bridge.gradients").call
    answer = list(call(recurrence.forward, recurrence.backward, arrays, specs))
    found, final_states = answer[: len(outputs)], answer[len(outputs) :]
    if not return_sequences:
        found = [y[:, -1] if length != 0 else blank for y, blank in zip(found, outputs)]
    return found, final_states
