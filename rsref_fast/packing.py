"""How the samples of a call are dealt out to shards and laid out in time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Shard:
    """Some samples of a batch, and their valid steps.

    count: how many samples. off: rows of step s are off[s] to off[s + 1].
    pos: for each row its place sample * time + t, or as the arrays lie. rid: for each row which of the shard's samples
    it is. cut: for each row whether the gradient of its state is cut before it. cut_end: for each sample whether it is
    cut after its last step (or, without one, at all).
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
    batch: int,
    time: int,
    shards: int,
    truncate: int | None,
    stretch: tuple[int, int] | None = None,
    time_first: bool = False,
) -> tuple[Shard, ...]:
    """Return shards of a batch in which every step is valid.

    stretch: the steps that are computed, from one up to another, if not all; they begin where gradients are cut.
    time_first: whether the arrays lie so: then the place of a row is t * batch + sample.
    """
    bounds = [batch * i // shards for i in range(shards + 1)]
    begin, end = stretch or (0, time)
    found = []
    for first, last in pairwise(bounds):
        n = last - first
        t = np.arange(begin, end if n else begin)
        samples, steps = (1, batch) if time_first else (time, 1)
        pos = (np.arange(first, last) * samples + t[:, None] * steps).ravel()
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
