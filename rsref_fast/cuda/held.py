"""Products with weights that blocks hold: each has its part of the columns in shared memory for the whole sequence.

Lines of blocks, each of which has all columns, share out the rows: of n rows a line has those whose number modulo the
lines is its own.

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
    block_x,
    block_y,
    blocks_x,
    blocks_y,
    dynamic_memory,
    four_at,
    is_aligned,
    meet_in_block,
    put_four,
    quotient,
    remainder,
    thread,
    threads,
)  # fmt: skip
from rsref_fast.cuda.jit import device
from rsref_fast.cuda.templates import filled
from rsref_fast.cuda.tile import Tile

TOP = 64
"""Rows that are computed at a time, if the memory allows."""

AHEAD = 6
"""Fours of numbers that a thread asks for before it needs the first."""

TEXT = '''
def bring(rows, start, depth, a, row_step, depth_step):
    """Bring rows of the other operand into the block's memory, filled with zeros up to fours."""
    memory = dynamic()
    longest, step = stage_of(rows, depth)
    terms = min(longest, depth - start)
    lines = min(rows, quotient(threads(), 8))
    ahead = quotient(quotient(threads(), 8), lines) * 8
    line = quotient(thread(), 8)
    near = quotient(line, lines) * 8 + remainder(thread(), 8)
    if near >= ahead:
        return
    a = at(a, start * depth_step)
    fours = depth_step == 1 and remainder(row_step, 4) == 0 and is_aligned(a) and remainder(terms, 4) == 0
    for i in range(remainder(line, lines), rows, lines):
        source = at(a, i * row_step)
        target = at(memory, i * step)
        k = near
        if fours:
            while k * 4 < terms:
                {fetch}
                {put}
                k += {ahead} * ahead
        else:
            while k < quotient(terms + 3, 4) * 4:
                target[k] = source[k * depth_step] if k < terms else F(0)
                k += ahead


def work(rows, start, depth, held, columns):
    """Compute what each group finds, and put it down in the block's memory once nobody reads that any more."""
    memory = dynamic()
    longest, step = stage_of(rows, depth)
    terms = min(longest, depth - start)
    pitch, down, groups = groups_of(rows, columns)
    team = quotient(pitch, {wide}) * down
    group = quotient(thread(), team)
    x = remainder(thread(), quotient(pitch, {wide})) * {wide}
    y = quotient(remainder(thread(), team), quotient(pitch, {wide}))
    {clear}
    if group < groups:
        left = at(memory, y * step)
        right = at(memory, {stage} + held + start * pitch + x)
        k = group * 4
        while k < terms:
            {read}
            {multiply}
            k += groups * 4
    meet_in_block()
    if group < groups:
        memory = at(memory, (group * down * {high} + y) * pitch + x)
        {spread}


def settle(rows, columns, own, c, c_step, g_step, accumulate):
    """Add up what the groups have found."""
    memory = dynamic()
    pitch, down, groups = groups_of(rows, columns)
    e = thread()
    while e < rows * columns:
        i = quotient(e, columns)
        j = e - i * columns
        g = quotient(j, own)
        place = i * c_step + g * g_step + j - g * own
        total = c[place] if accumulate else F(0)
        for m in range(groups):
            total += memory[(m * down * {high} + i) * pitch + j]
        c[place] = total
        e += threads()


def multiply_held(n, parts, units, depth, a, row_step, depth_step, held, c, c_step, accumulate):
    """c (+)= a b, of b the block's part, which `hold` has fetched, and of a the rows of its line of blocks."""
    first = part(units, block_x(), blocks_x())
    own = part(units, block_x() + 1, blocks_x()) - first
    if own == 0:
        return
    n = quotient(n + blocks_y() - 1 - block_y(), blocks_y())
    a, c = at(a, block_y() * row_step), at(c, block_y() * c_step)
    row_step, c_step = row_step * blocks_y(), c_step * blocks_y()
    most = min({top}, quotient(threads(), quotient(parts * own + {last_wide}, {wide})) * {high})
    top = 0
    while top < n:
        rows = min(most, n - top)
        start = 0
        while start < max(depth, 1):
            meet_in_block()
            bring(rows, start, depth, at(a, top * row_step), row_step, depth_step)
            meet_in_block()
            work(rows, start, depth, held, parts * own)
            meet_in_block()
            more = accumulate != 0 or start != 0
            settle(rows, parts * own, own, at(c, top * c_step + first), c_step, units, more)
            longest, step = stage_of(rows, depth)
            start += max(longest, 1)
        top += rows


def stage_of(rows, depth):
    """How many terms of so many rows are in the block's memory at a time, and how far rows are apart there.

    All stages are of about the same length. Rows are so far apart that threads which read neighbouring ones use
    different banks.
    """
    down = quotient(rows + {last_high}, {high})
    longest = quotient(quotient({stage}, down * {high}) - 28, 8) * 8
    stages = max(1, quotient(depth + longest - 1, longest))
    longest = quotient(quotient(depth + stages - 1, stages) + 7, 8) * 8
    apart = max(quotient(32, down * 4), 1) * 4
    return longest, longest + remainder(apart + 32 - remainder(longest, 32), 32)


