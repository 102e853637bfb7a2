"""Pointwise ops of one shape become one loop: values that only the loop itself reads never reach memory.

Nor does an element that only a sum reads: it is computed where it is added up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rsref.ops.pointwise import Cast, Pointwise
from rsref.tensor import Tensor
from rsref_fast.concrete import Shape
from rsref_fast.layout import Layout, Section
from rsref_fast.wide import is_wide


@dataclass(frozen=True)
class Unit:
    """What is computed by one loop nest, or by one op.

    tensors: pointwise tensors of one shape, each after its operands, or a single tensor of any op, or a product and
        the sum that it makes of what is there, or a pointwise tensor and its sum over some axes.
    stored: those among them that something else reads.
    """

    tensors: tuple[Tensor, ...]
    stored: tuple[Tensor, ...]
    shape: Shape

    @property
    def fused(self) -> bool:
        return pointwise(self.tensors[0]) and not self.adds_up

    @property
    def adds_up(self) -> bool:
        return len(self.tensors) == 2 and _is_sum(self.tensors[1])


def pointwise(tensor: Tensor) -> bool:
    """Whether a tensor is computed element by element: pointwise ops, and views whose values must be moved."""
    if tensor.op is None:
        return False
    return isinstance(tensor.op, Pointwise | Cast) or tensor.op.name in MOVING or tensor.op.name == "count"


def added_as_computed(layout: Layout, tensor: Tensor) -> bool:
    """Whether the nest that computes a tensor of the time loop can also add it to a sum over the steps."""
    own = tensor not in layout.moved and tensor not in layout.sums and layout.section.get(tensor) is Section.LOOP
    return own and pointwise(tensor) and tensor.op.name not in MOVING and tensor not in layout.parts  # type: ignore[union-attr]


MOVING = ("reshape", "reshape_like")
"""Ops whose result is the operand in row-major order, when no view shows it so."""


def fuse(layout: Layout, section: Section, read_outside: Collection[Tensor]) -> list[Unit]:
    """Return the units that compute a section, in order.

    read_outside: tensors that are read by something other than the tensors of the layout.
    """
    skipped = layout.moved | layout.products_in_sums
    waiting = [t for t in layout.order if layout.section.get(t) is section and t not in skipped]
    inside = set(waiting)
    readers: dict[Tensor, list[Tensor]] = {}
    for tensor in layout.order:
        if tensor not in layout.moved:
            for operand in tensor.inputs:
                readers.setdefault(layout.root(operand), []).append(tensor)
    kept = {layout.root(t) for t in read_outside} | set(layout.parts)
    summed = {
        t: t.inputs[0] for t in waiting if _is_sum(t) and _only_summed(layout, t.inputs[0], inside, kept, readers)
    }
    waiting = [t for t in waiting if t not in summed.values()]
    needs = {t: {layout.root(i) for i in _operands(layout, summed.get(t, t))} & inside for t in waiting}
    done: set[Tensor] = set()
    units: list[Unit] = []
    while waiting:
        group = _next_group(layout, waiting, needs, done)
        members = set(group)
        stored = tuple(t for t in group if t in kept or any(r not in members for r in readers.get(t, ())))
        parts = (summed[group[0]], group[0]) if group[0] in summed else tuple(group)
        units.append(Unit(parts, stored, layout.shapes[group[0]]))
        done |= members
        waiting = [t for t in waiting if t not in members]
    return units


def _is_sum(tensor: Tensor) -> bool:
    return tensor.op is not None and tensor.op.name in ("sum", "sum_to_like")


def _only_summed(
    layout: Layout,
    tensor: Tensor,
    inside: Collection[Tensor],
    kept: Collection[Tensor],
    readers: Mapping[Tensor, Sequence[Tensor]],
) -> bool:
    """Whether nothing but a sum reads a pointwise tensor of a section, and its operands are in memory anyway."""
    own = tensor in inside and pointwise(tensor) and tensor.op.name not in (*MOVING, "count")  # type: ignore[union-attr]
    if not own or tensor in kept or tensor in layout.sums or len(readers[tensor]) > 1:
        return False
    operands = (layout.root(i) for i in tensor.inputs)
    return all(i not in inside or i in kept or not pointwise(i) for i in operands)


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
    singles = [t for t in ready if not pointwise(t) or t in layout.sums]
    if singles:
        single = max(singles, key=lambda t: any(is_wide(layout.width(i)) for i in t.inputs))
        return [layout.sums[single][1], single] if single in layout.sums else [single]
    first = min(ready, key=lambda t: is_wide(layout.width(t)))  # a wide loop waits for all that it can compute
    shape = layout.shapes[first]
    group: list[Tensor] = []
    members: set[Tensor] = set()
    for tensor in waiting:
        direct = all(operand not in layout.moved or layout.root(operand) not in members for operand in tensor.inputs)
        joins = pointwise(tensor) and tensor not in layout.sums and tensor.op.name not in MOVING  # type: ignore[union-attr]
        if joins and layout.shapes[tensor] == shape and needs[tensor] <= done | members and direct:
            group.append(tensor)
            members.add(tensor)
    return group or [first]
