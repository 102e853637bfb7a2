"""Matrix products by tiles: each block of threads computes one at a time, with its operands in shared memory.

While a block multiplies what is in shared memory, the next terms are on their way into registers. The threads are in
parts (a warp each), every one of which has the whole tile and some of the terms: so a thread has many results of its
own, and reads little for each multiplication. At the end the parts are added up, always in the same order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba.cuda import types

from rsref_fast.cuda.intrinsics import at, four_at, meet_in_block, quotient, remainder, shared_memory, thread
from rsref_fast.cuda.jit import device
from rsref_fast.cuda.templates import filled
from rsref_fast.cuda.tile import Tile

TEXT = '''
def tiled(rows, columns, depth, a, row_step, depth_step, b, b_tile, b_row, b_column, c, c_step, accumulate):
    """c (+)= a b, tile by tile; what sticks out of a matrix counts as zero, and is not written."""
    memory = stage()
    t = thread()
    x = remainder(t, {across})
    y = remainder(quotient(t, {across}), {down})
    part = quotient(t, {team})
    i = remainder(quotient(t, {near}), {rows}) if depth_step == 1 else remainder(t, {rows})
    left_k = {near_left} if depth_step == 1 else quotient(t, {rows})
    j = remainder(t, {columns}) if b_column == 1 else remainder(quotient(t, {near}), {columns})
    right_k = quotient(t, {columns}) if b_column == 1 else {near_right}
    left_step, right_step = depth_step * {left_step}, b_row * {right_step}
    across = quotient(columns + {last_column}, {columns})
    tiles = across * quotient(rows + {last_row}, {rows})
    for tile in range(first_tile(), tiles, tile_step()):
        row = quotient(tile, across) * {rows}
        panel = remainder(tile, across)
        column = panel * {columns}
        left = at(a, (row + i) * row_step + left_k * depth_step)
        right = at(b, panel * b_tile + j * b_column + right_k * b_row)
        left_depth = depth - left_k if row + i < rows else 0
        right_depth = depth - right_k if column + j < columns else 0
        start = 0
        {fetch}
        {clear}
        while start < depth:
            {put}
            meet_in_block()
            last = min({depth}, depth - start)
            start += {depth}
            {fetch}
            for k in range(part, last, {parts}):
                {read}
                {multiply}
            meet_in_block()
        {spread}
        meet_in_block()
        for e in range(t, {size}, {threads}):
            own_row = row + quotient(e, {columns})
            own_column = column + remainder(e, {columns})
            if own_row < rows and own_column < columns:
                total = memory[e]
                {total}
                place = own_row * c_step + own_column
                c[place] = c[place] + total if accumulate else total
        meet_in_block()
'''


def source_of(tile: Tile, itemsize: int) -> str:
    """Return the text of a product, its results one variable each: they must stay in registers."""
    both = [(i, j) for i in range(tile.high) for j in range(tile.wide)]
    depth, left_pitch, right_pitch, second = tile.layout(itemsize)
    left_step, right_step = tile.threads // tile.rows, tile.threads // tile.columns
    lefts, rights = range(depth // left_step), range(depth // right_step)
    near = tile.near
    names = {
        "rows": tile.rows, "columns": tile.columns, "depth": depth, "threads": tile.threads, "across": tile.across,
        "down": tile.down, "team": tile.across * tile.down, "parts": tile.parts, "near": near,
        "left_step": left_step, "right_step": right_step,
        "last_row": tile.rows - 1, "last_column": tile.columns - 1, "size": tile.rows * tile.columns,
        "near_left": f"remainder(t, {near}) + quotient(t, {near * tile.rows}) * {near}",
        "near_right": f"remainder(t, {near}) + quotient(t, {near * tile.columns}) * {near}",
    }  # fmt: skip
    blocks = {
        "fetch": [
            *_fetch("left", lefts, left_step),
            *_fetch("right", rights, right_step),
        ],
        "clear": [f"c{i}_{j} = F(0)" for i, j in both],
        "put": [
            *(f"memory[(left_k + {m * left_step}) * {left_pitch} + i] = left{m}" for m in lefts),
            *(f"memory[{second} + (right_k + {m * right_step}) * {right_pitch} + j] = right{m}" for m in rights),
        ],
        "read": [
            *_read("a", f"k * {left_pitch} + y * {tile.high}", tile.high),
            *_read("b", f"{second} + k * {right_pitch} + x * {tile.wide}", tile.wide),
        ],
        "multiply": [f"c{i}_{j} += a{i} * b{j}" for i, j in both],
        "spread": [
            f"memory[(part * {tile.rows} + y * {tile.high} + {i}) * {tile.columns} + x * {tile.wide} + {j}] = c{i}_{j}"
            for i, j in both
        ],
        "total": [f"total += memory[e + {m * tile.rows * tile.columns}]" for m in range(1, tile.parts)],
    }  # fmt: skip
    return filled(TEXT, blocks, names)


def _fetch(side: str, numbers: range, step: int) -> list[str]:
    """Return the lines that fetch a thread's numbers of an operand, and go on: by one pointer, to spare registers."""
    found = []
    for m in numbers:
        name = f"{side}{m}"
        found += [f"{name} = F(0)", f"if start + {m * step} < {side}_depth:", f"    {name} = {side}[0]"]
        found += [f"{side} = at({side}, {side}_step)"]
    return found


