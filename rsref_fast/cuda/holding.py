"""Which weights blocks of threads hold in their shared memory for a whole sequence, and how many blocks that takes."""

from __future__ import annotations

from collections.abc import Sequence

from rsref_fast.cpu.source import Held
from rsref_fast.cuda.driver import Limits
from rsref_fast.cuda.tile import Tile
from rsref_fast.cuda.words import SLOTS

HIGH, WIDE = 8, 4
"""Rows and columns of a thread's results in a product with weights that are held."""

LINES = 8
"""Lines of blocks at most."""

COLUMNS = 16
"""Columns that a block has at least: with fewer it would read the other operand for too little work."""


def staged(tile: Tile, itemsize: int) -> int:
    """Return how many elements of a block's memory are for the other operand, and for what groups have computed."""
    return tile.threads * HIGH * WIDE * 8 // itemsize


def bytes_of(held: Sequence[Held], tile: Tile, itemsize: int, blocks: int) -> int:
    """Return how much memory a block of so many needs."""
    weights = sum(-(-own.depth // 4) * 4 * (-(-own.parts * -(-own.units // blocks) // WIDE) * WIDE) for own in held)
    return (staged(tile, itemsize) + weights) * itemsize


def own_bytes(tile: Tile, itemsize: int) -> int:
    """Return how much shared memory kernels have themselves: for tiles, for sums, and for addresses."""
    return (tile.stage(itemsize) + tile.threads) * itemsize + 8 * SLOTS


def blocks_for(
    programs: Sequence[Sequence[Held]], batch: int, limits: Limits, tile: Tile, itemsize: int
) -> tuple[int, int]:
    """Return how many blocks hold the weights of a step's programs, and in how many lines they share out the samples.

    No blocks if they cannot, or there is nothing to hold. As many lines as find HIGH samples each, if samples are many,
    so that blocks read less of the other operand. programs: what each holds.
    """
    every = [held for program in programs for held in program]
    if not every:
        return 0, 1
    most = max(-(-h.units // -(-COLUMNS // h.parts)) for h in programs[0] or every)

    def fits(blocks: int) -> bool:
        return all(
            own_bytes(tile, itemsize) + bytes_of(held, tile, itemsize, blocks) <= limits.shared_block
            for held in programs
        )

    many = min(LINES, -(-batch // HIGH), limits.multiprocessors) if batch > 2 * HIGH else 1
    for lines in range(many, 0, -1):
        blocks = min(most, limits.multiprocessors // lines)
        if fits(blocks):
            return blocks, lines
    blocks = limits.multiprocessors
    return (blocks, 1) if fits(blocks) else (0, 1)
