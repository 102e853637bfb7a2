"""Products with weights that blocks hold, on tensor cores: as `rsref_fast.cuda.held`, in float32.

A tensor core multiplies numbers of 11 binary digits (TF32) and adds up in float32. Each factor is therefore split in
two, the number rounded to 11 digits and what is left of it, and three products are added up: all but that of the two
rests, at most 2**-22 of the whole. (Markidis et al. 2018, arXiv 1803.04014; CUTLASS's 3xTF32.) Results that are not
finite, which the split may have spoiled, are computed anew as float32 has them.

Results come in pieces of 16 rows and some eights of columns, a warp for each; where pieces are fewer than warps,
several warps have each, and share out the terms. A thread reads four neighbouring terms at a time, of each operand: the
order of terms in a product is free, so they need not be the four that the instruction's description shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.cuda import types

from rsref_fast.cuda.held import part
from rsref_fast.cuda.holding import ACROSS, HEADER, NOTES, PITCH, staged
from rsref_fast.cuda.intrinsics import (
    ask_for,
    at,
    block_x,
    block_y,
    blocks_x,
    blocks_y,
    dynamic_memory,
    four_at,
    is_aligned,
    meet_in_block,
    multiply_add,
    put_two,
    quotient,
    remainder,
    rounded,
    thread,
    threads,
)  # fmt: skip
from rsref_fast.cuda.jit import device
from rsref_fast.cuda.templates import filled
from rsref_fast.cuda.tile import Tile
from rsref_fast.cuda.warp import work_name, works

ANEW = "anew(line, piece, deep, across, n, columns, c_step, base, whole, depth, a, row_step, depth_step)"

NONE = 2**32 - 1
"""No place in memory: more than one call touches."""

TEXT = '''
{works}

def spot_of(line, piece, deep, across, n, columns, c_step, base):
    """Return the row and the column of a thread's result in a line of pieces, and its place in c, or NONE.

    Divisions take long, so what is divided by is a power of two where it can be.
    """
    slot = quotient(line, 16) if deep == 16 else quotient(line, deep)
    high = piece + slot if across == 1 else quotient(piece + slot, across)
    i = high * 16 + line - slot * deep
    j = (piece + slot - high * across) * {columns} + remainder(thread(), {columns})
    return i, j, i * c_step + words()[base + {header} + j] if i < n and j < columns else NONE


def inner_of(line, deep, shift):
    """Return where in the block's memory the first warp of a piece puts down a thread's result in a line."""
    slot = quotient(line, 16) if deep == 16 else quotient(line, deep)
    return (slot << shift) * {size} + (line - slot * deep) * {pitch} + remainder(thread(), {columns})


def share_of(piece, warp, shift, across, whole, n, row_step, depth_step):
    """Return a warp's share of a piece: its first eight of columns, its first sixteen of terms, how many of these.

    And where a thread's two rows of the other operand begin there.
    """
    high = piece if across == 1 else quotient(piece, across)
    share = warp - ((warp >> shift) << shift)
    begin, end = (whole * share) >> shift, (whole * (share + 1)) >> shift
    lane = remainder(thread(), 32)
    row = high * 16 + quotient(lane, 4)
    near = (begin * 16 + remainder(lane, 4) * 4) * depth_step
    upper = (row if row < n else high * 16) * row_step + near
    lower = (row + 8 if row + 8 < n else high * 16) * row_step + near
    return (piece - high * across) * {tiles}, begin, end - begin, upper, lower


def plan(n, whole, columns, row_step, depth_step, c_step, base, noted):
    """Note what a thread does in a product of so many rows, which is the same at each step: finding out takes long.

    noted: the thread's words: n, the rows of its line, its share of the first piece in one word, the places of the
    first two results that it settles, where it finds them, and where its two rows begin.
    """
    own = quotient(n + blocks_y() - 1 - block_y(), blocks_y())
    across = quotient(columns + {last_column}, {columns})
    pieces = quotient(own + 15, 16) * across
    warps, warp = quotient(threads(), 32), quotient(thread(), 32)
    shift, deep = 0, min(own, 16)
    while (pieces << (shift + 1)) <= warps and (2 << shift) <= whole:
        shift += 1
    together = min(warps >> shift, pieces)
    inners = 0
    for k in range(2):
        place = NONE
        if warp + k * warps < together * deep:
            _, _, place = spot_of(warp + k * warps, 0, deep, across, own, columns, c_step, base)
            inners += inner_of(warp + k * warps, deep, shift) << (16 * k)
        noted[(3 + k) * {threads}] = place
    share = shift
    if warp >> shift < together:
        first, begin, count, upper, lower = share_of(
            warp >> shift, warp, shift, across, whole, own, row_step, depth_step
        )
        share += 8 + (quotient(first, {tiles}) << 4) + (begin << 12) + (count << 22)
        noted[6 * {threads}], noted[7 * {threads}] = upper, lower
    noted[0], noted[{threads}], noted[2 * {threads}], noted[5 * {threads}] = n, own, share, inners


def found_by(shift, memory):
    """Return the sum of what the warps that share a piece have found for a result: 2**shift of them."""
    if shift == 0:
        return memory[0]
    if shift == 1:
        return memory[0] + memory[{size}]
    total = four_of(memory)
    if shift == 2:
        return total
    total += four_of(at(memory, 4 * {size}))
    m = 8
    while m < 1 << shift:
        total += four_of(at(memory, m * {size}))
        m += 4
    return total


def four_of(memory):
    """Return the sum of what four warps have found."""
    return (memory[0] + memory[{size}]) + (memory[2 * {size}] + memory[3 * {size}])


def anew(line, piece, deep, across, n, columns, c_step, base, whole, depth, a, row_step, depth_step):
    """Return a thread's result in a line of pieces as float32 has it."""
    i, j, _ = spot_of(line, piece, deep, across, n, columns, c_step, base)
    weights = at(dynamic(), base + head(columns) + quotient(j, 8) * whole * 128 + remainder(j, 8) * 16)
    total = F(0)
    for k in range(depth):
        total += a[i * row_step + k * depth_step] * weights[quotient(k, 16) * 128 + remainder(k, 16)]
    return total


