"""Parameters that stay the same from call to call: weights are packed once, as a session of inference does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref.handed import check_arrays
from rsref.tensor import array_of
from rsref_fast.cpu.gradients import Maker
from rsref_fast.cpu.memory import Arena, lie_time_first, maker
from rsref_fast.threads import get_num_threads

if TYPE_CHECKING:
    from rsref_fast.cpu.engine import FastEngine
    from rsref_fast.cpu.kernels import Kernels
    from rsref_fast.cpu.plan import Plan
    from rsref_fast.cpu.specialised import Specialised

Array = np.ndarray
REMEMBERED = 64
"""Sizes of calls of which it is known how they are run."""


@dataclass
class _Known:
    """How calls of some sizes are run: by a plan, on their arrays and the parameters, with what makes their outputs."""

    special: Specialised
    plan: Plan
    parameters: list[Array]
    outputs: list[Maker]


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
        self.parameters = [array_of(f"parameters[{i}]", p).copy() for i, p in enumerate(parameters)]
        wanted = engine.recurrence.graph.parameters
        if len(wanted) != len(self.parameters):
            raise ValueError(f"{len(wanted)} parameter arrays are needed; got {len(self.parameters)}")
        for parameter, array in zip(wanted, self.parameters):
            if array.shape != parameter.shape:
                raise ValueError(f"{parameter!r} does not accept an array of shape {array.shape}")
        engine.precision_of([[], [], [], self.parameters])
        self._engine = engine
        self._kinds = [kind for kinds in engine.kinds[:3] for kind in kinds]
        self._prepared: dict[Kernels, list[_Memory]] = {}
        self._known: dict[Any, _Known] = {}
        self._plain: dict[np.dtype[Any], list[Array]] = {}

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
        groups, key = (sequences, constants, states, self.parameters), None
        if mask is None:
            try:
                given = (*sequences, *constants, *states)
                sizes = (*[a.shape for a in given], *[a.dtype for a in given])
                turned = lie_time_first(sequences)
            except (AttributeError, TypeError):
                check_arrays(groups, mask)
                raise
            if not turned:
                key = steps, len(sequences), len(states), self._engine.split, get_num_threads(), sizes
            known = self._known.get(key)
            if known is not None:
                return self._again(known, given, states)
        plans: list[Plan] = []

        def run(plan: Plan, arrays: Sequence[Array]) -> None:
            plans.append(plan)
            self._run(plan, arrays[:-1])

        outputs, finals, _ = self._engine.run(groups, mask, steps, taped=False, run=run)
        special = self._engine.specialised_for(groups, self._engine.known_of(groups, mask, steps))
        as_they_are = not special.whole and all(a.dtype.kind != "b" for a in (*outputs, *finals))
        if key is not None and as_they_are and len(self._known) < REMEMBERED:
            own = self._plain.setdefault(special.dtype, [special.plain(p) for p in self.parameters])
            self._known[key] = _Known(special, plans[0], own, [maker(y.shape, y.dtype) for y in outputs])
        return outputs, finals

    def _again(self, known: _Known, given: Sequence[Array], states: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """Run a call as an earlier one of the same sizes: a small one takes less time than finding out how."""
        outputs = [make() for make in known.outputs]
        (arrays,) = known.special.plain_groups([given], [self._kinds])
        finals = [np.empty_like(a) for a in arrays[len(arrays) - len(states) :]]
        self._run(known.plan, (*arrays, *known.parameters, *outputs, *finals))
        return outputs, finals

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
