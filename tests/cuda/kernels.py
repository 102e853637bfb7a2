"""The CPU engine with the kernels of the GPU: programs of `rsref_fast.cuda`, run by the emulator on a call's arrays.

So every feature of an engine is there before any GPU is.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from rsref_fast.cpu.kernels import Kernels
from rsref_fast.cuda import build
from rsref_fast.cuda.target import CUDA, OWNED
from rsref_fast.cuda.tile import USUAL, Tile
from rsref_fast.cuda.words import CUTTING, EVEN, NUMBERS
from tests.cuda.emulator import POISON, Kernel

TILE = Tile(across=2, down=3, wide=3, high=1, depth=8, parts=2)
"""Twelve threads: neither they nor what they compute at once divides the sizes of the tests."""

WARPS = replace(USUAL, parts=4, depth=64, tensor=True)
"""Two warps, which have tensor cores."""


def places(plan, arrays):
    """Return P and N of all shards of a plan: the addresses of its places in the arrays, and its numbers."""
    kept = []

    def address(place):
        if place.fixed is not None:
            kept.append(place.fixed)
            return place.fixed.ctypes.data
        return arrays[place.array].ctypes.data + place.offset

    table = np.array([[address(place) for place in own] for _, own in plan.shards], np.int64)
    numbers = np.zeros((len(plan.shards), NUMBERS), np.int64)  # without words of lines, whose gate is the emulator's
    for row, (shard, own) in zip(numbers, plan.shards):
        off, _, _, cut = (seen(place, arrays) for place in own[:4])
        row[:5] = shard.count, shard.steps, max(plan.limit, shard.count), 0, plan.taped
        row[CUTTING] = cut.any()
        row[EVEN] = (np.diff(off) == shard.count).all()
    return table, numbers, kept


def seen(place, arrays):
    """Return the elements of a place."""
    if place.fixed is not None:
        return place.fixed
    whole = arrays[place.array].reshape(-1).view(np.uint8)
    return whole[place.offset : place.offset + place.bytes].view(place.dtype)


@lru_cache(maxsize=64)
def compiled(text, entry, dtype, tile, team):
    return Kernel(build.kernel(text, entry, dtype, tile, team))


class Emulated(Kernels):
    """Kernels of one program. Class attributes, to be set by a subclass: blocks, and what a team is."""

    target = CUDA
    tile = TILE
    block_rows = 8
    blocks = 2
    lines = 1
    team = "grid"
    backwards = False

    def __init__(self, source, dtype):
        super().__init__(source, dtype)
        self.kernels = {}

    def kernel(self, entry):
        """Return an entry's kernel, compiled when it is first needed."""
        if entry not in self.kernels:
            team = self.team if entry == "shard" else "grid"
            self.kernels[entry] = compiled(self.source.text, entry, self.dtype, self.tile, team)
        return self.kernels[entry]

    @classmethod
    def panel_width(cls, dtype):
        return cls.tile.columns

    def execute(self, plan, arrays):
        arrays[plan.arrays - 1][...] = POISON
        if not self.source.backward:
            arrays[plan.arrays - 2][...] = POISON
        for target, source in plan.copies:
            seen(target, arrays)[...] = seen(source, arrays)
        for target in plan.clears:
            seen(target, arrays)[...] = 0
        table, numbers, kept = places(plan, arrays)

        def run(entry, blocks, other=0):
            slots = table.shape[1]
            self.kernel(entry).launch(
                blocks, self.tile.threads, table.ctypes.data, numbers.ctypes.data, slots, other,
                backwards=self.backwards, lines=self.lines if entry == "shard" else 1,
            )  # fmt: skip

        if plan.prepares:
            run("prepare", self.blocks)
        run("shard", len(plan.shards) if self.team == "block" else self.blocks)
        if self.source.backward:
            for other in table[1:]:
                run("fold", self.blocks, other.ctypes.data)
        if self.source.finishes:
            run("finish", self.blocks)
        del kept
        if numbers[:, 3].any():
            raise IndexError("take: an index is out of range")


class EmulatedOwned(Emulated):
    """Blocks that have parts of their own in the time loop."""

    target = OWNED
    blocks = 3
    lines = 2


class EmulatedTensor(EmulatedOwned):
    """Blocks that have parts of their own, with tensor cores for float32."""

    tile = WARPS
    blocks = 2


class EmulatedBlocks(Emulated):
    """A block of threads for each shard, none of which waits for another."""

    team = "block"
