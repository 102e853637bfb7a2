"""Products of a left operand that lies the other way round, as a tape does where a weight's gradient reads it.

Each number along the depth is then in a line of memory of its own, always as far from the one before, and the innermost
cache has room for few lines that lie so: every panel would fetch all of them anew. So they are copied once, for all
panels, in the order in which the blocks of rows read them.
"""

from __future__ import annotations

from typing import Any

from numba import types

from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.microkernel import blocks, microkernel, microkernels
from rsref_fast.cpu.microkernel_shapes import CHUNK, Shape
from rsref_fast.cpu.pointers import at, memory_on_stack

I64 = types.int64


def signature(element: Any) -> Any:
    """Return the types of the arguments of `multiply_copied`."""
    pointer = types.CPointer(element)
    return types.void(*[I64] * 3, pointer, I64, pointer, I64, I64, pointer, I64, I64, pointer)


def multiply_copied(element: Any, shape: Shape, pack: Any) -> Any:
    """Return the function for a precision. pack: the one that packs a panel."""
    whole, fewer, taken = microkernel(element, shape, shape.rows), microkernels(element, shape), blocks(shape)
    most, width, at_once = shape.rows, shape.width, shape.copied
    panel_of = memory_on_stack(element, CHUNK * width)

    @plain
    def copy(count, deep, a, depth_step, memory):
        """Some rows as blocks: what a block reads along the depth follows each other."""
        i = 0
        while i < count:
            now, target = taken(count - i), at(memory, i * deep)
            if now == most:  # a number of rows that is known: so the loop over them is vector code
                for k in range(deep):
                    for n in range(most):
                        target[k * most + n] = a[k * depth_step + i + n]
            else:
                for k in range(deep):
                    for n in range(now):
                        target[k * now + n] = a[k * depth_step + i + n]
            i += now

    def multiply_copied(rows, columns, depth, a, depth_step, b, b_row, b_column, c, c_step, accumulate, memory):
        """c = a @ b, or c + a @ b: whole panels of columns. memory: for `shape.copied` rows, as deep as `CHUNK`."""
        panel = panel_of()
        for k in range(0, depth, CHUNK):
            deep = min(CHUNK, depth - k)
            add = 1 if k > 0 else accumulate
            for r in range(0, rows, at_once):
                count = min(at_once, rows - r)
                copy(count, deep, at(a, k * depth_step + r), depth_step, memory)
                for j in range(0, columns, width):
                    pack(deep, width, at(b, k * b_row + j * b_column), b_row, b_column, panel, 0, 1)
                    i = 0
                    while i < count:
                        now = taken(count - i)
                        left, to = at(memory, i * deep), at(c, (r + i) * c_step + j)
                        if now == most:
                            whole(deep, left, 1, most, panel, width, 0, to, c_step, to, c_step, add)
                        else:
                            fewer(now, deep, left, 1, now, panel, width, 0, to, c_step, to, c_step, add)
                        i += now

    return multiply_copied
