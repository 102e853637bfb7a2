"""Sums joined with what they add up: one nest of loops computes elements, keeps those that are read elsewhere, and adds
them to sums over all but their last axis. So nothing is written only to be added up, or read again for each of several
sums.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from rsref.tensor import Tensor
from rsref_fast.concrete import Shape
from rsref_fast.cpu.loops import folded_like, folded_over
from rsref_fast.fuse import Unit
from rsref_fast.layout import Layout
from rsref_fast.views import RESHAPES, Buffer, Space, View

MOST = 6
"""Sums of one nest: the addresses of more would not stay in registers."""


@dataclass(frozen=True)
class Joined(Unit):
    """Pointwise tensors of one shape, and sums of them, or of others of that shape, over some axes but the last.

    sums: the last ones of the tensors.
    """

    sums: tuple[Tensor, ...] = ()


@dataclass
class _Group:
    """Units that become one, where the first of them stands.

    elements: what they compute without the sums. operands: what they read from memory.
    """

    shape: Shape
    places: list[int] = field(default_factory=list)
    elements: set[Tensor] = field(default_factory=set)
    operands: set[Tensor] = field(default_factory=set)
    sums: list[Tensor] = field(default_factory=list)

    def takes(self, shape: Shape, read: Collection[Tensor], later: Collection[Tensor]) -> bool:
        """Whether a sum of elements of a shape can be joined: it reads what is read here, and nothing made later."""
        there = self.elements | self.operands
        near, missing = not there.isdisjoint(read), set(later) - self.elements
        return self.shape == shape and len(self.sums) < MOST and near and not missing


def joined(layout: Layout, units: Sequence[Unit], elsewhere: Collection[Buffer]) -> list[Unit]:
    """Return the units of a section, with sums joined to one another and to the loops that compute what they add up.

    elsewhere: memory that is read by something other than these units.
    """
    found: list[Unit] = []
    groups = _groups(layout, units)
    firsts = {group.places[0]: group for group in groups}
    inside = {place for group in groups for place in group.places}
    for place, unit in enumerate(units):
        if place in firsts:
            found.append(_unit(layout, units, firsts[place], elsewhere))
        elif place not in inside:
            found.append(unit)
    return found


def _groups(layout: Layout, units: Sequence[Unit]) -> list[_Group]:
    """Return the units that can be one."""
    made = {tensor: place for place, unit in enumerate(units) for tensor in unit.tensors}
    groups: list[_Group] = []
    for place, unit in enumerate(units):
        shape, total = _shape(layout, unit), total_of(unit)
        if shape is None:
            continue
        elements = {t for t in unit.tensors if t is not total}
        read = {i for t in unit.tensors for i in t.inputs[: 1 if t is total else None]} - elements
        group = None
        if total is not None:
            places = {i: made.get(layout.root(i), -1) for i in read}
            taking = (g for g in groups if g.takes(shape, read, [i for i in read if places[i] >= g.places[0]]))
            group = next(taking, None)
        if group is None:
            groups.append(group := _Group(shape))
        group.places.append(place)
        group.operands |= read - group.elements
        group.elements |= elements
        group.sums += [] if total is None else [total]
    return [group for group in groups if len(group.places) > 1]


def _unit(layout: Layout, units: Sequence[Unit], group: _Group, elsewhere: Collection[Buffer]) -> Joined:
    """Return a group's unit. Of its elements it keeps only what others read."""
    others = [unit for place, unit in enumerate(units) if place not in group.places]
    touched = {layout.views[i].buffer for u in others for t in u.tensors for i in (t, *t.inputs) if i in layout.views}
    touched |= set(elsewhere)

    def needed(tensor: Tensor) -> bool:
        buffer = layout.views[tensor].buffer
        return buffer in touched or buffer.space not in (Space.STEP, Space.BLOCK)

    stored = [t for place in group.places for t in units[place].stored if t in group.elements and needed(t)]
    elements = [t for t in layout.order if t in group.elements]
    return Joined((*elements, *group.sums), (*stored, *group.sums), group.shape, tuple(group.sums))


def total_of(unit: Unit) -> Tensor | None:
    """Return the sum that a unit computes, if it is one."""
    last = unit.tensors[-1]
    return last if last.op_name in ("sum", "sum_to_like") else None


def _shape(layout: Layout, unit: Unit) -> Shape | None:
    """Return the shape of the elements of a loop, or of a sum over some of their axes but the last; None for others."""
    total = total_of(unit)
    elements = [t for t in unit.tensors if t is not total]
    shape = layout.shapes[elements[-1] if total is None else total.inputs[0]]
    if any(t.op is None or t.op.name in (*RESHAPES, "count") or layout.shapes[t] != shape for t in elements):
        return None
    if total is None:
        apart = layout.sums.keys() & set(elements) or not layout.later.isdisjoint(elements)
        return shape if unit.fused and not apart else None
    strides = folded_view(layout, total, layout.views[total]).strides
    folds = any(stride == 0 and length != 1 for stride, length in zip(strides, shape))
    return shape if folds and shape[-1] != 1 and strides[-1] != 0 else None


def folded_view(layout: Layout, total: Tensor, target: View) -> View:
    """Return where a sum is added up, with the axes of its operand: those that are folded do not move in it."""
    source = replace(target, shape=layout.shapes[total.inputs[0]])
    if total.op_name == "sum":
        return folded_over(source, target, total.attrs["axes"], total.attrs["keepdims"])
    return folded_like(source, target)[1]
