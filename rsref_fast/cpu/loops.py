"""The loops of each op that is not pointwise: reductions, products, gathers, windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from rsref.ops.linear import split_equation
from rsref.tensor import Tensor
from rsref_fast.cpu.indices import INDEX, LENGTH, REFUSED, SAID
from rsref_fast.cpu.text import Function
from rsref_fast.expressions import cast, literal
from rsref_fast.lengths import Length, number, plus, text_of, times
from rsref_fast.views import View, row_major, sliced, view_of_op

Emitter = Callable[[Function, Tensor, View, Sequence[View], bool], None]


def emit(
    function: Function,
    tensor: Tensor,
    target: View,
    sources: Sequence[View],
    accumulate: bool = False,
    rules: Mapping[str, Emitter] | None = None,
) -> None:
    """Write the loops that compute a tensor from its operands.

    accumulate: add to what the target holds, as the sum over blocks of samples needs it.
    rules: the loops by op, if not those of this module.
    Errors: NotImplementedError for an op that has no loops, or cannot add to its target.
    """
    name = tensor.op_name
    rule = (RULES if rules is None else rules).get(name)
    moved = view_of_op(tensor, sources[0], target.shape) if rule is None and sources else None
    if moved is not None:
        shared_copy(function, target, moved, accumulate)
        return
    if rule is None or (accumulate and name not in ADDING):
        which = " that adds up over blocks" if accumulate else ""
        raise NotImplementedError(f"op {name!r} has no kernel{which}: run this step with the reference engine")
    rule(function, tensor, target, sources, accumulate)


def fill(function: Function, target: View, value: str) -> None:
    with function.independent(target.shape) as i:
        function.store(target, i, value)


def copy(function: Function, target: View, source: View) -> None:
    """Copy elements; the source may be broadcast, and of another shape with as many elements if it is row-major."""
    _copy_in(function.independent(target.shape), function, target, source, False)


def shared_copy(function: Function, target: View, source: View, accumulate: bool = False) -> None:
    """Copy elements as `copy` does, a part of them for each thread of a team."""
    _copy_in(function.shared_nest(target.shape), function, target, source, accumulate)


def _copy_in(
    nest: AbstractContextManager[list[str]], function: Function, target: View, source: View, accumulate: bool
) -> None:
    with nest as i:
        value = cast(function.load(source, i), target.buffer.kind)
        function.store(target, i, value.text, accumulate)


def _moved(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    """A reshape: the operand's elements in row-major order."""
    copy(function, replace(target, shape=sources[0].shape, strides=row_major(sources[0].shape)), sources[0])


