"""Matrix products of any size from the micro-kernels: blocks of rows, panels of columns, and what is left over.

Each thread of a team computes its part of the columns. At every other turn a product begins with its last panel: what
was read last is in the cache still, and read first again, so of weights that do not fit a cache's size less is fetched.
Compiled once for a machine, apart from the graphs' own code, which calls it by name.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from numba import types

from rsref_fast.cpu import copied_rows, single_row, threes
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.microkernel import blocks, microkernel, microkernels
from rsref_fast.cpu.microkernel_shapes import CHUNK, Shape
from rsref_fast.cpu.pointers import allocated, at, caller, copied, memory_on_stack, release, there
from rsref_fast.cpu.transpose import transposed_block

I64 = types.int64
FEW = 64
"""Rows for which the right operand is not worth packing where a panel's columns follow each other: 5 % of a product."""

MANY = 8
"""Panels for which a left operand is worth copying (see `copied_rows`)."""

DEEP = 4
DEEP_FOR = 32 * 1024, 2 * 1024 * 1024
"""Rows of a panel, or of two, that a single row takes at once, if all panels have so many bytes: more than the
innermost cache holds, but not so many that they come from farther than the next one. Else it takes several panels at
once, as far as there are so many: a sum must not wait for the one before. Bytes are those of the whole product, so that
sums are added up in the same order however threads share it."""

FETCHED_FROM = 512 * 1024
"""Bytes of all panels from which on they do not stay in a cache that is near: the first block of rows fetches each one
before it reads it (see `Shape.ahead`)."""


