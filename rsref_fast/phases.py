"""The time loop in phases: states that others only read are computed for all steps of a block before these.

A stack of cells is drawn as one step, in which the second cell reads what the first one answers. In one loop its
product with that has few rows at each step, for which all its weights are read again; between two loops it is one
product for all steps of a block. Going back, the second cell's loop is the first one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from rsref.graph import readers_of
from rsref.ops.pointwise import Cast, Pointwise
from rsref.tensor import Tensor
from rsref_fast.rows import Rows
from rsref_fast.schedule import TOGETHER, Schedule, is_sum_with_product, shown
from rsref_fast.views import RULES as MOVING
from rsref_fast.wide import is_wide

WEIGHTS = 1 << 17
"""How many weights are worth a loop of their own: fewer stay in a core's cache from step to step.

For one sample fewer would do, but from some dozens on the rows of a block take more of the cache than the weights.
"""

Handed = Mapping[Tensor, Tensor | None]


def in_phases(
    plan: Schedule, rows: Mapping[Tensor, Rows], handed: Handed, needed: Collection[Tensor], lasting: bool
) -> Schedule:
    """Return a schedule whose loop is split into phases, if products between them have enough weights.

    handed: for each leaf that is carried what a step hands on for it; None for zeros. needed: as in `schedule`.
    lasting: whether what is carried can be read when its phase is over; else only what was computed of it.
    """
    behind = {leaf: frozenset([leaf]) for leaf in handed}
    for tensor in plan.loop:
        behind[tensor] = frozenset().union(*(behind[i] for i in tensor.inputs if i in behind))
    levels = _levels(handed, behind)
    while max(levels.values(), default=0):
        phase = {t: max((levels[leaf] for leaf in behind[t]), default=0) for t in plan.loop}
        between = _between(plan, rows, needed, phase)
        _better_inside(plan, between, phase, set() if lasting else set(handed))
        needless = _needless(plan, rows, between, {**levels, **phase}, lasting)
        if needless is None:
            loop = tuple(t for t in plan.loop if t not in between)
            return replace(plan, before=(*plan.before, *between), loop=loop, phase={**levels, **phase})
        levels = {leaf: level - (level >= needless) for leaf, level in levels.items()}
    return plan


def _levels(handed: Handed, behind: Mapping[Tensor, frozenset[Tensor]]) -> dict[Tensor, int]:
    """Return the phase in which each leaf is carried on: after all that it reads and that does not read it."""
    reach = {leaf: set(behind.get(new, ())) if new is not None else set() for leaf, new in handed.items()}
    for middle in reach:
        for own in reach.values():
            if middle in own:
                own |= reach[middle]
    found: dict[Tensor, int] = {}
    # what is read reaches no more than what reads it, and as much only if it reads itself
    for leaf in sorted(reach, key=lambda leaf: (len(reach[leaf]), leaf not in reach[leaf])):
        below = max((found[other] for other in reach[leaf] if leaf not in reach[other]), default=-1)
        found[leaf] = below + 1 if leaf in reach[leaf] else max(below, 0)
    return found


def _between(
    plan: Schedule, rows: Mapping[Tensor, Rows], needed: Collection[Tensor], phase: dict[Tensor, int]
) -> dict[Tensor, None]:
    """Return what only later phases read: it is computed for a block of steps, before the phase after its own.

    phase: receives that one for these.
    """
    readers = readers_of(plan.loop)
    stays: set[Tensor] = set()
    for tensor in reversed(plan.loop):
        own = any(r in stays and phase[r] == phase[tensor] for r in readers.get(tensor, ()))
        if own or tensor in needed or rows[tensor] not in TOGETHER or is_wide(_count(tensor.shape[1:])):
            stays.add(tensor)
    between = dict.fromkeys(t for t in plan.loop if t not in stays)
    phase.update({t: phase[t] + 1 for t in between})
    return between


def _better_inside(
    plan: Schedule, between: dict[Tensor, None], phase: dict[Tensor, int], passing: Collection[Tensor]
) -> None:
    """Move pointwise tensors that only one phase's loop reads into it: so they need not be stored and read again.

    passing: leaves that are there in their own phase only.
    """
    readers = readers_of((*plan.loop, *plan.after))
    inside = set(plan.loop) - between.keys()
    for tensor in reversed(list(between)):
        own = readers.get(tensor, [])
        starts = tensor.dtype == "float" and all(is_sum_with_product(reader) for reader in own)
        alone = all(reader in inside for reader in own) and len({phase[reader] for reader in own}) == 1
        free = not any(shown(i) in passing for i in tensor.inputs)
        if alone and free and isinstance(tensor.op, Pointwise | Cast) and not starts:
            del between[tensor]
            inside.add(tensor)
            phase[tensor] = phase[own[0]]


def _needless(
    plan: Schedule, rows: Mapping[Tensor, Rows], between: Collection[Tensor], phase: Mapping[Tensor, int], lasting: bool
) -> int | None:
    """Return a phase that had better be one with that before it, or must be; None if there is none."""
    for tensor in plan.loop:
        moves = tensor in between or tensor.op_name in MOVING
        for read in () if moves else map(shown, tensor.inputs):
            passes = not lasting if read.op is None else read not in between and rows[read] is not Rows.FIRST
            if passes and phase.get(read, phase[tensor]) < phase[tensor]:
                return phase[tensor]
    weights = dict.fromkeys(range(1, max(phase.values()) + 1), 0)
    for tensor in between:
        if tensor.op_name == "matmul" and rows[tensor.inputs[1]] is Rows.NONE:
            weights[phase[tensor]] += _count(tensor.inputs[1].shape)
    return next((number for number, count in weights.items() if count < WEIGHTS), None)


def _count(shape: Sequence[int | None]) -> int:
    return math.prod(n or 0 for n in shape)
