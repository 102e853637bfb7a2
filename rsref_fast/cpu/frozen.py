"""Parameters that stay the same from call to call: weights are packed once, as a session of inference does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref.arguments import list_of
from rsref.tensor import array_of
from rsref_fast.cpu.memory import Arena

if TYPE_CHECKING:
    from rsref_fast.cpu.engine import FastEngine
    from rsref_fast.cpu.kernels import Kernels
    from rsref_fast.cpu.plan import Plan

Array = np.ndarray


@dataclass
class _Memory:
    """What kernels use during a call: scratch memory that begins with the packed weights, and what a tape would be."""

    scratch: Arena
    tape: Arena


class Frozen:
    """Runs an engine's recurrence forward, again and again with the same parameters; threads may call it at once.

    parameters: arrays in the graph's order; they are copied, so later changes of them are not seen.
    Between calls it holds the packed weights, and the memory of the largest call.
    Errors: ValueError if the number or a shape of the parameters does not fit, TypeError for numbers with which kernels
        do not compute; at calls as `Engine.forward`.
    """

    def __init__(self, engine: FastEngine, parameters: Sequence[Array]):
        self.parameters = [
            array_of(f"parameters[{i}]", p).copy() for i, p in enumerate(list_of("parameters", parameters))
        ]
        wanted = engine.recurrence.graph.parameters
        if len(wanted) != len(self.parameters):
            raise ValueError(f"{len(wanted)} parameter arrays are needed; got {len(self.parameters)}")
        for parameter, array in zip(wanted, self.parameters):
            if array.shape != parameter.shape:
                raise ValueError(f"{parameter!r} does not accept an array of shape {array.shape}")
        engine.precision_of([[], [], [], self.parameters])
        self._engine = engine
        self._prepared: dict[Kernels, list[_Memory]] = {}
        self._converted: dict[np.dtype[Any], list[Array]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (self._engine, self.parameters)

    def __call__(
        self,
        sequences: Sequence[Array],
        constants: Sequence[Array],
        states: Sequence[Array],
        mask: Array | None = None,
        steps: int | None = None,
    ) -> tuple[list[Array], list[Array]]:
        """Run the loop; return outputs (batch, time, ...) and final states (batch, ...), as `Engine.forward`."""
        groups = sequences, constants, states, self.parameters
        known = self._engine.known_of(groups, mask, steps)
        if not known.plain:  # which may be for the parameters' dtype
            groups = sequences, constants, states, self._converted_to(known.dtype)
            known = self._engine.known_of(groups, mask, steps)
        outputs, finals, _ = self._engine.run_known(known, groups, mask, steps, False, self._run)
        return outputs, finals

    def _converted_to(self, dtype: np.dtype[Any]) -> list[Array]:
        found = self._converted.get(dtype)
        if found is None:
            found = self._converted[dtype] = [p.astype(dtype, copy=False) for p in self.parameters]
        return found

    def _run(self, plan: Plan, arrays: Sequence[Array]) -> None:
        """Run a plan in memory where its kernels have packed the weights before, if there is one that nobody uses."""
        waiting = self._prepared.setdefault(plan.kernels, [])
        try:
            memory = waiting.pop()
        except IndexError:
            memory = None
        scratch, tape = (0, 0) if memory is None else (memory.scratch.bytes.size, memory.tape.bytes.size)
        if memory is None or scratch < plan.scratch_bytes or tape < plan.tape:  # neither shrinks: sizes take turns
            memory = _Memory(Arena(max(scratch, plan.scratch_bytes)), Arena(max(tape, plan.tape)))
        else:
            plan = plan.prepared_before
        plan.kernels.execute(plan, (*arrays, memory.tape.bytes, memory.scratch.bytes))
        waiting.append(memory)