def _concatenate(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    axis, start = tensor.attrs["axis"], 0
    text = ""
    shared = all(any(length != 1 for length in source.shape) for source in sources)  # one element has no parts
    nest = function.shared_nest if shared else function.independent
    for source in sources:
        length = source.shape[axis]
        if not _in_place(source, target, axis, start):
            with nest(source.shape) as i:
                moved = list(i)
                begin = f"{text} + {start}" if text else str(start)
                moved[axis] = f"({i[axis]} + {begin})" if begin != "0" else i[axis]
                function.store(target, moved, cast(function.load(source, i), tensor.dtype).text)
        if isinstance(length, int):
            start += length
        else:
            text = f"{text} + {text_of(length)}" if text else text_of(length)


def _in_place(source: View, target: View, axis: int, start: int) -> bool:
    """Whether a part of a concatenation was computed where it stands in it."""
    return source.buffer is target.buffer and source.offset == plus(target.offset, times(start, target.strides[axis]))


def _put_slice(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    fill(function, target, "F(0)" if tensor.dtype == "float" else "0")
    part = sliced(target, tensor.attrs["bounds"], target.shape)
    lengths = [
        len(range(*slice(*b).indices(n))) if isinstance(n, int) else n
        for n, b in zip(target.shape, tensor.attrs["bounds"])
    ]
    copy(function, replace(part, shape=tuple(lengths)), sources[0])


def _pad(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    fill(function, target, literal(tensor.attrs["value"], tensor.dtype).text)
    pads = tensor.attrs["pads"]
    bounds = [(None, None, 1) if p == (0, 0) else (p[0], number(n) - p[1], 1) for p, n in zip(pads, target.shape)]
    copy(function, sliced(target, bounds, sources[0].shape), sources[0])


def folded_over(source: View, target: View, axes: Sequence[int], keepdims: bool) -> View:
    """Return the result's view with the axes of the operand; folded axes do not move in it."""
    kept = iter(zip(target.shape, target.strides))
    shape: list[Length] = []
    strides: list[Length] = []
    for axis in range(len(source.shape)):
        if axis in axes:
            if keepdims:
                next(kept)
            shape.append(source.shape[axis])
            strides.append(0)
        else:
            length, stride = next(kept)
            shape.append(length)
            strides.append(stride)
    return replace(target, shape=tuple(shape), strides=tuple(strides))


def _sum(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    axes = tensor.attrs["axes"]
    _add_up(
        function, sources[0], target, axes, folded_over(sources[0], target, axes, tensor.attrs["keepdims"]), accumulate
    )


def folded_like(source: View, target: View) -> tuple[list[int], View]:
    """Return the axes over which an operand is summed to a result's shape, and the result's view with all its axes."""
    extra = len(source.shape) - len(target.shape)
    axes = [*range(extra)] + [
        i + extra for i, (n, m) in enumerate(zip(target.shape, source.shape[extra:])) if n == 1 and m != 1
    ]
    strides = (0,) * extra + tuple(0 if i + extra in axes else s for i, s in enumerate(target.strides))
    return axes, replace(target, shape=source.shape, strides=strides)


def _sum_to_like(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    axes, folded = folded_like(sources[0], target)
    _add_up(function, sources[0], target, axes, folded, accumulate)


def _add_up(
    function: Function, source: View, target: View, axes: Sequence[int], folded: View, accumulate: bool
) -> None:
    """Sum over axes: in a register if the last one is folded, else row upon row into the target."""
    function.reassociates = True
    rank = len(source.shape)
    kind = target.buffer.kind
    zero = "F(0)" if kind == "float" else "0"
    inner = [a for a in axes if source.shape[a] != 1]
    if rank - 1 in inner or not inner:
        with function.independent(source.shape, [a for a in range(rank) if a not in axes]) as outside:
            function.add(f"total = {zero}")
            with function.nest(source.shape, axes=axes) as i:
                both = [o if a not in axes else j for a, (o, j) in enumerate(zip(outside, i))]
                function.add(f"total += {cast(function.load(source, both), kind).text}")
            function.store(folded, outside, "total", accumulate)
        return
    *_, rows = inner
    nest = function.shared_nest if any(length != 1 for length in source.shape[rows + 1 :]) else function.nest
    if not accumulate:
        with nest(target.shape) as i:
            function.store(target, i, zero)
    for places in function.shared_fours(source.shape, rows):
        values = [cast(function.load(source, index), kind).text for index in places]
        function.store(folded, places[0], " + ".join(values), accumulate=True)


def _extreme(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    (source,), axes = sources, tensor.attrs["axes"]
    folded = folded_over(source, target, axes, tensor.attrs["keepdims"])
    better = "maximum" if tensor.op and tensor.op.name == "max" else "minimum"
    kind = tensor.dtype
    with function.independent(source.shape, [a for a in range(len(source.shape)) if a not in axes]) as outside:
        function.add(f"best = {cast(function.load(source, outside), kind).text}")
        with function.nest(source.shape, axes=axes) as i:
            both = [o if a not in axes else j for a, (o, j) in enumerate(zip(outside, i))]
            function.add(f"best = {better}(best, {cast(function.load(source, both), kind).text})")
        function.store(folded, outside, "best")


def _arg_extreme(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    """The first extreme; NaN counts as more extreme than any number, as in NumPy."""
    (source,), axis = sources, tensor.attrs["axis"]
    sign = ">" if tensor.op and tensor.op.name == "argmax" else "<"
    folded = folded_over(source, target, (axis,), False)
    kind = "float" if tensor.inputs[0].dtype == "float" else "int"
    with function.independent(source.shape, [a for a in range(len(source.shape)) if a != axis]) as outside:
        function.add(f"best = {cast(function.load(source, outside), kind).text}")
        function.add("where = 0")
        with function.loop("k", source.shape[axis]):
            at = [o if a != axis else "k" for a, o in enumerate(outside)]
            function.add(f"value = {cast(function.load(source, at), kind).text}")
            function.add(f"if value {sign} best or (value != value and best == best):")
            function.add("    best = value")
            function.add("    where = k")
        function.store(folded, outside, "where")


def _cumsum(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    (source,), axis = sources, tensor.attrs["axis"]
    with function.independent(source.shape, [a for a in range(len(source.shape)) if a != axis]) as outside:
        function.add(f"total = {'F(0)' if tensor.dtype == 'float' else '0'}")
        with function.loop("k", source.shape[axis]):
            at = [o if a != axis else "k" for a, o in enumerate(outside)]
            function.add(f"total += {cast(function.load(source, at), tensor.dtype).text}")
            function.store(target, at, "total")


def _sparsemax(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    """The threshold is found by leaving out what is below it, until nothing more is (Michelot 1986)."""
    (source,), (axis,) = sources, tensor.attrs["axes"]
    length = text_of(source.shape[axis])
    with function.independent(source.shape, [a for a in range(len(source.shape)) if a != axis]) as outside:
        at = [o if a != axis else "k" for a, o in enumerate(outside)]
        function.add("best = F(-INFINITY)")
        with function.loop("k", source.shape[axis]):
            function.add(f"best = maximum(best, {function.load(source, at).text})")
        value = f"({function.load(source, at).text} - best)"
        function.add("threshold = F(-INFINITY)")
        function.add("before = -1")
        function.add(f"for _ in range({length} + 1):")
        function.depth += 1
        function.add("total = F(0)")
        function.add("count = 0")
        with function.loop("k", source.shape[axis]):
            function.add(f"if not {value} <= threshold:")  # NaN makes the threshold NaN
            function.add(f"    total += {value}")
            function.add("    count += 1")
        function.add("if count == before or count == 0:")  # there are no values at all
        function.add("    break")
        function.add("before = count")
        function.add("threshold = (total - F(1)) / F(count)")
        function.depth -= 1
        with function.loop("k", source.shape[axis]):
            function.add(f"value = {value}")
            function.store(target, at, "(F(0) if value <= threshold else value - threshold)")


def _one_hot(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    one, zero = ("F(1)", "F(0)") if tensor.dtype == "float" else ("1", "0")
    with function.independent(target.shape) as i:
        function.store(target, i, f"({one} if {function.load(sources[0], i[:-1]).text} == {i[-1]} else {zero})")


def checked_index(function: Function, index: str, length: Length) -> bool:
    """Make `j` a valid place: negative ones count from the end; one that is out of range is reported in `N`.

    Answers whether there is a valid place at all.
    """
    if "N" not in function.extra:
        function.extra.append("N")
    function.add(f"j = {index}")
    function.add("if j < 0:")
    function.add(f"    j += {text_of(length)}")
    function.add(f"if j < 0 or j >= {text_of(length)}:")
    function.add(f"    if N[{REFUSED}] == 0:")
    function.add(f"        N[{INDEX}] = {index}")
    function.add(f"        N[{LENGTH}] = {text_of(length)}")
    function.add(f"    {SAID}")
    function.add("    j = 0")
    return length != 0


def _take(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    source, indices = sources
    axis, rank = tensor.attrs["axis"], len(indices.shape)
    with function.independent(target.shape, range(axis + rank)) as i:
        if checked_index(function, function.load(indices, i[axis : axis + rank]).text, source.shape[axis]):
            with function.nest(target.shape, axes=range(axis + rank, len(target.shape))) as k:
                at = [*i[:axis], "j", *k[axis + rank :]]
                function.store(target, [*i[: axis + rank], *k[axis + rank :]], function.load(source, at).text)


def _put_add(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    source, indices = sources[:2]
    axis, rank = tensor.attrs["axis"], len(indices.shape)
    if not accumulate:
        fill(function, target, "F(0)" if tensor.dtype == "float" else "0")
    with function.nest(source.shape, axes=range(axis + rank)) as i:
        if checked_index(function, function.load(indices, i[axis : axis + rank]).text, target.shape[axis]):
            with function.nest(source.shape, axes=range(axis + rank, len(source.shape))) as k:
                value = function.load(source, [*i[: axis + rank], *k[axis + rank :]])
                function.store(target, [*i[:axis], "j", *k[axis + rank :]], value.text, accumulate=True)


def _put_windows(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    (source, _), attrs = sources, tensor.attrs
    spatial = len(attrs["size"])
    fill(function, target, "F(0)")
    with function.nest(source.shape) as i:
        places = [
            f"({p}*{s} + {w}*{d})"
            for p, w, s, d in zip(i[1 : 1 + spatial], i[1 + spatial : -1], attrs["strides"], attrs["dilation"])
        ]
        function.store(target, [i[0], *places, i[-1]], function.load(source, i).text, accumulate=True)


def _einsum(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    """Sums of products; the innermost loop is over the axis along which most operands are contiguous."""
    terms, result = split_equation(tensor.attrs["equation"])
    lengths: dict[str, Length] = {}
    steps: dict[str, int] = {}
    for term, view in zip((*terms, result), (*sources, target)):
        for letter, length, stride in zip(term, view.shape, view.strides):
            lengths[letter] = length
            steps[letter] = steps.get(letter, 0) + (1 if stride == 1 else 0)
    summed = [letter for letter in lengths if letter not in result]
    function.reassociates = True
    best = max(lengths, key=lambda letter: steps[letter]) if lengths else ""

    def at(term: str) -> list[str]:
        return [f"e{letter}" if lengths[letter] != 1 else "0" for letter in term]

    def product() -> str:
        return " * ".join(function.load(view, at(term)).text for term, view in zip(terms, sources))

    def opened(letters: Sequence[str]) -> int:
        depth = function.depth
        for letter in letters:
            if lengths[letter] != 1:
                function.add(f"for e{letter} in range({text_of(lengths[letter])}):")
                function.depth += 1
        return depth

    if best in summed or not summed:
        outer = opened(result)
        function.add("total = F(0)")
        inner = opened([*(letter for letter in summed if letter != best), *([best] if best in summed else [])])
        function.add(f"total += {product()}")
        function.depth = inner
        function.store(target, at(result), "total", accumulate)
        function.depth = outer
        return
    if not accumulate:
        fill(function, target, "F(0)")
    *before, rows = summed
    outer = opened([*(letter for letter in result if letter != best), *before])
    for places in function.by_fours(f"e{rows}", lengths[rows]):
        inner = opened([best])
        values = [product().replace(f"e{rows}", place) for place in places]
        function.store(target, at(result), " + ".join(values), accumulate=True)
        function.depth = inner
    function.depth = outer


RULES: dict[str, Emitter] = {
    "reshape": _moved,
    "reshape_like": _moved,
    "concatenate": _concatenate,
    "put_slice": _put_slice,
    "pad": _pad,
    "sum": _sum,
    "sum_to_like": _sum_to_like,
    "max": _extreme,
    "min": _extreme,
    "argmax": _arg_extreme,
    "argmin": _arg_extreme,
    "cumsum": _cumsum,
    "sparsemax": _sparsemax,
    "one_hot": _one_hot,
    "take": _take,
    "put_add": _put_add,
    "put_windows": _put_windows,
    "einsum": _einsum,
}

ADDING = ("sum", "sum_to_like", "einsum", "put_add")
"""Ops that can add to what their target holds; so can matrix products, in `products`."""
