"""One step at a time: weights are packed once, states stay in place, a call costs little beside its arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import numpy as np

from rsref.handed import check_arrays, converted, full_name, wanted, whole_number
from rsref.tensor import array_of
from rsref_fast.compiling import shapes_of
from rsref_fast.cpu.indices import SAID
from rsref_fast.cpu.memory import seen
from rsref_fast.cpu.plan import forward_plan
from rsref_fast.cpu.splitting import Split, close_split_of, split_of
from rsref_fast.packing import whole_batch

if TYPE_CHECKING:
    from rsref_fast.cpu.engine import FastEngine

Array = np.ndarray
CLOSE = 30e-6
"""Seconds after a call within which its threads still look for work, so that they are worth more than they cost."""


class Stream:
    """Runs an engine's recurrence step by step, for one caller at a time.

    Steps that follow each other closely are shared among threads sooner than others, which would have to wake them.
    constants, states: arrays (batch, ...); states are where it starts. parameters: in the graph's order. Later changes
        of these arrays are not seen. Floats are computed in their precision, in float32 if there are none among them.
    Errors: as `Engine.forward`; NotImplementedError if the step's inputs have open inner lengths; TypeError for a copy.
    """

    def __init__(
        self,
        engine: FastEngine,
        constants: Sequence[Array],
        states: Sequence[Array],
        parameters: Sequence[Array],
        batch: int,
    ):
        check_arrays(([], constants, states, parameters), None)
        batch = whole_number("batch", batch)
        graph = engine.recurrence.graph
        for leaf in graph.sequences:
            if None in leaf.shape[1:]:
                raise NotImplementedError(f"a stream needs known lengths; an input has shape {leaf.shape}")
        dtype = engine.precision_of([[], constants, states, parameters])
        numpy_kinds = {"float": dtype, "int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}
        inner = [tuple(n or 0 for n in leaf.shape[1:]) for leaf in graph.sequences]
        sequences = [np.zeros((batch, 1, *s), numpy_kinds[leaf.dtype]) for leaf, s in zip(graph.sequences, inner)]
        specs = engine.reference.check(sequences, constants, states, parameters, None, 1, batch)
        if engine.parted is not None:  # what depends on no step is computed now
            constants, parameters, _ = engine.split_parts(engine.parted).entered(constants, parameters, dtype, False)
            engine = engine.parted.step
        special = engine.specialised(shapes_of(sequences, constants, states), dtype)
        self.batch = batch
        groups = zip((sequences, constants, states, parameters), engine.kinds)
        given, constants, self._states, parameters = ([a.copy() for a in map(special.plain, *pair)] for pair in groups)
        self._wanted = wanted(graph.sequences)
        outputs = [np.empty((batch, 1, *shape[1:]), special.dtype_of(kind)) for shape, kind in specs]
        arrays = [*given, *constants, *self._states, *parameters, *outputs, *self._states]
        self._inputs = [seen(a[:, 0], leaf.dtype) for a, leaf in zip(given, graph.sequences)]
        self._outputs = [seen(a[:, 0], leaf.dtype) for a, leaf in zip(outputs, graph.outputs)]
        self._states = [seen(a, leaf.dtype) for a, leaf in zip(self._states, graph.states)]
        self._refuses = SAID in special.inference.text
        samples = 1 if special.whole else batch

        def repeated(split: Split) -> Callable[[], None]:
            plans = [
                forward_plan(special, whole_batch(samples, steps, split.shards, None), steps, split, False)
                for steps in (0, 1)
            ]
            return plans[1].kernels.repeated(plans, arrays)

        split = split_of(engine.split, engine.threads, special, batch, batch)
        close = close_split_of(split, engine.threads, special, batch) if engine.split is None else split
        self._alone = repeated(split)
        self._close = self._alone if close == split else repeated(close)
        self._last = 0.0
        direct = None
        if not self._refuses:
            direct = engine.kernels.direct_step(self._alone, self._close, CLOSE, self._inputs, self._outputs)
        self._direct = direct or _nothing

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a stream cannot be copied: make another one that goes on from its states, "
            "engine.stream(constants, stream.states, parameters, batch)"
        )

    def __call__(self, *inputs: Array) -> list[Array]:
        """Compute one step of inputs (batch, ...); return its outputs (batch, ...), and keep the states.

        Errors: ValueError if the number or a shape of the inputs does not fit; TypeError for a wrong kind of number.
        """
        answer = self._direct(*inputs)
        return self._taken(inputs) if answer is None else answer

    def _taken(self, inputs: Sequence[Array]) -> list[Array]:
        """Compute a step of inputs that may have to be converted, or refused."""
        if len(inputs) != len(self._inputs):
            raise ValueError(f"this stream takes {len(self._inputs)} inputs a step; got {len(inputs)}{self._wanted}")
        for i, (memory, value) in enumerate(zip(self._inputs, inputs)):
            _take(i, memory, value)
        before = self.states if self._refuses else []
        hurried = self._close is not self._alone
        try:
            (self._close if hurried and perf_counter() - self._last < CLOSE else self._alone)()
        except IndexError:  # the step was taken with the first entry
            self._go_on_from(before)
            raise
        if hurried:
            self._last = perf_counter()
        return [y.copy() for y in self._outputs]

    @property
    def states(self) -> list[Array]:
        """The states now, each (batch, ...)."""
        return [s.copy() for s in self._states]

    def reset(self, states: Sequence[Array]) -> None:
        """Go on from other states. Errors: ValueError if their number or a shape does not fit; TypeError for a kind."""
        states = [array_of(f"state {i}", s) for i, s in enumerate(states)]
        if [s.shape for s in states] != [s.shape for s in self._states]:
            raise ValueError(
                f"states must have shapes {[s.shape for s in self._states]}; got {[s.shape for s in states]}"
            )
        states = [_as_held(value, memory) for value, memory in zip(states, self._states)]
        for i, (memory, value) in enumerate(zip(self._states, states)):
            if not np.can_cast(value.dtype, memory.dtype, "same_kind"):
                raise TypeError(f"state {i} holds {memory.dtype}; got dtype {value.dtype}")
        self._go_on_from(states)

    def _go_on_from(self, states: Sequence[Array]) -> None:
        for memory, value in zip(self._states, states):
            np.copyto(memory, value, "same_kind")


def _nothing(*inputs: Array) -> list[Array] | None:
    """Take no step: for engines whose steps only Python can call, and for those that may refuse one."""
    return None


def _as_held(values: Array, memory: Array) -> Array:
    """Return integers as bools where those are held, as `Engine.forward` takes them: every one but zero is true."""
    return values.astype(bool) if memory.dtype.kind == "b" and values.dtype.kind in "iu" else values


def _take(i: int, memory: Array, value: Any) -> None:
    """Copy an input to its memory. Errors: as `Stream.__call__`."""
    if not hasattr(value, "shape") or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"input {i} must be a plain array; got {full_name(value)}")
    if value.shape != memory.shape:
        raise ValueError(f"input {i} has shape {value.shape}; expected {memory.shape}")
    if value.dtype == np.uint64:
        value = converted(f"input {i}", value, memory.dtype)
    np.copyto(memory, _as_held(value, memory), "same_kind")