@cache
def products(element: Any, shape: Shape) -> dict[str, tuple[Any, Any]]:
    """Return the functions for a precision by name, each with its signature."""
    width, lanes = shape.width, shape.lanes
    block_transposed, copy_row = transposed_block(element, lanes), copied(element, width)
    wide_panels = 4
    wide = microkernel(element, shape, 1, wide_panels)
    long, longer = (microkernel(element, shape, 1, n, DEEP) for n in (1, shape.panels))
    together = shape.panels * width
    near, far, fetched_from = (size // (element.bitwidth // 8) for size in (*DEEP_FOR, FETCHED_FROM))
    whole, single = (microkernel(element, shape, n) for n in (shape.rows, 1))
    fewer, fetching = (microkernels(element, shape, ahead=n) for n in (0, shape.ahead))
    fetches, by_three = shape.ahead > 0, shape.threes
    narrow = microkernels(element, replace(shape, vectors=1))
    most, at_once, taken = shape.rows, shape.copied, blocks(shape)
    tile_of = memory_on_stack(element, most * width)
    panel_of = memory_on_stack(element, CHUNK * width)

    called = declared(element, shape)
    block, partial, pack_panels = called["multiply_panel"], called["multiply_partial"], called["pack"]
    multiply_copied, multiply_threes = called["multiply_copied"], called["multiply_threes"]

    def multiply_panel(rows, depth, a, row_step, depth_step, b, b_step, c, c_step, o, o_step, accumulate, ahead):
        """Columns of one panel, for all rows. ahead: whether the first of them are to fetch it."""
        i = 0
        if fetches and ahead != 0:
            i = taken(rows)
            fetching(i, depth, a, row_step, depth_step, b, b_step, 0, c, c_step, o, o_step, accumulate)
        while i < rows:
            now = taken(rows - i)
            left, to, begin = at(a, i * row_step), at(c, i * c_step), at(o, i * o_step)
            if now == most:
                whole(depth, left, row_step, depth_step, b, b_step, 0, to, c_step, begin, o_step, accumulate)
            else:
                fewer(now, depth, left, row_step, depth_step, b, b_step, 0, to, c_step, begin, o_step, accumulate)
            i += now

    def multiply_partial(rows, columns, depth, a, row_step, depth_step, b, b_step, c, c_step, o, o_step, accumulate):
        """Fewer columns than a panel has: computed aside, and as many as there are copied."""
        tile = tile_of()
        i = 0
        while i < rows:
            now, left = min(most, rows - i), at(a, i * row_step)
            if columns <= lanes:
                narrow(now, depth, left, row_step, depth_step, b, b_step, 0, tile, width, tile, width, 0)
            else:
                block(now, depth, left, row_step, depth_step, b, b_step, tile, width, tile, width, 0, 0)
            for r in range(now):
                for j in range(columns):
                    begin = o[(i + r) * o_step + j] if accumulate != 0 else element(0)
                    c[(i + r) * c_step + j] = tile[r * width + j] + begin
            i += now

    @plain
    def share(columns, rank, size):
        """The first column that a thread of a team computes, and how many: whole panels."""
        count = (columns + width - 1) // width
        start = count * rank // size * width
        return start, min(columns, count * (rank + 1) // size * width) - start

    @plain
    def begun(rows, columns, c, c_step, o, o_step, accumulate):
        """What a product of no depth is."""
        for i in range(rows):
            for j in range(columns):
                c[i * c_step + j] = o[i * o_step + j] if accumulate != 0 else element(0)

    def multiply_packed(
        rows,
        all_columns,
        depth,
        a,
        row_step,
        depth_step,
        all_panels,
        all_c,
        c_step,
        all_o,
        o_step,
        accumulate,
        rank,
        size,
        turn,
        whole,
    ):
        first, columns = share(all_columns, rank, size)
        panels, c, o = at(all_panels, first * depth), at(all_c, first), at(all_o, first)
        if depth == 0:
            begun(rows, columns, c, c_step, o, o_step, accumulate)
            return
        back = turn % 2 == 1
        full, done, deep = columns // width * width, 0, near < whole * depth <= far
        ahead = 1 if whole * depth > fetched_from else 0
        if rows == 1 and not deep:
            done = full // (wide_panels * width) * (wide_panels * width)
            for i in range(0, done, wide_panels * width):
                j = full - wide_panels * width - i if back else i
                b = at(panels, j * depth)
                wide(depth, a, 0, depth_step, b, width, depth * width, at(c, j), 0, at(o, j), 0, accumulate)
        if rows == 1 and deep and depth >= DEEP:
            whole_depth = depth // DEEP * DEEP
            for i in range(0, full, together):
                now = min(together, full - i)
                start = full - i - now if back else i
                if now == together:
                    b, to, begin = at(panels, start * depth), at(c, start), at(o, start)
                    longer(whole_depth, a, 0, depth_step, b, width, depth * width, to, 0, begin, 0, accumulate)
                for j in range(start, start + now, width):
                    b = at(panels, j * depth)
                    if now < together:
                        long(whole_depth, a, 0, depth_step, b, width, 0, at(c, j), 0, at(o, j), 0, accumulate)
                    if whole_depth < depth:
                        rest, left = at(b, whole_depth * width), at(a, whole_depth * depth_step)
                        single(depth - whole_depth, left, 0, depth_step, rest, width, 0, at(c, j), 0, at(c, j), 0, 1)
            done = full
        if by_three and rows > 1:
            done = full // (3 * width) * (3 * width)
            for i in range(0, done, 3 * width):
                j = full - 3 * width - i if back else i
                multiply_threes(
                    rows, depth, a, row_step, depth_step, at(panels, j * depth), depth * width, at(c, j), c_step,
                    at(o, j), o_step, accumulate, ahead,
                )  # fmt: skip
        for i in range(done, full, width):
            j = full - width - i if back else i
            b = at(panels, j * depth)
            block(rows, depth, a, row_step, depth_step, b, width, at(c, j), c_step, at(o, j), o_step, accumulate, ahead)
        if full < columns:
            partial(
                rows, columns - full, depth, a, row_step, depth_step, at(panels, full * depth), width, at(c, full),
                c_step, at(o, full), o_step, accumulate,
            )  # fmt: skip

    def multiply(
        rows, all_columns, depth, a, row_step, depth_step, all_b, b_row, b_column, all_c, c_step, accumulate, rank, size
    ):
        first, columns = share(all_columns, rank, size)
        b, c = at(all_b, first * b_column), at(all_c, first)
        if depth == 0:
            begun(rows, columns, c, c_step, c, c_step, accumulate)
            return
        done = 0
        if at_once > 0 and row_step == 1 and rows > FEW and columns >= MANY * width:
            memory = allocated(a, min(rows, at_once) * min(depth, CHUNK))
            if there(memory):
                done = columns // width * width
                multiply_copied(rows, done, depth, a, depth_step, b, b_row, b_column, c, c_step, accumulate, memory)
                release(memory)
        panel = panel_of()
        for j in range(done, columns, width):
            now = min(width, columns - j)
            for k in range(0, depth, CHUNK):
                deep = min(CHUNK, depth - k)
                add = 1 if k > 0 else accumulate
                left, right, to = at(a, k * depth_step), at(b, k * b_row + j * b_column), at(c, j)
                if rows <= FEW and now == width and b_column == 1:
                    block(rows, deep, left, row_step, depth_step, right, b_row, to, c_step, to, c_step, add, 0)
                    continue
                pack_panels(deep, now, right, b_row, b_column, panel, 0, 1)
                if now == width:
                    block(rows, deep, left, row_step, depth_step, panel, width, to, c_step, to, c_step, add, 0)
                else:
                    partial(rows, now, deep, left, row_step, depth_step, panel, width, to, c_step, to, c_step, add)

    def pack(depth, all_columns, all_b, row_step, column_step, all_panels, rank, size):
        first, columns = share(all_columns, rank, size)
        b, panels = at(all_b, first * column_step), at(all_panels, first * depth)
        for j in range(0, columns, width):
            now = min(width, columns - j)
            blocks = depth // lanes if row_step == 1 and now == width else 0
            for k in range(0, blocks * lanes, lanes):
                for i in range(0, width, lanes):
                    source, target = at(b, k + (j + i) * column_step), at(panels, j * depth + k * width + i)
                    block_transposed(source, column_step, target, width)
            for k in range(blocks * lanes, depth):
                start = k * row_step + j * column_step
                place = j * depth + k * width
                if column_step == 1 and now == width:
                    copy_row(at(b, start), at(panels, place))
                    continue
                for i in range(now):
                    panels[place + i] = b[start + i * column_step]
                for i in range(now, width):
                    panels[place + i] = element(0)

    own = (
        multiply_panel, multiply_partial, pack, multiply_packed, multiply,
        copied_rows.multiply_copied(element, shape, pack_panels), single_row.multiply_row(element, shape),
        threes.multiply_threes(element, shape),
    )  # fmt: skip
    return {f.__name__: (f, signatures(element)[f.__name__]) for f in own}


def signatures(element: Any) -> dict[str, Any]:
    """Return the types of the functions' arguments, by name."""
    pointer = types.CPointer(element)
    left, result = (I64, I64, I64, pointer, I64, I64), (pointer, I64, pointer, I64)
    return {
        "multiply_panel": types.void(*left[1:], pointer, I64, *result, I64, I64),
        "multiply_partial": types.void(*left, pointer, I64, *result, I64),
        "multiply_packed": types.void(*left, pointer, *result, *[I64] * 5),
        "multiply": types.void(*left, pointer, I64, I64, pointer, *[I64] * 4),
        "pack": types.void(I64, I64, pointer, I64, I64, pointer, I64, I64),
        "multiply_copied": copied_rows.signature(element),
        "multiply_row": single_row.signature(element),
        "multiply_threes": threes.signature(element),
    }


def declared(element: Any, shape: Shape) -> dict[str, Any]:
    """Return the functions as kernels, and one another, call them: by the names under which they are published."""
    return {name: caller(shape.symbol(name, str(element)), own) for name, own in signatures(element).items()}
