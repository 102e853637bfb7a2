"""The text of a function of which each block of threads computes its own part in the time loop.

Either a part of the units (the last axis) of some samples, or, in steps that add up whole rows, all of some samples: of
n rows those whose number modulo the lines of blocks is the line's, or modulo the blocks the block's. So what one call
leaves another finds in the same block, and the blocks need not wait for each other in between; see
`rsref_fast.cpu.ordering`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rsref_fast.cpu import products
from rsref_fast.cpu.source import Held
from rsref_fast.cpu.text import Function
from rsref_fast.cpu.touches import ROWS
from rsref_fast.cuda import loops
from rsref_fast.cuda.text import TeamFunction, unravelled
from rsref_fast.layout import Section
from rsref_fast.lengths import Length, Varying, text_of, times
from rsref_fast.views import Buffer, Shape, View

if TYPE_CHECKING:
    from rsref_fast.program import Program

FEW = 4
"""Columns of a product which are too few for blocks to have parts of."""

REDUCTIONS = ("sum", "max", "min", "argmax", "argmin", "cumsum", "sparsemax", "einsum")
"""Ops that go over what a sample has."""


class OwnedFunction(TeamFunction):
    """A function whose independent loops are one, of the block's own part of the elements in the time loop.

    inside: whether it is called there. by_rows: whether a part is some samples.
    """

    inside = False
    by_rows = False

    def within(self, program: Program, section: Section) -> None:
        super().within(program, section)
        self.inside = section is Section.LOOP
        self.by_rows = self.inside and adds_rows_up(program)

    @contextmanager
    def independent(self, shape: Shape, axes: Sequence[int] | None = None) -> Iterator[list[str]]:
        chosen = [axis for axis in (range(len(shape)) if axes is None else axes) if shape[axis] != 1]
        if not self.inside or not self._has_parts(shape, chosen):
            self._shared_axis = None
            with super().independent(shape, axes) as indices:
                yield indices
            return
        indices = ["0"] * len(shape)
        unit = None if self.by_rows else chosen[-1]
        others = [axis for axis in chosen[1:] if axis != unit]
        count = text_of(times(1, *(shape[axis] for axis in others)))
        line, lines = ("block()", "blocks()") if self.by_rows else ("block_y()", "blocks_y()")
        first, step = "thread()", "threads()"
        if unit is not None:
            part = f"part_{shape[unit]}"
            self.extra += [part] if part not in self.extra else []
            self.add(f"first, last, near, shift = of_part({part})")
            first, step = "thread() >> shift", "threads() >> shift"
        depth = self.depth
        self.add(f"e = {first}")
        self.add(f"i0 = {line} + quotient(e, {count}) * {lines}")
        self.add("while i0 < n:")  # without a division by what is not known here: it takes long
        self.depth += 1
        indices[0] = "i0"
        if others:
            self.add(f"inner = remainder(e, {count})")
            unravelled(self, indices, others, shape, "inner")
        if unit is None:
            self._shared_axis = ("i0", ROWS)
            yield indices
        else:
            indices[unit] = f"i{unit}"
            self._shared_axis = (f"i{unit}", shape[unit])
            with self.strides(f"i{unit}", "first + near", "last", "1 << shift"):
                yield indices
        self.depth = depth + 1
        self.add(f"e += {step}")
        self.add(f"i0 = {line} + quotient(e, {count}) * {lines}")
        self.depth = depth

    def _has_parts(self, shape: Shape, chosen: Sequence[int]) -> bool:
        """Whether blocks can have parts of a loop: its first axis are the samples, its last one, if need be, units."""
        if not chosen or chosen[0] != 0 or not _is_rows(shape[0]):
            return False
        last = max(axis for axis, length in enumerate(shape) if length != 1)
        return self.by_rows or (last > 0 and chosen[-1] == last and isinstance(shape[last], int))

    @contextmanager
    def per_block(self, shape: Shape, axes: Sequence[int]) -> Iterator[list[str]]:
        with super().per_block(shape, axes) as indices:
            rows = [axis for axis in axes if shape[axis] != 1] == [0] and _is_rows(shape[0])
            self._shared_axis = (indices[0], ROWS) if self.by_rows and rows else None
            yield indices

    def element(self, view: View, indices: Sequence[str], start: str = "") -> str:
        own = self._shared_axis is not None and self._is_own(view, indices)
        self.lined[view.buffer] = self.lined.get(view.buffer, True) and own
        return super().element(view, indices, start)

    def _is_own(self, view: View, indices: Sequence[str]) -> bool:
        """Whether an element is of the row that a thread has, in memory that has one for each sample."""
        own, rows = indices[len(indices) - len(view.shape) :], indices[0]
        return len(own) == len(indices) > 0 and own[0] == rows and _is_rows(view.shape[0]) and view.strides[0] != 0

    def _units(self, view: View, indices: Sequence[str]) -> int | None:
        """Return whose part an element is in."""
        if self._shared_axis is None or not self._is_own(view, indices):
            return None
        return ROWS if self._shared_axis[1] == ROWS else super()._units(view, indices)


def _is_rows(length: Length) -> bool:
    """Whether a length is the number of samples."""
    return isinstance(length, Varying) and text_of(length) == "n"


def adds_rows_up(program: Program) -> bool:
    """Whether a step adds up what a sample has: then blocks had better have whole samples."""
    for unit in program.units[Section.LOOP]:
        for tensor in unit.tensors:
            if tensor.op_name in REDUCTIONS:
                return True
    return False


def product(
    function: Function, target: View, left: View, right: View, panels: Buffer | None, accumulate: bool = False,
    units: int | None = None, begin: View | None = None,
) -> None:  # fmt: skip
    """Write a matrix product: in the time loop of weights that blocks hold, by their parts of `units` columns each."""
    flat = products.flattened(left, right, target)
    columns = flat[2].shape[-1]
    many = isinstance(columns, int) and columns >= FEW and len(flat[2].shape) == 2
    if not function.inside or panels is None or not many:
        loops.product(function, target, left, right, None if function.inside else panels, accumulate)
        return
    left, right, target = flat
    rows, columns = target.shape
    depth = right.shape[0]
    assert isinstance(columns, int)
    assert isinstance(depth, int)
    parts = columns // units if units and columns % units == 0 else 1
    function.written.add(target.buffer)
    row_step, depth_step, c_step = (text_of(n) for n in (*left.strides, target.strides[0]))
    function.holds = Held(depth, parts, columns // parts, right, (row_step, depth_step, c_step))
    function.extra.append("held")
    function.add(
        f"multiply_held({text_of(rows)}, {parts}, {columns // parts}, {depth}, {products.at(function, left)}, "
        f"{row_step}, {depth_step}, held, {products.at(function, target)}, {c_step}, {int(accumulate)})"
    )
    own = columns // parts
    if _is_rows(rows):
        function.lined.update({left.buffer: True, target.buffer: True})
    apart = target.buffer is not left.buffer  # else it reads more of the row than its part
    function.units[target.buffer] = own if apart and _is_rows(rows) and target.counts(-1, own) else None
