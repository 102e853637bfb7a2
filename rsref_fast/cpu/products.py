"""Matrix products: calls of the micro-kernels, with weights packed once a call."""

from __future__ import annotations

from collections.abc import Sequence

from rsref_fast.cpu.microkernel_shapes import fits
from rsref_fast.cpu.text import Function
from rsref_fast.layout import Section
from rsref_fast.lengths import Length, Varying, number, text_of, times
from rsref_fast.views import Buffer, Space, View

EARLY = 1 << 15
"""Weights up to which a single row of a step is multiplied by a thread's own part of it first, while it waits."""


def panels_of(name: str, right: View, width: int) -> Buffer:
    """Return the memory for weights (k, n) packed into panels of `width` columns, the last one filled with zeros."""
    depth, columns = (number(length) for length in right.shape)
    return Buffer(name, "float", Space.FIXED, (-(-columns // width), depth, width))


def pack(function: Function, right: View, panels: Buffer) -> None:
    depth, columns = right.shape
    function.share()
    function.written.add(panels)
    function.add(
        f"pack({depth}, {columns}, {at(function, right)}, {right.strides[0]}, {right.strides[1]}, "
        f"{function.pointer(panels)}, rank, size)"
    )


def product(
    function: Function,
    target: View,
    left: View,
    right: View,
    panels: Buffer | None,
    accumulate: bool = False,
    turning: bool = False,
    units: int | None = None,
    begin: View | None = None,
) -> None:
    """Write the product of the last two axes; leading axes are looped over, with the operands broadcast.

    turning: whether threads share the columns by panels, and go through them the other way at every other step.
    units: a length, if a thread had better compute its part of each so many columns than of all.
    begin: a row that is added to each of the product's, whose right operand has panels.
    """
    assert begin is None or panels is not None, "a product without panels begins with what is there"
    left, right, target = flattened(left, right, target)
    leading = target.shape[:-2]
    a, b = _leading(left, leading), _leading(right, leading)
    (rows, columns), depth = target.shape[-2:], left.shape[-1]
    parts = _parts(columns, units, panels) if turning else 1
    add = "add" if "add" in function.extra else "1" if accumulate else "0"
    function.share()
    function.written.add(target.buffer)
    if turning and panels is not None and not leading:
        _row(function, target, left, panels, parts, add, begin)
    with function.nest(leading) as i:
        places = [
            at(function, view, [index if n != 1 else "0" for index, n in zip(i, view.shape)]) for view in (a, b, target)
        ]
        first = f"{places[0]}, {text_of(_stride(left, -2))}, {text_of(_stride(left, -1))}"
        last = f"{text_of(_stride(target, -2))}, {add}, rank, size"
        pointer, count = "" if panels is None else function.pointer(panels), text_of(columns)
        start = places[2] if begin is None else at(function, begin, ["0"] * len(begin.shape))
        if parts > 1:
            function.add(f"parts = {parts} if size > 1 else 1")
            function.add("for j in range(parts):")
            function.depth += 1
            function.add("k = parts - 1 - j if turn % 2 == 1 else j")
            pointer = f"at({pointer}, k * {units} * {text_of(depth)})"
            places[2], start = (f"at({place}, k * {units})" for place in (places[2], start))
            count += " // parts"
        if panels is not None and turning:
            function.extra.append("turn")
            step = text_of(_stride(target, -2))
            last = f"{step}, {start}, {step if begin is None else 0}, {add}, rank, size, turn, {text_of(columns)}"
        sizes = f"{text_of(rows)}, {count}, {text_of(depth)}"
        if panels is None:
            second = f"{places[1]}, {text_of(_stride(right, -2))}, {text_of(_stride(right, -1))}"
            function.add(f"multiply({sizes}, {first}, {second}, {places[2]}, {last})")
        else:
            function.add(f"multiply_packed({sizes}, {first}, {pointer}, {places[2]}, {last})")
    if turning:
        own = units if parts > 1 else columns
        apart = target.buffer not in (left.buffer, right.buffer)  # else it reads more of the row than its part
        function.units[target.buffer] = own if apart and isinstance(own, int) and target.counts(-1, own) else None


def _row(
    function: Function, target: View, left: View, panels: Buffer, parts: int, add: str, begin: View | None
) -> None:
    """Write what is done for a single row of a step, if each of two threads can begin with its own part of it."""
    columns, depth, width = target.shape[-1], left.shape[-1], number(panels.shape[-1])
    units = None if function.early is None else function.early[1]
    if units is None or not isinstance(columns, int) or not isinstance(depth, int) or target.buffer is left.buffer:
        return
    if not units or depth % units or columns * depth > EARLY or not left.counts(-1, units):
        return
    if not fits(parts, columns // parts, units, width):
        return
    function.extra += ["N", "late"]
    a, b, c = at(function, left), function.pointer(panels), at(function, target)
    o = at(function, target if begin is None else begin)
    sizes = f"{parts}, {columns // parts}, {depth}, {units}, {a}, {b}, tile, rank, turn"
    wait = ["if late != 0:", "    wait_for_all(N)"]
    own = ["tile = aside()", f"begin_row({sizes})", *wait, f"end_row({sizes}, {c}, {o}, {add})", "return"]
    function.add(f"if {text_of(target.shape[-2])} == 1 and size == 2:")
    for line in own:
        function.add(f"    {line}")
    for line in wait:
        function.add(line)
    function.add(f"if {text_of(target.shape[-2])} == 1:")
    function.add(f"    parts = {parts} if size > 1 else 1")
    function.add("    for j in range(parts):")
    count = columns // parts
    b, c, o = (f"at({name}, j * {step})" for name, step in ((b, count * depth), (c, count), (o, count)))
    function.add(
        f"        multiply_row({columns} // parts, {depth}, {units}, {a}, {b}, {c}, {o}, {add}, rank, size, turn)"
    )
    function.add("    return")


def _parts(columns: Length, units: int | None, panels: Buffer | None) -> int:
    """Return how many lengths of whole panels the columns are; 1 if they are no such lengths."""
    if panels is None or not units or not isinstance(columns, int):
        return 1
    return columns // units if columns % units == 0 and units % number(panels.shape[-1]) == 0 else 1


def product_or_sums(
    function: Function,
    target: View,
    left: View,
    right: View,
    panels: Buffer | None,
    accumulate: bool = False,
    units: int | None = None,
    begin: View | None = None,
) -> None:
    """Write a product as `product` does, but with a single column as loops: most of a panel would be for nothing."""
    if target.shape[-1] != 1:
        product(function, target, left, right, panels, accumulate, turning=True, units=units, begin=begin)
        return
    left, right, target = flattened(left, right, target)
    left, right = (_leading(view, target.shape[:-2]) for view in (left, right))
    function.share()
    function.reassociates = True
    rows = text_of(target.shape[-2])

    def product_of(i: Sequence[str], k: str = "k") -> str:
        one, other = function.load(left, [*i, "r", k]), function.load(right, [*i, k, "0"])
        return f"{one.text} * {other.text}"

    with function.nest(target.shape[:-2]) as i:
        function.add(f"first = part({rows}, rank, size)")
        function.add(f"last = part({rows}, rank + 1, size)")
        if left.strides[-1] == 1:  # a sum along each row
            function.add("for r in range(first, last):")
            function.depth += 1
            function.add("total = F(0)")
            with function.loop("k", left.shape[-1]):
                function.add(f"total += {product_of(i)}")
            function.store(target, [*i, "r", "0"], "total", accumulate)
            function.depth -= 1
            return
        if not accumulate:
            function.add("for r in range(first, last):")
            function.add(f"    {function.pointer(target.buffer)}[{function.place(target, [*i, 'r', '0'])}] = F(0)")
        for places in function.by_fours("k", left.shape[-1]):  # row upon row of the transposed matrix
            function.add("for r in range(first, last):")
            function.depth += 1
            function.store(target, [*i, "r", "0"], " + ".join(product_of(i, k) for k in places), accumulate=True)
            function.depth -= 1


def _stride(view: View, axis: int) -> Length:
    return view.strides[axis]


def flattened(left: View, right: View, target: View) -> tuple[View, View, View]:
    """Make one product of many with the same right operand, where the rows of the left one follow each other."""
    if len(right.shape) != 2 or len(left.shape) < 3 or len(target.shape) != len(left.shape):
        return left, right, target
    rows: Length = left.shape[-2]
    for axis in range(len(left.shape) - 3, -1, -1):
        for view in (left, target):
            inner = times(view.shape[axis + 1], view.strides[axis + 1])
            if view.strides[axis] != inner:
                return left, right, target
        rows = times(left.shape[axis], rows)
    flat = [View(v.buffer, (rows, v.shape[-1]), v.strides[-2:], v.offset) for v in (left, target)]
    return flat[0], right, flat[1]


def _leading(view: View, leading: Sequence[Length]) -> View:
    """Return the view with as many leading axes as the product has."""
    extra = len(leading) + 2 - len(view.shape)
    return View(view.buffer, (1,) * extra + tuple(view.shape), (0,) * extra + tuple(view.strides), view.offset)


def at(function: Function, view: View, indices: Sequence[str] = ()) -> str:
    place = function.place(view, [*indices, *["0"] * (len(view.shape) - len(indices))])
    pointer = function.pointer(view.buffer)
    return pointer if place == "0" else f"at({pointer}, {place})"


def has_panels(right: View, section: Section) -> bool:
    """Whether a right operand is worth packing: weights, of rank 2, whose size is known.

    For what is computed once a call nothing is packed: it comes before weights are, or reads sums that come after.
    """
    return (
        len(right.shape) == 2
        and right.buffer.space is Space.FIXED
        and not any(isinstance(n, Varying) for n in right.shape)
        and section not in (Section.PREPARE, Section.FINISH)
    )
