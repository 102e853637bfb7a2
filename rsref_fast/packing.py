"""How the samples of a call are dealt out to shards and laid out in time, so that kernels know no masks.

A masked step leaves its row as it is: a row's valid steps, one after the other, are a shorter sequence. Rows are
sorted by their number of valid steps; at step k those that have more than k of them take part, always the first ones.
So kernels see dense rows only, and padding costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

Array = np.ndarray
SIZES = 8
"""Into how many sizes masks are sorted, by the steps and by the rows that they leave."""


@dataclass(frozen=True)
class Shard:
    """Some samples of a batch, and their valid steps.

    count: how many samples. off: rows of step s are off[s] to off[s + 1].
    pos: for each row its place sample * time + t. rid: for each row which of the shard's samples it is.
    cut: for each row whether the gradient of its state is cut before it. cut_end: for each sample whether it is cut
    after its last step (or, without one, at all).
    """

    count: int
    off: Array
    pos: Array
    rid: Array
    cut: Array
    cut_end: Array

    @property
    def steps(self) -> int:
        return len(self.off) - 1


@lru_cache(maxsize=64)
def whole_batch(
    batch: int, time: int, shards: int, truncate: int | None, stretch: tuple[int, int] | None = None
) -> tuple[Shard, ...]:
    """Return shards of a batch in which every step is valid.

    stretch: the steps that are computed, from one up to another, if not all; they begin where gradients are cut.
    """
    bounds = [batch * i // shards for i in range(shards + 1)]
    begin, end = stretch or (0, time)
    found = []
    for first, last in pairwise(bounds):
        n = last - first
        t = np.arange(begin, end if n else begin)
        pos = (np.arange(first, last) * time + t[:, None]).ravel()
        cut = np.zeros(len(t), np.uint8) if truncate is None else ((t % truncate == 0) & (t > begin)).astype(np.uint8)
        found.append(
            Shard(
                count=n,
                off=np.arange(len(t) + 1) * n,
                pos=pos,
                rid=np.tile(np.arange(n), len(t)),
                cut=np.repeat(cut, n),
                cut_end=np.zeros(n, bool),
            )
        )
    return tuple(found)


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


@dataclass(frozen=True)
class Packed:
    """A mask as kernels read it, in tables that are a little longer than need be: one plan serves many masks.

    order: the samples as the shards have them. cut_end: of each of these, as in `Shard`. words: off, pos and rid of
    each shard. cuts: cut of each. steps, rows: for how many of these a shard has room at most.
    """

    order: Array
    cut_end: Array
    words: Array
    cuts: Array
    steps: int
    rows: int


def packed(mask: Array, shards: int, truncate: int | None, stretch: tuple[int, int] | None = None) -> Packed:
    """Return what a mask (batch, time) says, for some shards. stretch: as in `whole_batch`."""
    begin, end = stretch or (0, mask.shape[1])
    found, order = masked_batch(mask, shards, truncate, stretch)
    steps = _some_more(max(shard.steps for shard in found), end - begin)
    rows = _some_more(max(len(shard.pos) for shard in found), found[0].count * (end - begin))
    spaces = with_room(len(mask), mask.shape[1], shards, steps, rows)
    words = np.zeros(sum(len(space.off) + 2 * len(space.pos) for space in spaces), np.int64)
    cuts = np.zeros(sum(len(space.cut) for space in spaces), np.uint8)
    place = row = 0
    for shard, space in zip(found, spaces):
        count, off = len(shard.pos), words[place : place + len(space.off)]
        off[: len(shard.off)], off[len(shard.off) :] = shard.off, count  # steps without rows come last
        place += len(off)
        for rows_of in (shard.pos, shard.rid):
            words[place : place + count] = rows_of
            place += len(space.pos)
        cuts[row : row + count] = shard.cut
        row += len(space.cut)
    return Packed(order, np.concatenate([shard.cut_end for shard in found]), words, cuts, steps, rows)


@lru_cache(maxsize=64)
def with_room(batch: int, time: int, shards: int, steps: int, rows: int) -> tuple[Shard, ...]:
    """Return shards as a mask deals them that is not known, with room for some steps and rows: only sizes are right."""

    def nothing(size: int, dtype: type) -> Array:
        return np.broadcast_to(np.zeros((), dtype), (size,))

    found = []
    for first in range(shards):
        count = len(range(first, batch, shards))
        most = min(rows, count * steps)
        own, cut = nothing(most, np.int64), nothing(most, np.uint8)
        found.append(Shard(count, nothing(steps + 1, np.int64), own, own, cut, nothing(count, np.bool_)))
    return tuple(found)


def most_rows(batch: int, time: int, shards: int, truncate: int | None) -> tuple[Shard, ...]:
    """Return shards with room for the most rows that a mask may leave; it takes the sizes that `whole_batch` takes."""
    return with_room(batch, time, shards, time, batch * time)


def _some_more(number: int, most: int) -> int:
    """Return the size that a number has room in: so many eighths of the most."""
    part = max(1, -(-most // SIZES))
    return min(most, -(-number // part) * part)


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


def hold(values: Array, held: tuple[Array, Array]) -> None:
    """Repeat in outputs (batch, time, ...), zero at masked steps, the last valid one there, if there was one.

    held: what `held_by` says of the mask.
    """
    masked, last = held
    rows = _places(values)
    rows[masked] = rows[last]


def gathered_back(d: Array, held: tuple[Array, Array]) -> Array:
    """Return the gradient of `hold` at valid steps: their own and that of the masked ones that repeat them."""
    masked, last = held
    rows = _places(d)
    own = rows[masked]
    if not own.any():  # as a loss leaves it that has the same mask
        return d
    total = rows.copy()
    first = np.flatnonzero(np.diff(last, prepend=-1))
    total[last[first]] += np.add.reduceat(own, first, axis=0)
    return total.reshape(d.shape)


def _places(values: Array) -> Array:
    """Return what is (batch, time, ...) as (batch * time, ...)."""
    return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])


def held_by(mask: Array) -> tuple[Array, Array]:
    """Return the places of masked steps that repeat a valid one, and of that, among all steps of all samples."""
    batch, time = mask.shape
    last = np.maximum.accumulate(np.where(mask, np.arange(time), -1), axis=1)
    where = ~mask & (last >= 0)
    return np.flatnonzero(where), (np.arange(batch)[:, None] * time + last)[where]