def word(noted, k):
    """Return a word that a thread has noted: as a signed number, or Numba would mix it with others to floats."""
    return I(noted[k * {threads}])


def multiply_held(n, parts, units, depth, a, row_step, depth_step, held, c, c_step, accumulate):
    """c (+)= a b, of b the block's part, which `hold` has fetched, and of a the rows of its line of blocks."""
    base = {stage} + held
    columns = words()[base]
    noted = at(marks(), base + noted_at(columns) + thread())
    a, c = at(a, block_y() * row_step), at(c, block_y() * c_step)
    row_step, c_step = row_step * blocks_y(), c_step * blocks_y()
    whole = quotient(depth + 15, 16)
    if word(noted, 0) != n:
        plan(n, whole, columns, row_step, depth_step, c_step, base, noted)
    if columns == 0 or word(noted, 1) == 0:
        return
    if accumulate:  # what is far away is asked for now, and needed when the product is there
        for k in range(2):
            place = word(noted, 3 + k)
            if place != NONE:
                ask_for(c, place)
    piece = 0
    while piece >= 0:
        meet_in_block()
        multiply_piece(piece, a, row_step, depth_step, depth, whole, base)
        piece = settle(piece, a, row_step, depth_step, depth, whole, c, c_step, accumulate, base)


def multiply_piece(piece, a, row_step, depth_step, depth, whole, base):
    """Compute a warp's share of its piece of those that are computed together, the first of which is given."""
    columns = words()[base]
    noted = at(marks(), base + noted_at(columns) + thread())
    share = word(noted, 2)
    active, first, begin, count = share & 8, ((share >> 4) & 255) * {tiles}, (share >> 12) & 1023, share >> 22
    upper, lower = word(noted, 6), word(noted, 7)
    warp = quotient(thread(), 32)
    if piece > 0:
        n, shift, across = word(noted, 1), share & 7, quotient(columns + {last_column}, {columns})
        pieces = quotient(n + 15, 16) * across
        active = 0
        if warp >> shift < min(quotient(threads(), 32) >> shift, pieces - piece):
            active = 1
            first, begin, count, upper, lower = share_of(
                piece + (warp >> shift), warp, shift, across, whole, n, row_step, depth_step
            )
    if active != 0:
        fours = depth_step == 1 and remainder(row_step, 4) == 0 and remainder(depth, 16) == 0 and is_aligned(a)
        right = at(dynamic(), base + head(columns) + (first * whole + begin) * 128)
        {choose}


def settle(piece, a, row_step, depth_step, depth, whole, c, c_step, accumulate, base):
    """Wait for all warps, and put down the results of the pieces that they have computed; return the next, or -1."""
    columns = words()[base]
    noted = at(marks(), base + noted_at(columns) + thread())
    n, shift = word(noted, 1), word(noted, 2) & 7
    deep, across = min(n, 16), quotient(columns + {last_column}, {columns})
    pieces, warps, line = quotient(n + 15, 16) * across, quotient(threads(), 32), quotient(thread(), 32)
    together = warps >> shift
    lines = min(together, pieces - piece) * deep
    if piece == 0:
        place, other, inners = word(noted, 3), word(noted, 4), word(noted, 5)
        before = c[place] if place != NONE and accumulate else F(0)
        later = c[other] if other != NONE and accumulate else F(0)
        meet_in_block()
        total = found_by(shift, at(dynamic(), inners & 65535))
        found = found_by(shift, at(dynamic(), inners >> 16)) if lines > warps else F(0)
        if place != NONE:
            c[place] = before + (total if abs(total) <= {largest} else {anew})
        line += warps
        if other != NONE:
            c[other] = later + (found if abs(found) <= {largest} else {anew})
        line += warps
    else:
        meet_in_block()
    while line < lines:
        _, _, place = spot_of(line, piece, deep, across, n, columns, c_step, base)
        if place != NONE:
            total = found_by(shift, at(dynamic(), inner_of(line, deep, shift)))
            before = c[place] if accumulate else F(0)
            c[place] = before + (total if abs(total) <= {largest} else {anew})
        line += warps
    return piece + together if piece + together < pieces else -1


