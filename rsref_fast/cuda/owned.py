"""The text of a function of which each block of threads computes its own part in the time loop.

Either a part of the units (the last axis), for all samples, or, in steps that add up whole rows, all of some samples:
of n rows those whose number modulo the blocks is the block's. So what one call leaves another finds in the same block,
and the blocks need not wait for each other in between; see `rsref_fast.cpu.ordering`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rsref_fast.cpu import products
from rsref_fast.cpu.ordering import ROWS
from rsref_fast.cpu.source import Held
from rsref_fast.cpu.text import Function
from rsref_fast.cuda import loops
from rsref_fast.cuda.text import TeamFunction, unravelled
from rsref_fast.layout import Section
from rsref_fast.lengths import Varying, text_of, times
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
        own = self._own_axis(shape, chosen) if self.inside else None
        if own is None:
            with super().independent(shape, axes) as indices:
                yield indices
            return
        self.share()
        others = [axis for axis in chosen if axis != own]
        count, depth = text_of(times(1, *(shape[axis] for axis in others))), self.depth
        if own == 0 and self.by_rows:
            self.add(f"own = quotient({text_of(shape[0])} + blocks() - 1 - block(), blocks())")
        else:
            self.add(f"first = part({shape[own]}, block(), blocks())")
            self.add(f"own = part({shape[own]}, block() + 1, blocks()) - first")
        self.add(f"for e in range(thread(), own * {_factor(count)}, threads()):")
        self.depth += 1
        indices = ["0"] * len(shape)
        indices[own] = f"i{own}"
        if own == 0 and self.by_rows:
            self.add(f"i0 = block() + quotient(e, {count}) * blocks()")
            if others:
                self.add(f"other = remainder(e, {count})")
            unravelled(self, indices, others, shape, "other")
            self._shared_axis = "i0", ROWS
        else:
            self.add(f"i{own} = first + remainder(e, own)")
            if others:
                self.add("other = quotient(e, own)")
            unravelled(self, indices, others, shape, "other")
            self._shared_axis = f"i{own}", shape[own]
        yield indices
        self.depth = depth

    def _own_axis(self, shape: Shape, chosen: Sequence[int]) -> int | None:
        """Return the axis of which blocks have parts; None if there is none such."""
        if not chosen:
            return None
        if self.by_rows:
            return 0 if chosen[0] == 0 and isinstance(shape[0], Varying) else None
        last = max(axis for axis, length in enumerate(shape) if length != 1)
        return last if chosen[-1] == last and isinstance(shape[last], int) else None

    @contextmanager
    def per_block(self, shape: Shape, axes: Sequence[int]) -> Iterator[list[str]]:
        with super().per_block(shape, axes) as indices:
            rows = [axis for axis in axes if shape[axis] != 1] == [0] and isinstance(shape[0], Varying)
            self._shared_axis = (indices[0], ROWS) if self.inside and rows else None
            yield indices

    def _units(self, view: View, indices: Sequence[str]) -> int | None:
        if self._shared_axis is None or self._shared_axis[1] != ROWS:
            return super()._units(view, indices)
        own = indices[len(indices) - len(view.shape) :]
        rows = bool(own) and own[0] == self._shared_axis[0] and isinstance(view.shape[0], Varying)
        return ROWS if rows and view.strides[0] != 0 else None


def adds_rows_up(program: Program) -> bool:
    """Whether a step adds up what a sample has: then blocks had better have whole samples."""
    for unit in program.units[Section.LOOP]:
        for tensor in unit.tensors:
            if tensor.op is not None and tensor.op.name in REDUCTIONS:
                return True
    return False


def product(
    function: Function, target: View, left: View, right: View, panels: Buffer | None, accumulate: bool = False,
    units: int | None = None,
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
    function.share()
    function.written.add(target.buffer)
    function.holds = Held(depth, parts, columns // parts, right)
    function.extra.append("held")
    function.add(
        f"multiply_held({text_of(rows)}, {parts}, {columns // parts}, {depth}, {products.at(function, left)}, "
        f"{text_of(left.strides[0])}, {text_of(left.strides[1])}, held, {products.at(function, target)}, "
        f"{text_of(target.strides[0])}, {int(accumulate)})"
    )
    own = columns // parts
    function.units[target.buffer] = own if target.counts(-1, own) else None


def _factor(text: str) -> str:
    return f"({text})" if " " in text or "+" in text else text
