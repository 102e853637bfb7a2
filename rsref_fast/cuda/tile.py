"""How a block of threads computes a part of a matrix product."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """`across` x `down` threads, each with `wide` x `high` results, `depth` terms at a time."""

    across: int
    down: int
    wide: int
    high: int
    depth: int

    @property
    def threads(self) -> int:
        return self.across * self.down

    @property
    def columns(self) -> int:
        return self.across * self.wide

    @property
    def rows(self) -> int:
        return self.down * self.high


USUAL = Tile(across=32, down=8, wide=1, high=2, depth=32)
"""Sixteen rows, so that a small batch wastes little, and a warp for each 32 columns, which lie together in memory."""
