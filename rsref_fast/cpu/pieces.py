"""Pieces of a step's samples: what is wide is computed for a few of them at a time, so that it stays in the cache.

A run of units, one after the other for all samples, would write each wide tensor to memory and read it back. For a
piece of the samples they find it where the one before has left it, and the next piece uses the same memory again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rsref_fast.fuse import Unit
from rsref_fast.layout import Layout
from rsref_fast.lengths import per_row, times
from rsref_fast.rows import Rows
from rsref_fast.views import Buffer, Space
from rsref_fast.wide import PLACES, is_wide

PIECE = 1 << 16
"""Numbers that the tensors of a piece hold: a quarter of a core's cache, beside what is read and added up."""


@dataclass(frozen=True)
class Run:
    """Units that are computed one after the other: for `samples` of a step at a time, or for all at once if that is 0.

    private: memory that nothing else reads, the same for each piece.
    """

    units: tuple[Unit, ...]
    samples: int = 0
    private: frozenset[Buffer] = frozenset()


def runs(layout: Layout, units: Sequence[Unit], elsewhere: Collection[Buffer]) -> Iterator[Run]:
    """Return the units of the time loop as runs, in their order.

    elsewhere: memory that is read by something other than these units.
    """
    start = 0
    while start < len(units):
        end = start
        while end < len(units) and _by_samples(layout, units[end]):
            end += 1
        wide = [k for k in range(start, end) if _touches_wide(layout, units[k])]
        if len(wide) < 2:
            end = max(end, start + 1)
            yield Run(tuple(units[start:end]))
        else:
            first, end = wide[0], wide[-1] + 1
            yield Run(tuple(units[start:first]))
            rest = {b for unit in (*units[:first], *units[end:]) for b in memory_of(layout, unit)}
            yield _run(layout, units[first:end], rest | set(elsewhere))
        start = end


def _run(layout: Layout, units: Sequence[Unit], elsewhere: Collection[Buffer]) -> Run:
    private = {layout.views[t].buffer for unit in units for t in unit.stored} - set(elsewhere)
    private = {b for b in private if b.space in (Space.STEP, Space.BLOCK)}
    width = sum(b.width for b in private)
    return Run(tuple(units), max(1, PIECE // max(1, width)), frozenset(private))


def memory_of(layout: Layout, unit: Unit) -> set[Buffer]:
    return {layout.views[t].buffer for tensor in unit.tensors for t in (tensor, *tensor.inputs)}


def _touches_wide(layout: Layout, unit: Unit) -> bool:
    return any(is_wide(layout.width(t)) for tensor in unit.tensors for t in (tensor, *tensor.inputs))


def _by_samples(layout: Layout, unit: Unit) -> bool:
    """Whether a unit may be computed for some samples, then for others, and loses nothing by it."""
    sums = [t for t in unit.tensors if layout.rows[t] is Rows.SUM]
    if sums:  # of a piece, if they are then added to sums over the steps
        readers = (reader for reader in layout.order if reader not in layout.moved)
        read = any(layout.root(i) in sums for reader in readers for i in reader.inputs)
        return not read and all(layout.rows[i] is not Rows.SUM for t in unit.tensors for i in t.inputs)
    if any(layout.rows[t] is not Rows.FIRST or t in layout.later for t in unit.tensors):
        return False
    tensor = unit.tensors[0]
    product = tensor.op_name == "matmul"
    if product and layout.views[tensor.inputs[1]].buffer.space is Space.FIXED:
        return (per_row(times(1, *layout.shapes[tensor][:-1])) or 0) >= PLACES
    return True