def groups_of(rows, columns):
    """How far apart rows of results are, how many rows a thread's are apart, and how many groups there are."""
    pitch = quotient(columns + {last_wide}, {wide}) * {wide}
    down = quotient(rows + {last_high}, {high})
    return pitch, down, quotient(threads(), quotient(pitch, {wide}) * down)
'''


def source_of(stage: int) -> str:
    """Return the text of a product, its results one variable each: they must stay in registers."""
    rows, columns, four = range(HIGH), range(WIDE), range(4)
    both = [(i, j) for i in rows for j in columns]
    names = {
        "wide": WIDE, "high": HIGH, "last_wide": WIDE - 1, "last_high": HIGH - 1, "top": _top(stage), "stage": stage,
        "ahead": AHEAD,
    }  # fmt: skip
    blocks_of = {
        "fetch": [
            line
            for m in range(AHEAD)
            for line in (
                f"{_names(f'x{m}_')} = F(0), F(0), F(0), F(0)",
                f"if (k + {m} * ahead) * 4 < terms:",
                f"    {_names(f'x{m}_')} = four_at(source, (k + {m} * ahead) * 4)",
            )
        ],
        "put": [
            line
            for m in range(AHEAD)
            for line in (
                f"if (k + {m} * ahead) * 4 < terms:",
                f"    put_four(target, (k + {m} * ahead) * 4, {_names(f'x{m}_')})",
            )
        ],
        "clear": [f"c{i}_{j} = F(0)" for i, j in both],
        "read": [
            *(f"{_names(f'a{i}_')} = four_at(left, {i} * down * step + k)" for i in rows),
            *(f"{_names(f'b{m}_')} = four_at(right, (k + {m}) * pitch)" for m in four),
        ],
        "multiply": [f"c{i}_{j} += a{i}_{m} * b{m}_{j}" for m in four for i, j in both],
        "spread": [f"put_four(memory, {i} * down * pitch, {_names(f'c{i}_')})" for i in rows],
    }  # fmt: skip
    return filled(TEXT, blocks_of, names)


def _top(stage: int) -> int:
    """Return how many rows are computed at a time: of each at least eight terms must have room, and be well apart."""
    return min(TOP, stage // 36 // HIGH * HIGH)


def _names(name: str) -> str:
    return ", ".join(f"{name}{i}" for i in range(4))


@device
def part(count, rank, size):
    """Where the part of one of a team begins; with no division, which takes long, if it is alone."""
    return count * rank if size == 1 else quotient(count * rank, size)


@device
def part_of_block(units):
    """A word that says which units are the block's, and among how many threads they are dealt: see `of_part`."""
    first = part(units, block_x(), blocks_x())
    own = part(units, block_x() + 1, blocks_x()) - first
    shift = 0
    while (1 << shift) < own and (2 << shift) <= threads():
        shift += 1
    return (first << 32) + (own << 8) + shift


@device
def of_part(word):
    """The block's first unit, where its last one ends, which of them is the thread's, and threads as a power of two."""
    first, shift = word >> 32, word & 255
    near = thread() - ((thread() >> shift) << shift)
    return first, first + ((word >> 8) & 0xFFFFFF), near, shift


@device
def held_size(depth, parts, units):
    """How much memory the largest part needs."""
    most = quotient(units + blocks_x() - 1, blocks_x())
    return quotient(depth + 3, 4) * 4 * quotient(parts * most + 3, 4) * 4


def products(dtype: np.dtype[Any], tile: Tile) -> dict[str, Any]:
    """Return `hold`, `held_size`, `multiply_held` and `part` for a precision. Of `tile`, the threads alone matter."""
    element = types.float32 if dtype.itemsize == 4 else types.float64
    dynamic, stage, F = dynamic_memory("dynamic", element), staged(tile, dtype.itemsize), dtype.type
    scope = {
        "F": F, "at": at, "four_at": four_at, "put_four": put_four, "is_aligned": is_aligned, "quotient": quotient,
        "remainder": remainder, "thread": thread, "threads": threads, "block_x": block_x, "blocks_x": blocks_x,
        "block_y": block_y, "blocks_y": blocks_y, "meet_in_block": meet_in_block, "dynamic": dynamic, "part": part,
    }  # fmt: skip
    exec(compile(source_of(stage), "<held>", "exec"), scope)  # the text is our own
    for name in ("stage_of", "groups_of"):
        scope[name] = device(scope[name])
    for name in ("bring", "work", "settle"):
        scope[name] = device(scope[name])

    @device
    def hold(depth, parts, units, b, row_step, column_step, held):
        """Fetch the block's part of weights, filled with zeros up to what is read at once."""
        memory = at(dynamic(), stage + held)
        first = part(units, block_x(), blocks_x())
        own = part(units, block_x() + 1, blocks_x()) - first
        pitch = quotient(parts * own + 3, 4) * 4
        whole = quotient(depth + 3, 4) * 4
        for e in range(thread(), whole * pitch, threads()):
            if column_step == 1:
                k = quotient(e, pitch)
                j = remainder(e, pitch)
            else:
                j = quotient(e, whole)
                k = remainder(e, whole)
            value = F(0)
            if j < parts * own and k < depth:
                g = quotient(j, own)
                value = b[k * row_step + (g * units + first + j - g * own) * column_step]
            memory[k * pitch + j] = value
        meet_in_block()

    return {"hold": hold, "held_size": held_size, "multiply_held": device(scope["multiply_held"]), "part": part}
