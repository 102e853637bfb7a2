"""Gradients of constants that are added up for all steps of a block at once, not step by step.

What an attention reads at every step, say, is large, and so is its gradient: of each step an outer product of few
numbers. Added up step by step, all of it is read and written at every step; after the block, once for all of its steps,
if those few numbers are kept for so long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from rsref.graph import topological_order
from rsref.ops.pointwise import Pointwise
from rsref.tensor import Tensor
from rsref_fast.concrete import Shape
from rsref_fast.lengths import per_row, times
from rsref_fast.rows import Rows
from rsref_fast.views import RULES as MOVING
from rsref_fast.wide import is_wide

FEW = 8
"""How many times fewer the numbers must be that are kept."""


def added_later(
    results: Sequence[Tensor], rows: Mapping[Tensor, Rows], shapes: Mapping[Tensor, Shape], totals: Collection[Tensor]
) -> set[Tensor]:
    """Return those of some results, to be summed over the steps, that are wide and computed of few numbers alone.

    results: all tensors that a step computes for somebody else. shapes: of these, and of all behind them.
    """
    readers = Counter(operand for tensor in topological_order(results) for operand in tensor.inputs)

    def width(tensor: Tensor) -> int:
        """Return how many values a sample has in a tensor; none if it has no samples."""
        return per_row(times(1, *shapes[tensor])) or 0

    def of_few(tensor: Tensor, most: int) -> bool:
        if width(tensor) <= most:
            return True
        moved = tensor.op_name in MOVING
        if not (moved or isinstance(tensor.op, Pointwise)):
            return False
        return readers[tensor] <= 1 and all(of_few(i, most) for i in tensor.inputs[: 1 if moved else None])

    return {
        t for t in totals
        if isinstance(t.op, Pointwise) and rows[t] is Rows.FIRST and is_wide(width(t)) and not readers[t]
        and results.count(t) == 1 and of_few(t, width(t) // FEW)
    }  # fmt: skip
