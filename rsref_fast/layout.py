"""Which part of a program computes each tensor, and which memory holds it.

A tensor is a view of another one where possible. Else it gets memory of its own, unless something gives it a better
place: a new state is computed where the next step reads it, the parts of a concatenation where they stand in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import IntEnum

from rsref.graph import topological_order
from rsref.ops.pointwise import Cast, Pointwise
from rsref.tensor import ConstantSource, Parameter, Tensor
from rsref_fast.concrete import Shape, shapes_of
from rsref_fast.lengths import Varying, per_row, plus, times
from rsref_fast.rows import Rows
from rsref_fast.schedule import Schedule, is_sum_with_product
from rsref_fast.views import RESHAPES, RULES, Buffer, Space, View, row_major, rows_first, view_of_op, whole


class Section(IntEnum):
    """The parts of a program, in the order in which they run."""

    PREPARE = 0
    """Once a call, of parameters alone."""
    ONCE = 1
    """Once a call, for the rows of a shard."""
    BEFORE = 2
    """For the rows of a block of steps, before its loop."""
    LOOP = 3
    """Step by step."""
    AFTER = 4
    """For the rows of a block of steps, after its loop."""
    FINISH = 5
    """Once a call, of sums over all samples."""


BLOCKWISE = (Section.BEFORE, Section.AFTER)


@dataclass
class Layout:
    """Sections and memory of the tensors behind some results.

    order: all tensors. section: of each computed one. views: where each one lies. moved: computed tensors that are
    views of others, or parts' joint memory: nothing is done for them. parts: tensors computed in place inside a
    concatenation. copies: of tensors of the time loop, where concatenations that are made for a block have them, too:
    stored there as they are computed. constants: the parameter or fixed array that a buffer holds.
    sums: of sums of a tensor and a product, both: in the time loop the product adds to the tensor's memory; or it
    begins with the tensor, a row (`begins_with_row`).
    later: gradients of constants that are computed where they are added up, for all steps of a block (`later`).
    phase: which loop a tensor or a carried leaf belongs to, where there are several (`phases`).
    """

    order: list[Tensor]
    shapes: dict[Tensor, Shape]
    rows: Mapping[Tensor, Rows]
    section: dict[Tensor, Section]
    views: dict[Tensor, View] = field(default_factory=dict)
    moved: set[Tensor] = field(default_factory=set)
    parts: dict[Tensor, tuple[Tensor, int]] = field(default_factory=dict)
    copies: dict[Tensor, dict[Tensor, View]] = field(default_factory=dict)
    constants: dict[Buffer, Tensor] = field(default_factory=dict)
    sums: dict[Tensor, tuple[Tensor, Tensor]] = field(default_factory=dict)
    later: Set[Tensor] = frozenset()
    phase: Mapping[Tensor, int] = field(default_factory=dict)

    @property
    def phases(self) -> range:
        return range(1 + max(self.phase.values(), default=0))

    def phase_of(self, tensor: Tensor) -> int:
        return self.phase.get(tensor, 0)

    def phase_of_memory(self, buffer: Buffer) -> int:
        """Return the phase of the carried leaf that a buffer holds, or the last one."""
        own = (phase for leaf, phase in self.phase.items() if leaf.op is None and self.views[leaf].buffer is buffer)
        return next(own, self.phases[-1])

    @property
    def products_in_sums(self) -> set[Tensor]:
        return {product for _, product in self.sums.values()}

    def begins_with_row(self, total: Tensor) -> bool:
        """Whether a tensor is a product of which each row begins with the same numbers, such as a bias."""
        return total in self.sums and self.rows[self.sums[total][0]] is Rows.NONE

    def width(self, tensor: Tensor) -> int:
        """Return how many values a sample has in a tensor; 0 if it has no samples."""
        return per_row(times(1, *self.shapes[tensor])) or 0

    def root(self, tensor: Tensor) -> Tensor:
        """Return the tensor whose values a view shows."""
        while tensor in self.moved:
            tensor = tensor.inputs[0]
        return tensor


def sections_of(plan: Schedule, rows: Mapping[Tensor, Rows]) -> dict[Tensor, Section]:
    """Return the section of each tensor of a schedule."""
    found: dict[Tensor, Section] = {}
    for tensor in plan.once:
        found[tensor] = Section.PREPARE if rows[tensor] is Rows.NONE else Section.ONCE
    found.update(dict.fromkeys(plan.before, Section.BEFORE))
    found.update(dict.fromkeys(plan.loop, Section.LOOP))
    for tensor in plan.after:
        total = rows[tensor] is Rows.SUM and all(rows[i] in (Rows.SUM, Rows.NONE) for i in tensor.inputs)
        found[tensor] = Section.FINISH if total else Section.AFTER
    return found


def lay_out(
    results: Sequence[Tensor],
    rows: Mapping[Tensor, Rows],
    plan: Schedule,
    leaves: Mapping[Tensor, View],
    *,
    places: Mapping[Tensor, Buffer],
    packed: Iterable[Tensor] = (),
    blockwise: Iterable[Tensor] = (),
    later: Set[Tensor] = frozenset(),
    biases: bool = False,
    joints: bool = False,
    prefix: str = "b",
) -> Layout:
    """Return where every tensor behind the results lies.

    leaves: the views of sequences, constants, states and other inputs; parameters and fixed arrays get their own.
    places: the memory into which some computed tensors are to be written.
    packed: tensors that backward reads. blockwise: tensors that are read for all rows of a block. later: see `Layout`.
    biases: whether products may begin with a row. joints: whether the time loop fills concatenations for a block.
    """
    order = topological_order(results)
    shapes = shapes_of(results, {leaf: view.shape for leaf, view in leaves.items()})
    layout = Layout(order, shapes, rows, sections_of(plan, rows), dict(leaves), later=later, phase=plan.phase)
    for tensor in order:
        if tensor.op is None and tensor not in layout.views:
            _leaf(layout, tensor)
    packed, blockwise = set(packed), set(blockwise)
    _find_moved(layout, packed | blockwise)
    wanted = _spaces(layout, packed, blockwise)
    placed = {  # the gradient of a state is there for one step only
        t: b for t, b in places.items() if b.space is not Space.FLOW_OUT or wanted[t] is Space.STEP
    }  # fmt: skip
    _find_parts(layout, placed)
    copied = _find_copies(layout, {*placed, *packed, *blockwise}) if joints else {}
    _find_sums(layout, placed, {*results, *packed, *blockwise}, biases)
    for part, (joint, _) in layout.parts.items():  # in topological order: a part's need reaches the outermost
        wanted[joint] = max(wanted[joint], wanted[part], key=_RANK.index)
    standing = {total: sum_ for total, sum_ in layout.sums.items() if not layout.begins_with_row(total)}
    for total, (start, _) in reversed(standing.items()):  # from the outermost sum to the first term
        wanted[start] = max(wanted[start], wanted[total], key=_RANK.index)
        if total in placed:
            placed[start] = placed[total]
    joined = set(standing) | layout.products_in_sums
    for tensor in reversed(order):
        if tensor.op is not None and tensor not in layout.moved and tensor not in joined:
            layout.views[tensor] = _own(layout, tensor, wanted, placed, prefix)
    for total, (start, product) in layout.sums.items():
        if total in standing:
            layout.views[total] = layout.views[start]
        layout.views[product] = layout.views[total]
    for part, joints_of in copied.items():
        layout.copies[part] = {joint: _inside(layout, part, joint, start) for joint, start in joints_of.items()}
    for tensor in order:
        if tensor in layout.moved:
            view = view_of_op(tensor, layout.views[tensor.inputs[0]], shapes[tensor])
            assert view is not None
            layout.views[tensor] = view
    for tensor in blockwise:
        _check_rows(layout, tensor)
    return layout


_RANK = (Space.FIXED, Space.ROW, Space.STEP, Space.BLOCK, Space.PACKED)


def _leaf(layout: Layout, tensor: Tensor) -> None:
    assert isinstance(tensor.source, Parameter | ConstantSource)
    buffer = Buffer(f"leaf{len(layout.constants)}", tensor.dtype, Space.FIXED, layout.shapes[tensor])
    layout.constants[buffer] = tensor
    layout.views[tensor] = whole(buffer)


def _find_moved(layout: Layout, by_rows: set[Tensor]) -> None:
    """Find the tensors that are views of others, if all that is computed lies row-major in memory.

    by_rows: tensors of which a row for each sample and step is read, which a view of what has none does not show.
    """
    guess = dict(layout.views)
    for tensor in layout.order:
        if tensor.op is None:
            continue
        operand = tensor.inputs[0] if tensor.inputs else None
        view = None
        if operand is not None and tensor.op.name in RULES:
            view = view_of_op(tensor, guess[operand], layout.shapes[tensor])
            if view is not None and any(isinstance(s, Varying) for s in (*view.strides, view.offset)):
                view = view if layout.section[tensor] is layout.section.get(operand, Section.LOOP) else None
            root = None if operand is None else layout.root(operand)
            if tensor in by_rows and layout.section.get(root) in (Section.ONCE, Section.LOOP):
                view = view if rows_first(layout.shapes[root]) else None
        if view is None:
            shape = layout.shapes[tensor]
            space = Space.STEP
            guess[tensor] = View(Buffer("", tensor.dtype, space, shape), shape, row_major(shape))
        else:
            guess[tensor] = view
            layout.moved.add(tensor)


def _spaces(layout: Layout, packed: set[Tensor], blockwise: set[Tensor]) -> dict[Tensor, Space]:
    """Return how much memory each computed tensor needs, from where it is computed and who reads it."""
    wanted: dict[Tensor, Space] = {}
    for tensor, section in layout.section.items():
        fixed = section in (Section.PREPARE, Section.FINISH) or (
            section is Section.AFTER and layout.rows[tensor] is Rows.SUM
        )
        wanted[tensor] = (
            Space.FIXED if fixed else
            Space.ROW if section is Section.ONCE else
            Space.STEP if section is Section.LOOP else Space.BLOCK
        )  # fmt: skip

    def need(tensor: Tensor, space: Space) -> None:
        root = layout.root(tensor)
        if root.op is not None and wanted[root] not in (Space.FIXED, Space.ROW):
            wanted[root] = max(wanted[root], space, key=_RANK.index)

    for tensor, section in layout.section.items():
        if section in BLOCKWISE and tensor not in layout.moved:
            for operand in tensor.inputs:
                need(operand, Space.BLOCK)
        if section is Section.LOOP and tensor not in layout.moved:
            for root in map(layout.root, tensor.inputs):
                if layout.section.get(root) is Section.LOOP and layout.phase_of(root) != layout.phase_of(tensor):
                    need(root, Space.BLOCK)
    for tensor in blockwise:
        need(tensor, Space.BLOCK)
    for tensor in packed:
        need(tensor, Space.PACKED)
    return wanted


def _find_parts(layout: Layout, places: Mapping[Tensor, Buffer]) -> None:
    """Find the operands of concatenations that can be computed in place."""
    shown = _shown(layout)
    for joint, part, start in _operands_of_joints(layout):
        free = (
            part.op is not None and part.op.name not in RESHAPES and part not in layout.moved
            and part not in layout.parts and part not in places
            and layout.section[part] is layout.section[joint] and layout.phase_of(part) == layout.phase_of(joint)
            and part not in shown and layout.rows[part] is layout.rows[joint]
        )  # fmt: skip
        if free:
            layout.parts[part] = joint, start


def _shown(layout: Layout) -> set[Tensor]:
    """Return the tensors that are read through views of them, which need them to lie alone."""
    return {layout.root(t.inputs[0]) for t in layout.moved}


def _operands_of_joints(layout: Layout) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield all concatenations but of the batch, with each operand, and where that begins, as far as it is known."""
    for joint in layout.order:
        if joint.op is None or joint.op.name != "concatenate" or joint.attrs["axis"] == 0:
            continue
        start = 0
        for part in joint.inputs:
            yield joint, part, start
            length = layout.shapes[part][joint.attrs["axis"]]
            if isinstance(length, Varying):
                break
            start += length