def _read(name: str, place: str, count: int) -> list[str]:
    """Return the lines that read neighbours in shared memory."""
    if count % 4:
        return [f"{name}{i} = memory[{place} + {i}]" for i in range(count)]
    return [
        f"{', '.join(f'{name}{i + m}' for m in range(4))} = four_at(memory, {place} + {i})" for i in range(0, count, 4)
    ]


def products(dtype: np.dtype[Any], tile: Tile, first_tile: Any, tile_step: Any) -> dict[str, Any]:
    """Return `multiply`, `multiply_packed` and `pack` for a precision and a team."""
    scope = {
        "F": dtype.type, "at": at, "four_at": four_at, "quotient": quotient, "remainder": remainder, "thread": thread,
        "meet_in_block": meet_in_block, "stage": stage_of(dtype, tile), "first_tile": first_tile,
        "tile_step": tile_step,
    }  # fmt: skip
    exec(compile(source_of(tile, dtype.itemsize), "<tiled>", "exec"), scope)  # the text is our own
    tiled, width = device(scope["tiled"], apart=False), tile.columns

    @device
    def multiply(rows, columns, depth, a, row_step, depth_step, b, b_row, b_column, c, c_step, accumulate, rank, size):
        """The product with a matrix however strided."""
        tiled(
            rows, columns, depth, a, row_step, depth_step, b, width * b_column, b_row, b_column, c, c_step, accumulate
        )

    @device
    def multiply_packed(rows, columns, depth, a, row_step, depth_step, panels, c, c_step, accumulate, rank, size):
        """The product with what `pack` has written."""
        tiled(rows, columns, depth, a, row_step, depth_step, panels, depth * width, width, 1, c, c_step, accumulate)

    return {"multiply": multiply, "multiply_packed": multiply_packed, "pack": _pack(dtype, tile)}


@cache
def stage_of(dtype: np.dtype[Any], tile: Tile) -> Any:
    """Return the intrinsic for the shared memory, which has the operands, and then the parts' results."""
    element = types.float32 if dtype.itemsize == 4 else types.float64
    return shared_memory("stage", element, tile.stage(dtype.itemsize))


def _pack(dtype: np.dtype[Any], tile: Tile) -> Any:
    F, width = dtype.type, tile.columns

    @device
    def pack(depth, columns, b, row_step, column_step, panels, rank, size):
        """Weights into panels of a tile's columns, each row-major, the last one filled with zeros."""
        for e in range(rank, quotient(columns + width - 1, width) * width * depth, size):
            j = remainder(e, width)
            rest = quotient(e, width)
            column = quotient(rest, depth) * width + j
            value = F(0)
            if column < columns:
                value = b[remainder(rest, depth) * row_step + column * column_step]
            panels[e] = value

    return pack
