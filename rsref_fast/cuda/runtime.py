"""What generated source calls, as Numba CUDA device functions: for a precision, a tile, and a kind of team."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba.cuda import types

from rsref_fast.cuda import held, intrinsics, sums, tensor, tiles
from rsref_fast.cuda.functions import functions
from rsref_fast.cuda.intrinsics import (
    at,
    block_x,
    block_y,
    blocks_x,
    blocks_y,
    meet_in_block,
    meet_in_grid,
    meet_in_line,
    pointer_to,
    quotient,
    remainder,
    thread,
    threads,
)  # fmt: skip
from rsref_fast.cuda.jit import device, unit_decorator
from rsref_fast.cuda.tile import Tile
from rsref_fast.cuda.words import CUTTING, GATE, NUMBERS, SLOTS

ELEMENTS = {
    "f4": types.float32, "f8": types.float64, "i1": types.int8, "i2": types.int16, "i4": types.int32,
    "i8": types.int64, "u1": types.uint8, "u2": types.uint16, "u4": types.uint32, "b1": types.uint8,
}  # fmt: skip
"""What callers' arrays may hold, by NumPy's code."""


@device
def block():
    """A block's number in the grid; modulo the lines it is that of its line."""
    return block_x() * blocks_y() + block_y()


@device
def blocks():
    return blocks_x() * blocks_y()


@device
def rank_in_grid(N):
    return block() * threads() + thread()


@device
def size_of_grid(N):
    return blocks() * threads()


@device
def rank_in_block(N):
    return thread()


@device
def size_of_block(N):
    return threads()


@device
def meet_all(N):
    meet_in_grid(at(N, GATE))


@device
def meet_neighbours(N):
    meet_in_block()


@device
def line(N):
    meet_in_line(at(N, NUMBERS))


@device
def near(N):
    meet_in_block()


@device
def zeroth():
    return 0


@device
def one():
    return 1


@device
def add_part(count, source, target, rank, size):
    for i in range(rank, count, size):
        target[i] += source[i]


@device
def cut_rows(count, width, cut, target, rank, size):
    for e in range(rank, count * width, size):
        if cut[quotient(e, width)] != 0:
            target[e] = 0


@device
def zero_rows(count, width, target, rank, size):
    for i in range(rank, count * width, size):
        target[i] = 0


@device
def cutting_of(N, count, cut):
    """Whether gradients are cut between any two steps, which the host knows."""
    return N[CUTTING]


@device
def row_of(off, even, n0, s):
    """A step's first row: memory need not be asked where all samples take part in each step."""
    return s * n0 if even != 0 else off[s]


@device
def between(off, even, n0, after, before):
    """How many rows there are between two steps' first ones."""
    return (after - before) * n0 if even != 0 else off[after] - off[before]


table = intrinsics.shared_memory("table", types.int64, SLOTS)


@device
def near_words(P, slots):
    """The words of P, in a block's shared memory if it has room for them."""
    if slots > SLOTS or slots == 0:
        return P
    near = table()
    for i in range(thread(), slots, threads()):
        near[i] = P[i]
    meet_in_block()
    return near


@device
def copy_rows(count, width, source, target, rank, size):
    e = rank
    while e < count * width:
        target[e] = source[e]
        e += size


@device
def gather_rows(count, width, source, index, target, rank, size):
    e = rank
    while e < count * width:
        target[e] = source[index[quotient(e, width)] * width + remainder(e, width)]
        e += size


@device
def gather_previous(first, last, width, n0, off, source, target, rank, size):
    for s in range(first, last):
        before = 0 if s == 0 else n0 + off[s - 1]
        place = (off[s] - off[first]) * width
        for e in range(rank, (off[s + 1] - off[s]) * width, size):
            target[place + e] = source[before * width + e]


TEAM = {
    "grid": (rank_in_grid, size_of_grid, meet_all, block, blocks),
    "block": (rank_in_block, size_of_block, meet_neighbours, zeroth, one),
}
"""For each kind of team: a thread's rank, the size, where all meet, a block's first tile, how far its next is."""


@cache
def namespace(dtype: np.dtype[Any], tile: Tile, team: str, several: bool = False) -> dict[str, Any]:
    """Return the names that generated source uses. several: whether it has several products with held weights."""
    rank_of, size_of, meet, first_tile, tile_step = TEAM[team]

    unit = unit_decorator()
    holding = tensor.products(tile, several) if tile.by_tensor_cores(dtype.itemsize) else held.products(dtype, tile)
    element = types.float32 if dtype.itemsize == 4 else types.float64
    return {
        **functions(dtype), **tiles.products(dtype, tile, first_tile, tile_step), **holding, **sums.sums(dtype, tile),
        "kernel": unit, "summing": unit, "entry": device, "at": at, "words": intrinsics.words,
        "near_words": near_words,
        "block": first_tile, "blocks": tile_step, "thread": thread, "threads": threads, "near": near,
        "line": line,
        "part_of_block": held.part_of_block, "of_part": held.of_part, "row_of": row_of, "between": between,
        "block_x": block_x, "blocks_x": blocks_x, "block_y": block_y, "blocks_y": blocks_y,
        "quotient": quotient, "remainder": remainder, "rank_of": rank_of, "size_of": size_of, "meet": meet,
        "cutting_of": cutting_of,
        "copy_rows": copy_rows, "gather_rows": gather_rows, "gather_previous": gather_previous,
        "zero_rows": zero_rows, "cut_rows": cut_rows, "add_part": add_part,
        "floats": pointer_to(element), "ints": pointer_to(types.int64), "bytes_": pointer_to(types.uint8),
        **{f"pointer_{code}": pointer_to(kind) for code, kind in ELEMENTS.items()},
        "F": dtype.type, "I": np.int64, "U": np.uint8, "NAN": dtype.type("nan"), "INFINITY": dtype.type("inf"),
    }  # fmt: skip
