"""The engine that runs a step with rsref: traced once, forward and backward by hand inside the backend's autodiff."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bridge.backend import backend_module, outside_graphs
from keras_bridge.checks import cast
from keras_bridge.step import KerasRecurrence
from keras_bridge.trace import trace
from rsref.engine import ReferenceEngine
from rsref.recurrence import Recurrence, Step, with_noise
from rsref.tensor import NoiseSource, Tensor

Array = np.ndarray


class TracedRecurrence:
    """A traced step with the pure functions on arrays that a custom gradient needs.

    `forward` takes sequences, constants, states, variables and, at the end, the mask if there is one; it answers
    outputs and final states. Dropout masks are the last of the sequences (one a step) and of the constants (one for
    all). `backward` takes the same and the gradients of the answer; it answers the gradients of all but the mask.
    Nothing is kept between the two: backward runs the step forward again.
    """

    def __init__(self, recurrence: KerasRecurrence, training: bool):
        traced = trace(recurrence.model, training)
        first, last = recurrence.sequences, recurrence.sequences + recurrence.constants
        step = with_noise(
            Step(
                sequences=tuple(traced.inputs[:first]),
                constants=tuple(traced.inputs[first:last]),
                states=tuple(traced.inputs[last:]),
                outputs=tuple(traced.outputs[: recurrence.outputs]),
                new_states=tuple(traced.outputs[recurrence.outputs :]),
            )
        )
        graph = step.graph()
        place = {parameter: variable for variable, parameter in traced.variables}
        self.variables = [place[parameter] for parameter in graph.parameters]
        self.step_masks, self.sequence_masks = step.step_masks, step.sequence_masks
        self.engine = ReferenceEngine(Recurrence(graph, recurrence.zero_output_for_mask, recurrence.truncate))
        counts = [len(graph.sequences), len(graph.constants), len(graph.states), len(self.variables)]
        self.ends = [int(end) for end in np.cumsum(counts)]
        self.outputs = recurrence.outputs

    def forward(self, arrays: list[Array], steps: int) -> list[Array]:
        outputs, states, _ = self._run(arrays, steps)
        return [*outputs, *states]

    def backward(self, arrays: list[Array], gradients: list[Array], steps: int) -> list[Array]:
        outputs, states, tape = self._run(arrays, steps)
        given = [g if y.dtype.kind == "f" else None for g, y in zip(gradients, (*outputs, *states))]
        found = self.engine.backward(tape, given[: len(outputs)], given[len(outputs) :])
        leaves = [*found.sequences, *found.constants, *found.states, *found.parameters]
        return [np.zeros_like(a) if g is None else g for a, g in zip(arrays, leaves)]

    def _run(self, arrays: list[Array], steps: int) -> tuple[list[Array], list[Array], Any]:
        first, second, third, last = self.ends
        mask = arrays[last] if len(arrays) > last else None
        leaves = arrays[:first], arrays[first:second], arrays[second:third], arrays[third:last]
        return self.engine.forward(*leaves, mask=mask, steps=steps)

    def masks(self, leaves: tuple[Tensor, ...], lead: list[Any], dtype: str, seed: Any) -> list[Any]:
        """Draw dropout masks; lead: their shape up to the batch, or the time axis."""
        drawn = []
        for leaf in leaves:
            assert isinstance(leaf.source, NoiseSource)
            ones = ops.ones((*lead, *leaf.shape[1:]), dtype)
            drawn.append(keras.random.dropout(ones, leaf.source.rate, seed=seed))
        return drawn


def prepare(recurrence: KerasRecurrence, training: bool = False) -> TracedRecurrence:
    """Return a step traced, once for inference and once for training.

    Errors: TraceError if the step has a layer or operation without a counterpart in rsref.
    """
    key = training, recurrence.zero_output_for_mask
    if key not in recurrence.traces:
        with outside_graphs():
            recurrence.traces[key] = TracedRecurrence(recurrence, training)
    return recurrence.traces[key]


def run(
    recurrence: KerasRecurrence,
    sequences: list[Any],
    constants: list[Any],
    states: list[Any],
    specs: list[tuple[Any, str]],
    mask: Any,
    length: Any,
    *,
    return_sequences: bool,
    training: bool,
    seed: Any = None,
) -> tuple[list[Any], list[Any]]:
    """Run a step over sequences with rsref; arguments and answer as `keras_bridge.keras_engine.run`.

    Errors: TraceError if the step has a layer or operation without a counterpart in rsref.
    """
    traced = prepare(recurrence, training)
    dtypes = [dtype for _, dtype in specs] + [keras.backend.standardize_dtype(state.dtype) for state in states]
    precision = next((dtype for dtype in dtypes if "float" in dtype), keras.config.floatx())
    variables = [cast(variable.value, precision) for variable in traced.variables]
    batch = ops.shape((sequences or constants or states)[0])[0]
    step_masks = traced.masks(traced.step_masks, [batch, length], precision, seed)
    sequence_masks = traced.masks(traced.sequence_masks, [batch], precision, seed)
    arrays = [*sequences, *step_masks, *constants, *sequence_masks, *states, *variables]
    arrays += [] if mask is None else [mask]
    rows, known = (n if isinstance(n, int) else None for n in (batch, length))
    shapes = [(rows, known, *shape[1:]) for shape, _ in specs] + [(rows, *state.shape[1:]) for state in states]
    decoding = known if not sequences else None  # with sequences, the arrays say how many steps there are

    def steps_of(arrays: list[Array]) -> int:
        return arrays[0].shape[1] if decoding is None else decoding

    def forward(arrays: list[Array]) -> list[Array]:
        found = traced.forward(arrays, steps_of(arrays))
        return [answer.astype(dtype, copy=False) for answer, dtype in zip(found, dtypes)]

    def backward(arrays: list[Array], gradients: list[Array]) -> list[Array]:
        return traced.backward(arrays, gradients, steps_of(arrays))

    call = backend_module("keras_bridge.gradients").call
    answer = list(call(forward, backward, arrays, list(zip(shapes, dtypes))))
    found, final_states = answer[: len(specs)], answer[len(specs) :]
    if not return_sequences:
        found = [y[:, -1] if known != 0 else ops.zeros(*spec) for y, spec in zip(found, specs)]
    return found, final_states
