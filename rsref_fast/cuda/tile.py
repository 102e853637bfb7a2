"""How a block of threads computes a part of a matrix product."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property


@dataclass(frozen=True)
class Tile:
    """`parts` times `across` x `down` threads, each with `wide` x `high` results.

    depth: float32 terms of each result that are in shared memory at a time, of which a part has every `parts`th one;
    of float64 it is half as many. tensor: whether products with held weights of float32 are for tensor cores.
    Errors: ValueError if the threads cannot share out what is fetched, or are no whole warps for tensor cores.
    """

    across: int
    down: int
    wide: int
    high: int
    depth: int
    parts: int
    tensor: bool = False

    def __post_init__(self) -> None:
        for lines in (self.rows, self.columns):
            if self.threads % (self.near * lines) or self.depth // 2 % (self.threads // lines):
                raise ValueError(f"{self.threads} threads do not share out {lines} x {self.depth} numbers")
        if self.tensor and self.threads % 32:
            raise ValueError(f"{self.threads} threads are no whole warps, which tensor cores compute for")

    @property
    def threads(self) -> int:
        return self.across * self.down * self.parts

    @property
    def columns(self) -> int:
        return self.across * self.wide

    @property
    def rows(self) -> int:
        return self.down * self.high

    def layout(self, itemsize: int) -> tuple[int, int, int, int]:
        """Return the terms in shared memory, how far they are apart for both operands, and where the second one begins.

        Four more than a row: then threads that write neighbours of one row, or of one column, use different banks.
        """
        depth = self.depth * 4 // itemsize
        left, right = self.rows + 4, self.columns + 4
        return depth, left, right, depth * left

    def stage(self, itemsize: int) -> int:
        """Return how many elements of shared memory a product needs."""
        depth, left, right, _ = self.layout(itemsize)
        return max(depth * (left + right), self.parts * self.rows * self.columns)

    def by_tensor_cores(self, itemsize: int) -> bool:
        """Return whether products with held weights are computed by tensor cores."""
        return self.tensor and itemsize == 4

    def of(self, itemsize: int) -> Tile:
        """Return the tile as it is for numbers of a size: only float32 is for tensor cores."""
        return self if itemsize == 4 else replace(self, tensor=False)

    @cached_property
    def near(self) -> int:
        """How many neighbours in memory are fetched together where a matrix's columns are: 32 bytes, if that fits."""
        fits = (n for n in (8, 4, 2) if self.threads % (n * self.rows) == self.threads % (n * self.columns) == 0)
        return next(fits, 1)


USUAL = Tile(across=4, down=4, wide=4, high=4, depth=128, parts=16)
"""Sixteen rows, so that a small batch wastes little; a warp for each part."""


def tile_for(capability: tuple[int, int]) -> Tile:
    """Return the tile for GPUs of a compute capability.

    Those of 8.0 and newer multiply TF32 on tensor cores; on 10.0 an LSTM's kernels would not have registers enough.
    """
    return replace(USUAL, tensor=(8, 0) <= capability < (10, 0))
