"""Products with weights that blocks hold: each has its part of the columns in shared memory for the whole sequence.

A block computes its columns for some rows at a time. The other operand comes by in stages as long as the memory allows;
the threads are in groups, every one of which has all results and some of the terms, and at the end the groups are added
up, always in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.cuda import types

from rsref_fast.cuda.holding import HIGH, WIDE, staged
from rsref_fast.cuda.intrinsics import (
    at,
    block,
    blocks,
    dynamic_memory,
    four_at,
    meet_in_block,
    quotient,
    remainder,
    thread,
    threads,
)  # fmt: skip
from rsref_fast.cuda.jit import device
from rsref_fast.cuda.tile import Tile

TOP = 64
"""Rows that are computed at a time."""

AHEAD = 8
"""Numbers that a thread asks for before it needs the first."""

TEXT = '''
def multiply_held(n, parts, units, depth, a, row_step, depth_step, held, c, c_step, accumulate):
    """c (+)= a b, of b the block's part, which `hold` has fetched."""
    memory = dynamic()
    first = part(units, block(), blocks())
    own = part(units, block() + 1, blocks()) - first
    columns = parts * own
    if columns == 0:
        return
    t = thread()
    pitch = quotient(columns + {last_wide}, {wide}) * {wide}
    across = quotient(pitch, {wide})
    most = min({top}, quotient(threads(), across) * {high})
    weights = at(memory, {stage} + held)
    near = remainder(t, 8)
    row = quotient(t, 8)
    for top in range(0, n, most):
        rows = min(most, n - top)
        down = quotient(rows + {last_high}, {high})
        high = down * {high}
        step = high + 4
        team = across * down
        groups = quotient(threads(), team)
        group = quotient(t, team)
        x = remainder(t, across) * {wide}
        y = quotient(remainder(t, team), across) * {high}
        longest = quotient({stage}, step * 8) * 8
        lines = min(high, quotient(threads(), 8))
        ahead = quotient(quotient(threads(), 8), lines) * 8
        left_row = remainder(row, lines)
        left_k = quotient(row, lines) * 8 + near
        {clear}
        meet_in_block()
        for start in range(0, depth, longest):
            terms = min(longest, depth - start)
            if left_k < ahead:
                for i in range(left_row, high, lines):
                    source = at(a, (top + i) * row_step + start * depth_step)
                    k = left_k if i < rows else terms
                    while k < terms:
                        {fetch}
                        {put}
                        k += {ahead} * ahead
                    if i >= rows:
                        for k in range(left_k, terms, ahead):
                            memory[k * step + i] = F(0)
            meet_in_block()
            if group < groups:
                for k in range(group, terms, groups):
                    {read}
                    {multiply}
            meet_in_block()
        if group < groups:
            {spread}
        meet_in_block()
        for e in range(t, rows * columns, threads()):
            i = quotient(e, columns)
            j = remainder(e, columns)
            total = F(0)
            for m in range(groups):
                total += memory[(m * high + i) * pitch + j]
            g = quotient(j, own)
            place = (top + i) * c_step + g * units + first + j - g * own
            c[place] = c[place] + total if accumulate else total
'''


def source_of(stage: int) -> str:
    """Return the text of a product, its results one variable each: they must stay in registers."""
    both = [(i, j) for i in range(HIGH) for j in range(WIDE)]
    names = {
        "wide": WIDE, "high": HIGH, "last_wide": WIDE - 1, "last_high": HIGH - 1, "top": TOP, "stage": stage,
        "ahead": AHEAD,
    }  # fmt: skip
    far = range(AHEAD)
    blocks_of = {
        "clear": [f"c{i}_{j} = F(0)" for i, j in both],
        "fetch": [f"x{m} = source[(k + {m} * ahead) * depth_step] if k + {m} * ahead < terms else F(0)" for m in far],
        "put": [
            line
            for m in far
            for line in (f"if k + {m} * ahead < terms:", f"    memory[(k + {m} * ahead) * step + i] = x{m}")
        ],
        "read": [
            *(f"{_names('a', i)} = four_at(memory, k * step + y + {i})" for i in range(0, HIGH, 4)),
            f"{_names('b', 0)} = four_at(weights, (start + k) * pitch + x)",
        ],
        "multiply": [f"c{i}_{j} += a{i} * b{j}" for i, j in both],
        "spread": [f"memory[(group * high + y + {i}) * pitch + x + {j}] = c{i}_{j}" for i, j in both],
    }  # fmt: skip
    lines = []
    for line in TEXT.strip().splitlines():
        stripped = line.strip()
        if stripped.strip("{}") in blocks_of:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + inner for inner in blocks_of[stripped.strip("{}")]]
        else:
            lines.append(line.format(**names))
    return "\n".join(lines) + "\n"


def _names(name: str, first: int) -> str:
    return ", ".join(f"{name}{first + i}" for i in range(4))


@device
def part(count, rank, size):
    """Where the part of one of a team begins."""
    return quotient(count * rank, size)


@device
def held_size(depth, parts, units):
    """How much memory the largest part needs."""
    most = quotient(units + blocks() - 1, blocks())
    return depth * quotient(parts * most + 3, 4) * 4


def products(dtype: np.dtype[Any], tile: Tile) -> dict[str, Any]:
    """Return `hold`, `held_size`, `multiply_held` and `part` for a precision. Of `tile`, the threads alone matter."""
    element = types.float32 if dtype.itemsize == 4 else types.float64
    dynamic, stage, F = dynamic_memory("dynamic", element), staged(tile, dtype.itemsize), dtype.type
    scope = {
        "F": F, "at": at, "four_at": four_at, "quotient": quotient, "remainder": remainder, "thread": thread,
        "threads": threads, "block": block, "blocks": blocks, "meet_in_block": meet_in_block, "dynamic": dynamic,
        "part": part,
    }  # fmt: skip
    exec(compile(source_of(stage), "<held>", "exec"), scope)  # the text is our own

    @device
    def hold(depth, parts, units, b, row_step, column_step, held):
        """Fetch the block's part of weights, each row filled with zeros up to what is read at once."""
        memory = at(dynamic(), stage + held)
        first = part(units, block(), blocks())
        own = part(units, block() + 1, blocks()) - first
        pitch = quotient(parts * own + 3, 4) * 4
        for e in range(thread(), depth * pitch, threads()):
            if column_step == 1:
                k = quotient(e, pitch)
                j = remainder(e, pitch)
            else:
                j = quotient(e, depth)
                k = remainder(e, depth)
            value = F(0)
            if j < parts * own:
                g = quotient(j, own)
                value = b[k * row_step + (g * units + first + j - g * own) * column_step]
            memory[k * pitch + j] = value
        meet_in_block()

    return {"hold": hold, "held_size": held_size, "multiply_held": device(scope["multiply_held"]), "part": part}