def noted_at(columns):
    """How far behind the beginning of what is held the words are that threads note: word by word, all threads'."""
    return {header} + quotient(columns + 7, 8) * 8


def head(columns):
    """How much memory there is before weights: the number of columns, the place of each in a row of c, and notes."""
    return noted_at(columns) + {notes} * {threads}


def hold(depth, parts, units, b, row_step, column_step, held):
    """Fetch the block's part of weights, in the order in which threads read them, zeros around."""
    start = part(units, block_x(), blocks_x())
    own = part(units, block_x() + 1, blocks_x()) - start
    whole = quotient(depth + 15, 16)
    wide = quotient(parts * own + 7, 8) * 8
    table = at(words(), {stage} + held)
    memory = at(dynamic(), {stage} + held + head(parts * own))
    noted = at(marks(), {stage} + held + noted_at(parts * own) + thread())
    noted[0], noted[{threads}], noted[2 * {threads}] = 0, 0, 0  # of no rows
    if thread() == 0:
        table[0] = parts * own
    for j in range(thread(), parts * own, threads()):
        g = quotient(j, own)
        table[{header} + j] = g * units + start + j - g * own
    for e in range(thread(), whole * 16 * wide, threads()):
        if column_step == 1:
            k = quotient(e, wide)
            j = remainder(e, wide)
        else:
            j = quotient(e, whole * 16)
            k = remainder(e, whole * 16)
        value = F(0)
        if j < parts * own and k < depth:
            g = quotient(j, own)
            value = b[k * row_step + (g * units + start + j - g * own) * column_step]
        place = (quotient(j, 8) * whole + quotient(k, 16)) * 128 + remainder(j, 8) * 16 + remainder(k, 16)
        memory[place] = value
    meet_in_block()


def held_size(depth, parts, units):
    """How much memory the largest part needs."""
    most = quotient(units + blocks_x() - 1, blocks_x())
    wide = quotient(parts * most + 7, 8) * 8
    return head(wide) + quotient(depth + 15, 16) * 16 * wide
'''


def source_of(stage: int, threads_of_block: int, several: bool = False) -> str:
    """Return the text of a product, its results one variable each: they must stay in registers.

    several: whether a program has more of them.
    """
    names = {
        "stage": stage, "pitch": PITCH, "tiles": ACROSS, "columns": ACROSS * 8, "last_column": ACROSS * 8 - 1,
        "size": 16 * PITCH, "largest": "LARGEST", "header": HEADER, "anew": ANEW, "notes": NOTES,
        "threads": threads_of_block,
    }  # fmt: skip
    found = f"at(dynamic(), warp * {16 * PITCH})"
    arguments = f"tiles, whole, begin, count, at(a, upper), at(a, lower), depth_step, depth, right, {found}"
    choose = ["tiles = quotient(columns + 7, 8) - first"]
    for tiles in range(ACROSS + 1):
        test = {0: "if not fours", ACROSS: "else"}.get(tiles, f"elif tiles == {tiles}")
        choose += [f"{test}:", f"    {work_name(tiles, tiles > 0)}({arguments})"]
    return filled(TEXT, {"choose": choose, "works": "\n\n".join(works(several)).splitlines()}, names)


def products(tile: Tile, several: bool) -> dict[str, Any]:
    """Return `hold`, `held_size`, `multiply_held` and `part`, for float32. Of `tile`, the threads alone matter.

    several: whether a program has more than one such product.
    """
    scope = {
        "F": np.float32, "I": np.int64, "LARGEST": np.finfo(np.float32).max, "at": at, "four_at": four_at,
        "put_two": put_two, "ask_for": ask_for, "is_aligned": is_aligned, "quotient": quotient,
        "remainder": remainder, "thread": thread, "threads": threads,
        "block_x": block_x, "blocks_x": blocks_x, "block_y": block_y, "blocks_y": blocks_y,
        "meet_in_block": meet_in_block, "multiply_add": multiply_add, "rounded": rounded, "part": part,
        "dynamic": dynamic_memory("dynamic", types.float32), "words": dynamic_memory("dynamic", types.int32),
        "marks": dynamic_memory("dynamic", types.uint32), "NONE": NONE,
    }  # fmt: skip
    exec(compile(source_of(staged(tile, 4), tile.threads, several), "<tensor>", "exec"), scope)  # the text is our own
    of_warps = [name for name in scope if name.startswith("work_")]
    own = (
        "word", "noted_at", "head", "spot_of", "inner_of", "share_of", "plan", "four_of", "found_by", "hold",
        "held_size", "multiply_piece", "settle", "multiply_held",
    )  # fmt: skip
    for name in (*of_warps, "anew", *own):
        scope[name] = device(scope[name], apart=name == "anew")
    return {name: scope[name] for name in ("hold", "held_size", "multiply_held", "part")}