def _find_copies(layout: Layout, kept: Set[Tensor]) -> dict[Tensor, dict[Tensor, int]]:
    """Find the operands of a block's concatenations that the time loop computes element by element.

    One that lies nowhere else is computed in place. Return where others begin in each concatenation, operands that are
    concatenations of such ones among them. kept: tensors that need memory of their own.
    """
    kept = kept | _shown(layout)
    found: dict[Tensor, dict[Tensor, int]] = {}
    for joint, operand, start in _operands_of_joints(layout):
        parts = list(_looped_parts(layout, operand, joint.attrs["axis"], start))
        if layout.section[joint] is not Section.AFTER or not all(_looped(layout, part) for part, _ in parts):
            continue
        if parts != [(operand, start)]:
            again = len(dict(parts)) < len(parts) or any(joint in found.get(part, ()) for part, _ in parts)
            for part, place in () if again else [(operand, start), *parts]:  # each is stored at one place of a joint
                found.setdefault(part, {})[joint] = place
        elif operand not in layout.parts and operand not in kept:
            layout.parts[operand] = joint, start
        else:
            found.setdefault(operand, {}).setdefault(joint, start)
    return found


def _looped_parts(layout: Layout, operand: Tensor, axis: int, start: int) -> Iterator[tuple[Tensor, int]]:
    """Yield the parts of concatenations of the time loop, and where each begins; of any other tensor itself."""
    joint = operand.op_name == "concatenate" and operand.attrs["axis"] == axis
    joint = joint and layout.section[operand] is Section.LOOP
    lengths = [layout.shapes[part][axis] for part in operand.inputs] if joint else []
    known = [length for length in lengths if isinstance(length, int)]
    if not joint or len(known) < len(lengths):
        yield operand, start
        return
    for part, length in zip(operand.inputs, known):
        yield from _looped_parts(layout, part, axis, start)
        start += length


