"""Which weights blocks of threads hold in their shared memory for a whole sequence, and how many blocks that takes."""

from __future__ import annotations

from collections.abc import Sequence

from rsref_fast.cpu.source import Held
from rsref_fast.cuda.driver import Limits
from rsref_fast.cuda.tile import Tile
from rsref_fast.cuda.words import SLOTS

HIGH, WIDE = 8, 4
"""Rows and columns of a thread's results in a product with weights that are held."""

ACROSS = 4
"""Eights of columns of which a warp computes sixteen rows on its tensor core."""

TERMS = 16
"""Terms of a product that a tensor core is given at a time."""

HEADER = 4
"""Words before the table of columns of held weights, of which the first says how many there are."""

NOTES = 8
"""Words in which each thread notes what it does in a product on tensor cores."""

PITCH = ACROSS * 8 + 8
"""How far rows of a warp's results are apart in a block's memory: so that its threads use different banks."""

LINES = 8
"""Lines of blocks at most."""

COLUMNS = 16
"""Columns that a block has at least: with fewer it would read the other operand for too little work. On tensor cores
those that a warp computes at a time."""


def staged(tile: Tile, itemsize: int) -> int:
    """Return how many elements of a block's memory are for the other operand, and for what groups have computed."""
    if tile.by_tensor_cores(itemsize):
        return tile.threads // 32 * 16 * PITCH
    return tile.threads * HIGH * WIDE * 8 // itemsize


def bytes_of(held: Sequence[Held], tile: Tile, itemsize: int, blocks: int) -> int:
    """Return how much memory a block of so many needs."""
    tensor = tile.by_tensor_cores(itemsize)
    deep, wide = (TERMS, 8) if tensor else (4, WIDE)
    weights = 0
    for h in held:
        columns = -(-h.parts * -(-h.units // blocks) // wide) * wide
        weights += -(-h.depth // deep) * deep * columns + (HEADER + columns + NOTES * tile.threads if tensor else 0)
    return (staged(tile, itemsize) + weights) * itemsize


def own_bytes(tile: Tile, itemsize: int) -> int:
    """Return how much shared memory kernels have themselves: for tiles, for sums, and for addresses."""
    return (tile.stage(itemsize) + tile.threads) * itemsize + 8 * SLOTS


def blocks_for(
    programs: Sequence[Sequence[Held]], batch: int, limits: Limits, tile: Tile, itemsize: int
) -> tuple[int, int]:
    """Return how many blocks hold the weights of a step's programs, and in how many lines they share out the samples.

    No blocks if they cannot, or there is nothing to hold. As many lines as find HIGH samples each, if samples are many,
    so that blocks read less of the other operand; on tensor cores, which take as long for one sample as for sixteen, as
    many as the multiprocessors allow. programs: what each holds.
    """
    every = [held for program in programs for held in program]
    if not every:
        return 0, 1
    tensor = tile.by_tensor_cores(itemsize)
    most = max(
        -(-h.units // (max(1, ACROSS * 8 // h.parts) if tensor else -(-COLUMNS // h.parts)))
        for h in programs[0] or every
    )

    def fits(blocks: int) -> bool:
        return all(
            own_bytes(tile, itemsize) + bytes_of(held, tile, itemsize, blocks) <= limits.shared_block
            # without tensor cores each thread has some of a row's columns
            and (tensor or all(h.parts * -(-h.units // blocks) <= WIDE * tile.threads for h in held))
            for held in programs
        )

    many = min(LINES, -(-batch // HIGH), limits.multiprocessors) if batch > 2 * HIGH else 1
    if tensor:
        many = max(1, min(batch, limits.multiprocessors // most))
    for lines in range(many, 0, -1):
        blocks = min(most, limits.multiprocessors // lines)
        if fits(blocks):
            return blocks, lines
    blocks = limits.multiprocessors
    return (blocks, 1) if fits(blocks) else (0, 1)
