"""Products of three panels at once, for processors of sixteen registers: few rows of two panels, or of one and a half.

In each cycle two sums can be added to, and each again after four or five: so a block has to have eight to ten at least,
and registers have room for twelve. Four rows of one panel have eight, and two have four. Six have twelve; but of eight
rows, say, they leave two. So rows are taken by four until no more than six are left.
"""

from __future__ import annotations

from typing import Any

from numba import types

from rsref_fast.cpu.microkernel import microkernels
from rsref_fast.cpu.microkernel_shapes import Shape
from rsref_fast.cpu.pointers import at

I64 = types.int64
MOST = 6
HALVES, PANELS = (range(3), range(3, 6)), (range(2), range(2, 4), range(4, 6))
CUTS = {2: (range(4), range(4, 6)), 3: HALVES, 4: HALVES, 5: PANELS, MOST: PANELS}
"""Which of the panels' six vectors are computed at once, for each number of rows."""


def signature(element: Any) -> Any:
    """Return the types of the arguments of `multiply_threes`."""
    pointer = types.CPointer(element)
    return types.void(I64, I64, pointer, I64, I64, pointer, I64, pointer, I64, pointer, I64, I64, I64)


def multiply_threes(element: Any, shape: Shape) -> Any:
    """Return the function for a precision."""
    near, fetching = (microkernels(element, shape, CUTS, ahead) for ahead in (0, shape.ahead))
    width = shape.width

    def multiply_threes(rows, depth, a, row_step, depth_step, b, panel_step, c, c_step, o, o_step, accumulate, ahead):
        """Columns of three panels, for two rows or more. ahead: whether the first of them are to fetch the panels."""
        i = 0
        if ahead != 0:
            i = 4 if rows > MOST else rows
            fetching(i, depth, a, row_step, depth_step, b, width, panel_step, c, c_step, o, o_step, accumulate)
        while i < rows:
            now = 4 if rows - i > MOST else rows - i
            left, to, begin = at(a, i * row_step), at(c, i * c_step), at(o, i * o_step)
            near(now, depth, left, row_step, depth_step, b, width, panel_step, to, c_step, begin, o_step, accumulate)
            i += now

    return multiply_threes
