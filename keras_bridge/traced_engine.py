"""Engines that run a traced step on arrays, by hand, inside the backend's autodiff: what they share.

`reference_engine` and `fast_engine` say which engine of rsref's contract computes.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bridge.backend import backend_module, outside_graphs
from keras_bridge.checks import cast
from keras_bridge.noise import drawn
from keras_bridge.step import KerasRecurrence
from keras_bridge.trace import trace
from rsref.engine import Engine
from rsref.ops import cast as kept_as
from rsref.recurrence import Recurrence, Step, with_noise
from rsref.tensor import Tensor

Array = np.ndarray
MakeEngine = Callable[[Recurrence], Engine]
TAPES = 8
"""How many forward runs of a layer are remembered until backward asks for them."""

_tickets = itertools.count(1)


class TracedRecurrence:
    """A traced step with the pure functions on arrays that a custom gradient needs.

    `forward` takes sequences, constants, states, variables and, at the end, the mask if there is one; it answers
    outputs and final states. Noise is the last of the sequences (drawn at each step) and of the constants (once for
    all). `backward` takes the same and the gradients of the answer; it answers the gradients of all but the mask.
    What forward remembers it keeps under a number, the ticket; backward runs forward again if it is no longer there.
    """

    def __init__(self, recurrence: KerasRecurrence, training: bool, make_engine: MakeEngine):
        traced = trace(recurrence.model, training)
        first, last = recurrence.sequences, recurrence.sequences + recurrence.constants
        states, new_states = traced.inputs[last:], traced.outputs[recurrence.outputs :]
        step = with_noise(
            Step(
                sequences=tuple(traced.inputs[:first]),
                constants=tuple(traced.inputs[first:last]),
                states=tuple(states),
                outputs=tuple(traced.outputs[: recurrence.outputs]),
                new_states=tuple(kept_as(new, old.dtype) for new, old in zip(new_states, states)),
            )
        )
        self.graph = graph = step.graph()
        place = {parameter: variable for variable, parameter in traced.variables}
        self.variables = [place[parameter] for parameter in graph.parameters]
        self.generators = traced.generators
        self.step_masks, self.sequence_masks = step.step_masks, step.sequence_masks
        self.engine = make_engine(Recurrence(graph, recurrence.zero_output_for_mask, recurrence.truncate))
        self.tapes: OrderedDict[int, Any] = OrderedDict()
        counts = [len(graph.sequences), len(graph.constants), len(graph.states), len(self.variables)]
        self.ends = [int(end) for end in np.cumsum(counts)]
        self.outputs = recurrence.outputs

    def forward(self, arrays: list[Array], steps: int, keep: bool) -> tuple[list[Array], int]:
        """Return outputs and final states, and the ticket of what backward needs if that is to be kept."""
        found = self._run(arrays, steps, keep)
        ticket = next(_tickets) % 2**31
        if keep:
            self.tapes[ticket] = found
            while len(self.tapes) > TAPES:
                self.tapes.popitem(last=False)
        return [*found[0], *found[1]], ticket

    def backward(self, arrays: list[Array], gradients: list[Array], steps: int, ticket: int) -> list[Array]:
        """Return the gradients of all arrays but the mask, given those of outputs and final states."""
        outputs, states, tape = self.tapes.pop(ticket, None) or self._run(arrays, steps, True)
        given = [g if y.dtype.kind == "f" else None for g, y in zip(gradients, (*outputs, *states))]
        found = self.engine.backward(tape, given[: len(outputs)], given[len(outputs) :])
        leaves = [*found.sequences, *found.constants, *found.states, *found.parameters]
        return [np.zeros_like(a) if g is None else g for a, g in zip(arrays, leaves)]

    def _run(self, arrays: list[Array], steps: int, keep: bool) -> tuple[list[Array], list[Array], Any]:
        first, second, third, last = self.ends
        mask = arrays[last] if len(arrays) > last else None
        leaves = arrays[:first], arrays[first:second], arrays[second:third], arrays[third:last]
        return self.engine.forward(*leaves, mask=mask, steps=steps, taped=keep)

    def masks(self, leaves: tuple[Tensor, ...], lead: list[Any], dtype: str, seed: Any) -> list[Any]:
        """Draw dropout masks and other noise; lead: their shape up to the batch, or the time axis.

        seed: the recurrent layer's generator, for the noise of layers that were not given a seed of their own.
        """
        seeded = [leaf for leaf in self.generators if leaf in set(leaves)]  # in the order in which Keras draws them
        found = {
            leaf: drawn(leaf, (*lead, *leaf.shape[1:]), dtype, self.generators.get(leaf, seed))
            for leaf in dict.fromkeys((*seeded, *leaves))
        }
        return [found[leaf] for leaf in leaves]


def prepare(
    recurrence: KerasRecurrence, make_engine: MakeEngine, name: str, training: bool = False
) -> TracedRecurrence:
    """Return a step traced, once for inference and once for training.

    name: of the engine that computes. Errors: TraceError if the step has a layer or operation without a counterpart
    in rsref.
    """
    key = name, training, recurrence.zero_output_for_mask, recurrence.truncate
    traced = recurrence.traces.get(key)  # one look: another thread may forget all between two
    if traced is None:
        with outside_graphs(), recurrence.watched.own_changes():
            traced = recurrence.traces[key] = TracedRecurrence(recurrence, training, make_engine)
    return traced


def on_arrays(traced: TracedRecurrence, dtypes: list[Any], steps: int | None) -> tuple[Any, Any]:
    """Return forward and backward for a custom gradient, see `keras_bridge.gradients`.

    dtypes: of the answers. steps: how many; None where sequences, the first of the arrays, say so.
    """

    def forward(arrays: list[Array], keep: bool) -> tuple[list[Array], int]:
        found, ticket = traced.forward(arrays, arrays[0].shape[1] if steps is None else steps, keep)
        return [answer.astype(dtype, copy=False) for answer, dtype in zip(found, dtypes)], ticket

    def backward(arrays: list[Array], gradients: list[Array], ticket: int) -> list[Array]:
        return traced.backward(arrays, gradients, arrays[0].shape[1] if steps is None else steps, ticket)

    return forward, backward


def run(
    traced: TracedRecurrence,
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
    """Run a traced step over sequences; the other arguments and the answer as `keras_bridge.keras_engine.run`."""
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
    forward, backward = on_arrays(traced, dtypes, known)
    backend = backend_module("keras_bridge.gradients")
    answer = None
    if hasattr(backend, "native") and rows is not None and known is not None:
        groups = [[*sequences, *step_masks], [*constants, *sequence_masks], states, variables]
        answer = backend.native(traced.engine, groups, rows, known, mask, dtypes)
    if answer is None:
        answer = list(backend.call(forward, backward, arrays, list(zip(shapes, dtypes)), training))
    found, final_states = answer[: len(specs)], answer[len(specs) :]
    if not return_sequences:
        found = [y[:, -1] if known != 0 else ops.zeros(*spec) for y, spec in zip(found, specs)]
    return found, final_states
