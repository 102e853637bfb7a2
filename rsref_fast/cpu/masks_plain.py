"""Which rows of a batch a mask leaves, and what masked steps show, by NumPy: for kernels that Python itself runs.

A masked step leaves its row as it is: a row's valid steps, one after the other, are a shorter sequence. Rows are
sorted by their number of valid steps; at step k those that have more than k of them take part, always the first ones.
So kernels see dense rows only, and padding costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rsref_fast.packing import Shard, with_room

Array = np.ndarray
SIZES = 8
"""Into how many sizes masks are sorted, by the steps and by the rows that they leave."""


@dataclass(frozen=True)
class Packed:
    """A mask as kernels read it, in tables that are a little longer than need be: one plan serves many masks.

    order: the samples as the shards have them; of a sorted batch every so many-th one. cut_end: of each of these,
    whether its gradient is cut after its last step. words: off, pos and rid of each shard. cuts: cut of each (see
    `Shard`). steps, rows: for how many of these a shard has room at most.
    """

    order: Array
    cut_end: Array
    words: Array
    cuts: Array
    steps: int
    rows: int


@dataclass(frozen=True)
class Held:
    """The places of masked steps that repeat a valid one, and of that, among all steps of all samples."""

    masked: Array
    shown: Array


def of_stepped(constants: Sequence[Array], mask: Array) -> Sequence[Array]:
    """Return constants with those of another sample for each that takes no step at all.

    What is computed once for all samples then computes nothing of these: their gradient is zero, and would be NaN by a
    NaN. Where nobody takes a step ones stand there, and zeros for what may be places.
    """
    stepped = mask.any(axis=1)
    if stepped.all():
        return constants
    if not stepped.any():
        return [np.ones_like(c) if c.dtype.kind == "f" else np.zeros_like(c) for c in constants]
    rows = np.where(stepped, np.arange(len(mask)), stepped.argmax())
    return [c[rows] for c in constants]


def packed(mask: Array, shards: int, truncate: int | None, stretch: tuple[int, int] | None = None) -> Packed:
    """Return what a mask (batch, time) says, for some shards.

    truncate: every how many steps gradients are cut. stretch: the steps that are computed, if not all.
    """
    begin, end = stretch or (0, mask.shape[1])
    found, order = masked_batch(mask, shards, truncate, stretch)
    steps = _some_more(max(shard.steps for shard in found), end - begin)
    rows = _some_more(max(len(shard.pos) for shard in found), found[0].count * (end - begin))
    words, cuts = [], []
    for shard, space in zip(found, with_room(len(mask), mask.shape[1], shards, steps, rows)):
        room = len(space.pos) - len(shard.pos)
        off = np.pad(shard.off, (0, len(space.off) - len(shard.off)), "edge")  # steps without rows come last
        words += [off, np.pad(shard.pos, (0, room)), np.pad(shard.rid, (0, room))]
        cuts.append(np.pad(shard.cut, (0, room)))
    ends = np.concatenate([shard.cut_end for shard in found])
    return Packed(order, ends, np.concatenate(words), np.concatenate(cuts), steps, rows)


def _some_more(number: int, most: int) -> int:
    """Return the size that a number has room in: so many eighths of the most."""
    part = max(1, -(-most // SIZES))
    return min(most, -(-number // part) * part)


def masked_batch(
    mask: Array, shards: int, truncate: int | None, stretch: tuple[int, int] | None = None
) -> tuple[tuple[Shard, ...], Array]:
    """Return shards of a batch of which only the steps where the mask (batch, time) holds are valid.

    The second answer is the samples in the order in which the shards have them. stretch: as in `whole_batch`.
    """
    whole = mask.shape[1]
    begin, end = stretch or (0, whole)
    mask = mask[:, begin:end]
    lengths = mask.sum(1)
    order = np.argsort(-lengths, kind="stable")
    times = np.argsort(~mask, axis=1, kind="stable")
    first = np.arange(len(mask)) * whole + begin
    found = tuple(_shard(order[i::shards], lengths, times, first, truncate) for i in range(shards))
    return found, np.concatenate([order[i::shards] for i in range(shards)])


def _shard(rows: Array, lengths: Array, times: Array, first: Array, truncate: int | None) -> Shard:
    """Return the shard of some samples. first: the place of each sample's first step."""
    time = times.shape[1]
    own = lengths[rows]
    steps = int(own.max()) if len(own) else 0
    valid = np.arange(steps)[:, None] < own
    when = times[rows, :steps].T
    cut, cut_end = np.zeros((steps, len(rows)), bool), np.zeros(len(rows), bool)
    if truncate is not None and time:
        stretch = when // truncate
        before = np.vstack([np.zeros((1, len(rows)), stretch.dtype), stretch[:-1]]) if steps else stretch
        cut = stretch != before
        last = stretch[np.maximum(own - 1, 0), np.arange(len(rows))] if steps else np.zeros_like(own)
        cut_end = last != (time - 1) // truncate
    return Shard(
        count=len(rows),
        off=np.concatenate([[0], np.cumsum(valid.sum(1))]).astype(np.int64),
        pos=(first[rows] + when)[valid].astype(np.int64),
        rid=np.broadcast_to(np.arange(len(rows)), valid.shape)[valid].astype(np.int64),
        cut=cut[valid].astype(np.uint8),
        cut_end=cut_end,
    )


def held_by(mask: Array) -> Held:
    """Return what masked steps repeat."""
    batch, time = mask.shape
    last = np.maximum.accumulate(np.where(mask, np.arange(time), -1), axis=1)
    where = ~mask & (last >= 0)
    return Held(np.flatnonzero(where), (np.arange(batch)[:, None] * time + last)[where])


def hold(values: Array, held: Held) -> None:
    """Repeat in outputs (batch, time, ...) the last valid one at masked steps, if there was one."""
    rows = _places(values)
    rows[held.masked] = rows[held.shown]


def nothing(d: Array, held: Held) -> bool:
    """Return whether gradients (batch, time, ...) are zero at masked steps, as a masked loss leaves them."""
    return not _places(d)[held.masked].any()


def gathered_back(d: Array, held: Held) -> Array:
    """Return the gradient of `hold` at valid steps: their own and that of the masked ones that repeat them."""
    total = _places(d).copy()
    own = total[held.masked]
    first = np.flatnonzero(np.diff(held.shown, prepend=-1))
    total[held.shown[first]] += np.add.reduceat(own, first, axis=0)
    return total.reshape(d.shape)


def _places(values: Array) -> Array:
    """Return what is (batch, time, ...) as (batch * time, ...)."""
    return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])
