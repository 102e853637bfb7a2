"""How a call is split: its batch into shards, at once or in rounds, and the units of each among a team of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsref_fast.threads import get_num_threads

if TYPE_CHECKING:
    from rsref_fast.cpu.specialised import Specialised

FLOPS_A_THREAD = 2_000_000
"""Additions and multiplications that each thread should have: waking one costs as much as some hundred thousand."""

FLOPS_A_MEETING = 45_000
"""Additions and multiplications of a step below which waiting for each other costs a team more than it gains."""

FLOPS_A_CALL = 200_000
"""Additions and multiplications of a single step below which it is not worth calling threads that are awake."""

ROWS = 4
"""Samples that a shard should have: fewer read all weights for little work."""


NEAR = 3 << 19
"""Bytes of weights up to which a core's cache holds those of a step: then samples are shared out, however few."""

SHARED = 1 << 24
"""Bytes of weights from which threads had better share the units of all samples: each then reads its part of the
weights only, where shards would all read the whole of what their caches do not hold."""


ATTENDED = 1 << 22
"""Bytes that all samples together read at every step, beside weights, up to which a cache has them the next time, too:
backward needs twice as many, and others use the cache as well."""


@dataclass(frozen=True)
class Split:
    """shards: samples that are computed apart. team: how many threads share a shard. rounds: of how many shards a team
    computes all steps, one after the other.
    """

    shards: int
    team: int
    rounds: int = 1

    @property
    def teams(self) -> int:
        return -(-self.shards // self.rounds)


def split_of(wanted: Split | None, threads: int | None, special: Specialised, batch: int, rows: int) -> Split:
    """Return how many shards, and threads for each.

    wanted: if it is not to be chosen here; a step that mixes samples cannot be split by them, though.
    threads: as the engine was given them: then all are used. rows: samples times steps, masked ones left out.
    """
    if wanted is not None:
        shards = 1 if special.compiled.mixes else max(1, min(batch, wanted.shards))
        return Split(shards, wanted.team, min(shards, wanted.rounds))
    most = threads
    if most is None:
        most = max(1, min(get_num_threads(), special.work(batch, rows) // FLOPS_A_THREAD))
    weights = special.flops // 2 * special.dtype.itemsize
    if special.compiled.mixes or weights > SHARED:
        shards = 1
    elif batch >= ROWS * most or weights <= NEAR:
        shards = max(1, min(most, batch))
    else:
        shards = 1
    steps = max(1, rows // max(1, batch))
    together = threads is not None or special.work(batch, rows) // steps >= FLOPS_A_MEETING * shards
    rounds = 1 if special.compiled.mixes or weights > SHARED else _rounds(special.attended, batch, rows, shards)
    return Split(shards * rounds, max(1, most // shards) if together else 1, rounds)


def _rounds(attended: int, batch: int, rows: int, teams: int) -> int:
    """Return in how many rounds steps are computed, so that what they attend to comes from a cache at all but one.

    attended: bytes of a sample. The answer is a power of two, as most batches are: then shards are alike.
    """
    rounds = 1
    while rows > batch >= 2 * rounds * teams * ROWS and attended * batch > ATTENDED * rounds:
        rounds *= 2
    return rounds


def close_split_of(split: Split, threads: int | None, special: Specialised, batch: int) -> Split:
    """Return how a single step is split where threads need not be woken, given how it is split where they must be."""
    most = threads or get_num_threads()
    if split != Split(1, 1) or special.work(batch, batch) < FLOPS_A_CALL:
        return split
    return Split(1, most)
