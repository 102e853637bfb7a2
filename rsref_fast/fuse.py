"""Pointwise ops of one shape become one loop: values that only the loop itself reads never reach memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rsref.ops.pointwise import Cast, Pointwise
from rsref.tensor import Tensor
from rsref_fast.concrete import Shape
from rsref_fast.layout import Layout, Section


@dataclass(frozen=True)
class Unit:
    """What is computed by one loop nest, or by one op.

    tensors: pointwise tensors of one shape, each after its operands, or a single tensor of any op, or a product and
        the sum that it makes of what is there.
    stored: those among them that something else reads.
    """

    tensors: tuple[Tensor, ...]
    stored: tuple[Tensor, ...]
    shape: Shape

    @property
    def fused(self) -> bool:
        return pointwise(self.tensors[0])


def pointwise(tensor: Tensor) -> bool:
    """Whether a tensor is computed element by element: pointwise ops, and views whose values must be moved."""
    if tensor.op is None:
        return False
    return isinstance(tensor.op, Pointwise | Cast) or tensor.op.name in MOVING or tensor.op.name == "count"


MOVING = ("reshape", "reshape_like")
"""Ops whose result is the operand in row-major order, when no view shows it so."""


def fuse(layout: Layout, section: Section, read_outside: Collection[Tensor]) -> list[Unit]:
    """Return the units that compute a section, in order.

    read_outside: tensors that are read by something other than the tensors of the layout.
    """
    skipped = layout.moved | layout.products_in_sums
    waiting = [t for t in layout.order if layout.section.get(t) is section and t not in skipped]
    inside = set(waiting)
    needs = {t: {layout.root(i) for i in _operands(layout, t)} & inside for t in waiting}
    readers: dict[Tensor, list[Tensor]] = {}
    for tensor in layout.order:
        if tensor not in layout.moved:
            for operand in tensor.inputs:
                readers.setdefault(layout.root(operand), []).append(tensor)
    kept = {layout.root(t) for t in read_outside} | set(layout.parts)
    done: set[Tensor] = set()
    units: list[Unit] = []
    while waiting:
        group = _next_group(layout, waiting, needs, done)
        members = set(group)
        stored = tuple(t for t in group if t in kept or any(r not in members for r in readers.get(t, ())))
        units.append(Unit(tuple(group), stored, layout.shapes[group[0]]))
        done |= members
        waiting = [t for t in waiting if t not in members]
    return units


def _operands(layout: Layout, tensor: Tensor) -> Sequence[Tensor]:
    """Return what must be there before a tensor is computed: of a sum, its first term and what its product reads."""
    if tensor not in layout.sums:
        return tensor.inputs
    start, product = layout.sums[tensor]
    return [start, *product.inputs]


def _next_group(
    layout: Layout, waiting: Sequence[Tensor], needs: dict[Tensor, set[Tensor]], done: set[Tensor]
) -> list[Tensor]:
    ready = [t for t in waiting if needs[t] <= done]
    single = next((t for t in ready if not pointwise(t) or t in layout.sums), None)
    if single is not None:
        return [layout.sums[single][1], single] if single in layout.sums else [single]
    shape = layout.shapes[ready[0]]
    group: list[Tensor] = []
    members: set[Tensor] = set()
    for tensor in waiting:
        direct = all(operand not in layout.moved or layout.root(operand) not in members for operand in tensor.inputs)
        joins = pointwise(tensor) and tensor not in layout.sums and tensor.op.name not in MOVING  # type: ignore[union-attr]
        if joins and layout.shapes[tensor] == shape and needs[tensor] <= done | members and direct:
            group.append(tensor)
            members.add(tensor)
    return group or [ready[0]]