def _looped(layout: Layout, tensor: Tensor) -> bool:
    """Whether the time loop computes a tensor element by element, and not as a product that is added to something."""
    elements = isinstance(tensor.op, Pointwise | Cast) and not is_sum_with_product(tensor)
    return elements and layout.section[tensor] is Section.LOOP


def _find_sums(layout: Layout, places: Mapping[Tensor, Buffer], read: set[Tensor], biases: bool) -> None:
    """Find the products of the loop that can add to memory which nothing else reads: filled before it, or in it.

    read: tensors that are read by something other than the tensors of the layout. biases: whether those are found, too,
    that can begin with a row, in the loop or not.
    """
    readers: dict[Tensor, int] = {}
    for tensor in layout.order:
        for operand in tensor.inputs:
            readers[operand] = readers.get(operand, 0) + 1

    inside: dict[Tensor, list[Tensor]] = {}
    for part, (joint, _) in layout.parts.items():
        inside.setdefault(joint, []).append(part)

    def read_once(tensor: Tensor) -> bool:
        """Whether nothing but one tensor reads the memory of another, nor what was computed in place there."""
        return readers.get(tensor, 0) == 1 and tensor not in read and all(map(read_once, inside.get(tensor, ())))

    def alone(tensor: Tensor) -> bool:
        own = tensor not in layout.parts and tensor not in places and tensor not in layout.moved
        return tensor.op is not None and own and read_once(tensor)

    def begins(total: Tensor, start: Tensor, product: Tensor) -> bool:
        """Whether a product with weights can begin with a row."""
        *outer, columns = (1, *layout.shapes[start])
        row = columns == layout.shapes[total][-1] != 1 and all(length == 1 for length in outer)
        once = start not in layout.moved and layout.rows[start] is Rows.NONE
        right = product.inputs[1]
        panels = len(layout.shapes[right]) == 2 and all(isinstance(n, int) for n in layout.shapes[right])
        return row and once and panels and layout.rows[right] is Rows.NONE

    def stands(total: Tensor, start: Tensor) -> bool:
        """Whether a product of the time loop can add to a tensor's memory."""
        section = layout.section.get(start)
        before = section is Section.BEFORE and total not in places
        here = section is Section.LOOP and layout.phase_of(start) == layout.phase_of(total)
        same = layout.shapes[start] == layout.shapes[total] and layout.rows[start] is Rows.FIRST
        return same and alone(start) and (before or here) and layout.section[total] is Section.LOOP

    for total in layout.order:
        if not is_sum_with_product(total) or total in layout.moved or total in layout.parts:
            continue
        for start, product in (total.inputs, total.inputs[::-1]):
            if (
                alone(product) and product.op_name == "matmul"
                and layout.shapes[product] == layout.shapes[total] and layout.rows[total] is Rows.FIRST
                and layout.section[product] is layout.section[total]
                and layout.phase_of(product) == layout.phase_of(total)
                and (stands(total, start) or (biases and begins(total, start, product)))
            ):  # fmt: skip
                layout.sums[total] = start, product
                break


def _own(
    layout: Layout, tensor: Tensor, wanted: Mapping[Tensor, Space], places: Mapping[Tensor, Buffer], prefix: str
) -> View:
    if tensor in places:
        return whole(places[tensor])
    if tensor in layout.parts:
        return _inside(layout, tensor, *layout.parts[tensor])
    if wanted[tensor] in (Space.BLOCK, Space.PACKED):
        _check_rows(layout, tensor)
    name = f"{prefix}{layout.order.index(tensor)}_{tensor.op_name}"
    return whole(Buffer(name, tensor.dtype, wanted[tensor], layout.shapes[tensor]))


def _inside(layout: Layout, part: Tensor, joint: Tensor, start: int) -> View:
    """Return the view of a concatenation's operand in it, which begins there."""
    outer = layout.views[joint]
    shift = times(start, outer.strides[joint.attrs["axis"]])
    return replace(outer, shape=layout.shapes[part], offset=plus(outer.offset, shift))


def _check_rows(layout: Layout, tensor: Tensor) -> None:
    if not rows_first(layout.shapes[tensor]):
        raise NotImplementedError(f"{tensor!r} has no row for each sample, but is read for several steps at once")
