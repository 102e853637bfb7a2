"""The engine that runs a step with Keras's own ops: any Keras layer, any backend, its own autodiff."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops
from keras.src.backend.common import global_state

from keras_bridge.backend import is_compiling
from keras_bridge.checks import is_float
from keras_bridge.dropped_masks import without_mask
from keras_bridge.emission import check_ops
from keras_bridge.graph_layer import GraphLayer
from keras_bridge.loops import scan
from keras_bridge.randomness import held_masks
from keras_bridge.step import KerasRecurrence


def prepare(recurrence: KerasRecurrence, training: bool = False) -> None:
    """Nothing to prepare. Errors: NotImplementedError, naming it, for an op of a cell of rsref that Keras has not."""
    for layer in recurrence.model._flatten_layers(include_self=False):
        if isinstance(layer, GraphLayer):
            check_ops(layer.drawn.outputs)


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
    """Run a step over sequences and return its outputs and final states.

    sequences: (batch, time, ...); constants and states: (batch, ...); specs: shape (batch, ...) and dtype of each
        output of the step.
    mask: (batch, time) of bool, or None: at a masked step states stay, and the output repeats the last valid one
        (zeros before any) or is zero.
    length: how many steps. seed: a keras.random.SeedGenerator for engines that draw dropout masks themselves.
    Returns outputs (batch, time, ...), or the last step's (batch, ...) without return_sequences.
    """
    constants = [without_mask(c) for c in constants]
    batch = ops.shape((sequences or constants or states)[0])[0]
    blanks = [ops.zeros(shape, dtype) for shape, dtype in specs]
    if any(isinstance(n, int) and n == 0 for n in (batch, length)):
        return [_repeated(y, length) for y in blanks] if return_sequences else blanks, states
    if mask is not None:
        sequences = [_without_hazards(s, mask) for s in sequences]
    major = [_time_major(s) for s in sequences]
    masks = [] if mask is None else [_time_major(mask)]
    clocks = [] if recurrence.truncate is None else [ops.arange(length)]
    counts = len(states), len(blanks)

    def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        old_states, held, extra = _cut(carry, counts)
        own, valid = slices[: len(major)], slices[len(major)] if masks else None
        read = _truncated(old_states, slices[-1], recurrence.truncate) if clocks else old_states
        results, extra = variables.call([*own, *constants, *read], extra, training)
        new = [ops.cast(y, old.dtype) for y, old in zip(results[: counts[1]], held)]
        new_states = [ops.cast(s, old.dtype) for s, old in zip(results[counts[1] :], old_states)]
        if valid is not None:
            new_states = [_select(valid, s, old) for s, old in zip(new_states, read)]
            stand_in = [ops.zeros_like(y) for y in new] if recurrence.zero_output_for_mask else held
            new = [_select(valid, y, old) for y, old in zip(new, stand_in)]
        return [*new_states, *new, *extra], new

    like = blanks if return_sequences else []
    compiled = keras.backend.backend() == "jax" or is_compiling((sequences or constants or states)[0])
    refusing = _no_losses(recurrence.layers if compiled else [])
    with recurrence.watched.own_changes(), held_masks(recurrence.model, batch, training), refusing:
        variables = _StepVariables(recurrence.model)  # among them the seeds, which have moved on
        carry, stacked = scan(body, [*states, *blanks, *variables.values], [*major, *masks, *clocks], length, like)
    final_states, last, extra = _cut(list(carry), counts)
    variables.assign(extra)
    return [_time_major(y) for y in stacked] if return_sequences else last, final_states


class _StepVariables:
    """Calls a step whose layers may change variables (random seeds, moving averages) in a loop that is traced.

    On JAX such variables must be carried through the loop, in the precision that they are kept in, since they are
    written back; on the other backends they change in place.
    """

    def __init__(self, step: Any):
        self.step = step
        self.carried = list(step.non_trainable_variables) if keras.backend.backend() == "jax" else []
        with _no_autocast():
            self.values = [variable.value for variable in self.carried]

    def call(self, inputs: list[Any], values: list[Any], training: bool | None) -> tuple[list[Any], list[Any]]:
        if not self.carried:
            return list(_flat(self.step(inputs, training=training))), []
        with _no_autocast():
            trainable = [variable.value for variable in self.step.trainable_variables]
            results, values = self.step.stateless_call(trainable, values, inputs, training=training)
        return list(_flat(results)), list(values)

    def assign(self, values: list[Any]) -> None:
        for variable, value in zip(self.carried, values):
            variable.assign(value)


@contextlib.contextmanager
def _no_losses(layers: list[Any]) -> Iterator[None]:
    """Let layers refuse to add to the loss: what a compiled loop adds stays within it, or is lost.

    Errors, in the loop: ValueError that names the layer.
    """

    def refuse(layer: Any, *_: Any) -> None:
        raise ValueError(
            f"the step's layer {layer.name!r} adds to the loss (add_loss), which a compiled loop cannot hand out: make "
            "what it adds an output of the step"
        )

    for layer in layers:
        vars(layer)["add_loss"] = functools.partial(refuse, layer)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("add_loss", None)


@contextlib.contextmanager
def _no_autocast() -> Iterator[None]:
    """Let no mixed policy from outside round variables; layers called within still do as their own policies say."""
    kept = global_state.get_global_attribute("autocast_scope")
    global_state.set_global_attribute("autocast_scope", None)
    try:
        yield
    finally:
        global_state.set_global_attribute("autocast_scope", kept)


def _flat(results: Any) -> Any:
    return results if isinstance(results, list | tuple) else [results]


def _cut(carry: list[Any], counts: tuple[int, int]) -> tuple[list[Any], list[Any], list[Any]]:
    states, outputs = counts
    return list(carry[:states]), list(carry[states : states + outputs]), list(carry[states + outputs :])


def _repeated(y: Any, length: Any) -> Any:
    return ops.repeat(ops.expand_dims(y, 1), length, axis=1)


def _without_hazards(x: Any, mask: Any) -> Any:
    """Return a sequence whose masked slices do no harm.

    A NaN there would reach the gradients, as 0 * NaN, and an integer there might be no index.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    if dtype == "bool":
        return x
    wide = ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(x.shape) - 2)))
    harmless = ops.logical_or(wide, ops.isfinite(x)) if keras.backend.is_float_dtype(dtype) else wide
    return ops.where(harmless, x, ops.zeros_like(x))


def _truncated(states: list[Any], t: Any, every: int | None) -> list[Any]:
    """Return the states, cut off from their past where a stretch of steps begins."""
    cut = ops.logical_and(t > 0, ops.equal(t % every, 0))
    return [ops.where(cut, ops.stop_gradient(s), s) if is_float(s) else s for s in states]


def _time_major(x: Any) -> Any:
    return ops.transpose(x, (1, 0, *range(2, len(x.shape))))


def _select(valid: Any, new: Any, old: Any) -> Any:
    shape = (-1, *(1,) * (len(new.shape) - 1))
    return ops.where(ops.reshape(valid, shape), new, old)
