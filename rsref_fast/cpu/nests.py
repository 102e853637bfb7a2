"""The nest of loops that computes pointwise tensors of one shape, and adds them to sums on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rsref.tensor import Tensor
from rsref_fast.concrete import Shape
from rsref_fast.cpu.joining import Joined, folded_view
from rsref_fast.cpu.text import Function, collapsed, value_of
from rsref_fast.expressions import Expression, cast, literal
from rsref_fast.fuse import Unit
from rsref_fast.layout import Section
from rsref_fast.lengths import text_of, times
from rsref_fast.views import View, row_major, whole

if TYPE_CHECKING:
    from rsref_fast.cpu.emit import Writer


def fused(writer: Writer, function: Function, unit: Unit) -> None:
    """Write a loop over a unit's elements."""
    shape, place, stores, totals = _collapsed(writer, unit, {}, function.inside)
    with function.shared_nest(shape) as index:
        values = _elements(writer, function, unit.tensors, place, stores, index)
        for element, view in totals:
            function.store(view, index, values[element].text, accumulate=True)
        if not totals:
            function.rest_masked(next((length for length in reversed(shape) if length != 1), 1))


def joined(writer: Writer, function: Function, unit: Joined, section: Section) -> None:
    """Write a loop over elements that are added up: four rows at a time, if they are folded, so sums are read less."""
    layout, elements = writer.layout, unit.tensors[: -len(unit.sums)]
    straight = {t: writer.straight(unit, t) for t in unit.sums}
    targets = {t: layout.views[t] if into is None else whole(into) for t, into in straight.items()}
    folded = {t: folded_view(layout, t, target) for t, target in targets.items()}
    shape, place, stores, totals = _collapsed(writer, unit, folded)
    for tensor, (_, view) in zip(unit.sums, totals[-len(unit.sums) :]):
        if straight[tensor] is None and not writer.over_blocks(tensor, section):
            with function.shared_nest(tuple(1 if s == 0 else n for n, s in zip(shape, view.strides))) as index:
                function.store(view, index, "F(0)" if tensor.dtype == "float" else "0")
    if 0 in shape:
        return
    row = [axis for axis, length in enumerate(shape) if length != 1][-2]
    for rows in function.shared_fours(shape, row):
        found = [_elements(writer, function, elements, place, stores, index, f"_{k}") for k, index in enumerate(rows)]
        for element, view in totals:
            terms = [cast(values[element], view.buffer.kind).text for values in found]
            for index, text in [(rows[0], " + ".join(terms))] if view.strides[row] == 0 else zip(rows, terms):
                function.store(view, index, text, accumulate=True)


def over_steps(writer: Writer, function: Function, unit: Unit) -> None:
    """Write a loop over the samples of a block of steps that adds up elements of all steps of each."""
    shape, place, stores, totals = _collapsed(writer, unit, {}, True)
    for sample, rows in function.steps_by_fours(shape):
        found = [
            _elements(writer, function, unit.tensors, place, stores, index, f"_{k}") for k, index in enumerate(rows)
        ]
        for element, view in totals:
            function.store(view, sample, " + ".join(values[element].text for values in found), accumulate=True)


def _collapsed(
    writer: Writer, unit: Unit, folded: Mapping[Tensor, View], but_rows: bool = False
) -> tuple[Shape, dict[Tensor, View], dict[Tensor, list[View]], list[tuple[Tensor, View]]]:
    """Return a loop's shape, where the tensors lie that it reads, where it stores what, and what is added where.

    folded: sums of the loop, which are the last of what is added. but_rows: see `collapsed`.
    """
    views, members = writer.layout.views, [t for t in unit.tensors if t not in folded]
    read = [i for t in members for i in t.inputs if i not in members and t.op and t.op.name != "count"]
    read += [t.inputs[0] for t in folded if t.inputs[0] not in members]
    stored = [t for t in unit.stored if t in members]
    used = [*dict.fromkeys(read), *stored]
    copies = [(t, view) for t in stored for view in writer.layout.copies.get(t, {}).values()]
    added = [(t, b) for t in members for view, b in writer.added.get(t, ()) if writer.added_there(t, view)]
    totals = [*(View(b, b.shape, row_major(b.shape)) for _, b in added), *folded.values()]
    every = [*(views[t] for t in used), *(view for _, view in copies), *totals]
    shape, found = collapsed(unit.shape, every, but_rows)
    flat = iter(found)
    place = dict(zip(used, flat))
    stores = {t: [place[t]] for t in stored}
    for (tensor, _), view in zip(copies, flat):
        stores[tensor].append(view)
    elements = [*(t for t, _ in added), *(t.inputs[0] for t in folded)]
    return shape, place, stores, list(zip(elements, flat))


def _elements(
    writer: Writer,
    function: Function,
    tensors: Sequence[Tensor],
    place: Mapping[Tensor, View],
    stores: Mapping[Tensor, Sequence[View]],
    index: list[str],
    suffix: str = "",
) -> dict[Tensor, Expression]:
    """Compute an element of each tensor; return these, and those that are read. suffix: of their names."""
    read: dict[Tensor, Expression] = {}
    computed: dict[Tensor, Expression] = {}
    first = len(function.lines)

    def value(tensor: Tensor) -> Expression:
        nonlocal first
        if tensor in computed:
            return computed[tensor]
        if tensor not in read:
            before = len(function.lines)
            read[tensor] = _loaded(writer, function, place[tensor], index, f"x{len(read)}{suffix}")
            if function.reads_first and len(function.lines) > before:
                function.lines.insert(first, function.lines.pop())
                first += 1
        return read[tensor]

    for i, tensor in enumerate(tensors):
        count = tensor.op_name == "count"
        found = _count(writer, tensor) if count else value_of(tensor, [value(operand) for operand in tensor.inputs])
        function.add(f"v{i}{suffix} = {cast(found, tensor.dtype).text}")
        computed[tensor] = Expression(f"v{i}{suffix}", tensor.dtype)
        for view in stores.get(tensor, ()):
            function.store(view, index, f"v{i}{suffix}")
    return computed | {tensor: value(tensor) for tensor in place if tensor not in computed}


def _loaded(writer: Writer, function: Function, view: View, index: list[str], name: str) -> Expression:
    value = function.load(view, index)
    if view.buffer in writer.values:
        return value
    function.add(f"{name} = {value.text}")
    return Expression(name, value.kind)


def _count(writer: Writer, tensor: Tensor) -> Expression:
    shape = writer.layout.shapes[tensor.inputs[0]]
    length = times(1, *(shape[a] for a in tensor.attrs["axes"]))
    return literal(float(length)) if isinstance(length, int) else Expression(f"F({text_of(length)})", "float")
