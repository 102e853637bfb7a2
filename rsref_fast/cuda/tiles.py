"""Matrix products by tiles: each block of threads computes one at a time, with its operands in shared memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba.cuda import types

from rsref_fast.cuda.intrinsics import at, meet_in_block, quotient, remainder, shared_memory, thread
from rsref_fast.cuda.jit import device
from rsref_fast.cuda.tile import Tile

TEXT = '''
def multiply(rows, columns, depth, a, row_step, depth_step, {right}, c, c_step, accumulate, rank, size):
    """c (+)= a b, tile by tile; what sticks out of a matrix counts as zero, and is not written."""
    left, right = left_tile(), right_tile()
    t = thread()
    across = quotient(columns + {last_column}, {columns})
    tiles = across * quotient(rows + {last_row}, {rows})
    for tile in range(first_tile(), tiles, tile_step()):
        row = quotient(tile, across) * {rows}
        column = remainder(tile, across) * {columns}
        {clear}
        for start in range(0, depth, {depth}):
            for e in range(t, {left_size}, {threads}):
                i = quotient(e, {depth}) if depth_step == 1 else remainder(e, {rows})
                k = remainder(e, {depth}) if depth_step == 1 else quotient(e, {rows})
                value = F(0)
                if row + i < rows and start + k < depth:
                    value = a[(row + i) * row_step + (start + k) * depth_step]
                left[k * {rows} + i] = value
            for e in range(t, {right_size}, {threads}):
                {load}
                right[k * {columns} + j] = value
            meet_in_block()
            for k in range(min({depth}, depth - start)):
                {read}
                {multiply}
            meet_in_block()
        {store}
'''

STRIDED = """
j = remainder(e, {columns}) if b_column == 1 else quotient(e, {depth})
k = quotient(e, {columns}) if b_column == 1 else remainder(e, {depth})
value = F(0)
if column + j < columns and start + k < depth:
    value = b[(start + k) * b_row + (column + j) * b_column]
"""

PACKED = """
j = remainder(e, {columns})
k = quotient(e, {columns})
value = F(0)
if start + k < depth:
    value = panels[column * depth + (start + k) * {columns} + j]
"""


def source_of(tile: Tile, packed: bool) -> str:
    """Return the text of a product, its results one variable each: they must stay in registers."""
    both = [(i, j) for i in range(tile.high) for j in range(tile.wide)]
    names = {
        "rows": tile.rows, "columns": tile.columns, "depth": tile.depth, "threads": tile.threads,
        "last_row": tile.rows - 1, "last_column": tile.columns - 1,
        "left_size": tile.rows * tile.depth, "right_size": tile.columns * tile.depth,
    }  # fmt: skip
    blocks = {
        "clear": [
            f"x, y = remainder(t, {tile.across}), quotient(t, {tile.across})", *(f"c{i}_{j} = F(0)" for i, j in both)
        ],
        "load": (PACKED if packed else STRIDED).format(**names).strip().splitlines(),
        "read": [
            *(f"a{i} = left[k * {tile.rows} + y + {i * tile.down}]" for i in range(tile.high)),
            *(f"b{j} = right[k * {tile.columns} + x + {j * tile.across}]" for j in range(tile.wide)),
        ],
        "multiply": [f"c{i}_{j} += a{i} * b{j}" for i, j in both],
        "store": [
            line
            for i, j in both
            for line in (
                f"if row + y + {i * tile.down} < rows and column + x + {j * tile.across} < columns:",
                f"    place = (row + y + {i * tile.down}) * c_step + column + x + {j * tile.across}",
                f"    c[place] = c[place] + c{i}_{j} if accumulate else c{i}_{j}",
            )
        ],
    }  # fmt: skip
    lines = []
    for line in TEXT.strip().splitlines():
        stripped = line.strip()
        if stripped.strip("{}") in blocks:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + part for part in blocks[stripped.strip("{}")]]
        else:
            lines.append(line.format(right="panels" if packed else "b, b_row, b_column", **names))
    return "\n".join(lines) + "\n"


def products(dtype: np.dtype[Any], tile: Tile, first_tile: Any, tile_step: Any) -> dict[str, Any]:
    """Return `multiply`, `multiply_packed` and `pack` for a precision and a team."""
    left, right = _tiles(dtype, tile)
    names = {
        "F": dtype.type, "at": at, "quotient": quotient, "remainder": remainder, "thread": thread,
        "meet_in_block": meet_in_block, "left_tile": left, "right_tile": right,
        "first_tile": first_tile, "tile_step": tile_step,
    }  # fmt: skip
    found = {}
    for name, packed in (("multiply", False), ("multiply_packed", True)):
        scope = dict(names)
        exec(compile(source_of(tile, packed), f"<{name}>", "exec"), scope)  # the text is our own
        found[name] = device(scope["multiply"])
    return {**found, "pack": _pack(dtype, tile)}


@cache
def _tiles(dtype: np.dtype[Any], tile: Tile) -> tuple[Any, Any]:
    element = types.float32 if dtype.itemsize == 4 else types.float64
    return (
        shared_memory("left_tile", element, tile.rows * tile.depth),
        shared_memory("right_tile", element, tile.columns * tile.depth),
    )


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
