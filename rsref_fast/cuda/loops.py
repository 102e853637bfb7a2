"""The loops of ops whose loops for one thread would have to wait for each other: here each element has one thread.

Everything else is written by `rsref_fast.cpu.loops`, whose independent loops a `TeamFunction` shares.
"""

from __future__ import annotations

from collections.abc import Sequence

from rsref.ops.linear import split_equation
from rsref.tensor import Tensor
from rsref_fast.cpu import loops, products
from rsref_fast.cpu.loops import checked_index, folded_like, folded_over
from rsref_fast.cpu.text import Function
from rsref_fast.cuda.text import TeamFunction, unravelled
from rsref_fast.expressions import cast, literal
from rsref_fast.lengths import Length, Varying, text_of, times
from rsref_fast.views import Buffer, View

LONG = 64
"""Elements of a row that a block of threads adds up; fewer are one thread's."""


ABREAST = 8
"""Columns that a block adds up at a time: 32 bytes of float32, which memory gives at once."""


def _zero(kind: str) -> str:
    return "F(0)" if kind == "float" else "0"


def _placed(
    function: Function, target: View, source: View, bounds: Sequence[tuple[int | None, int | None, int]], value: str
) -> None:
    """Write a source to a slice of the target, and a value everywhere else."""
    with function.independent(target.shape) as i:
        tests, inner = [], list(i)
        for axis, (length, (start, stop, step)) in enumerate(zip(target.shape, bounds)):
            if (start, stop, step) == (None, None, 1):
                continue
            if isinstance(length, Varying):
                raise NotImplementedError("a slice of the batch has no kernel")
            span = range(*slice(start, stop, step).indices(length))
            first, last = (span[0], span[-1]) if len(span) else (1, 0)
            low, high, stride = min(first, last), max(first, last), abs(step)
            tests.append(f"{i[axis]} >= {low} and {i[axis]} <= {high}" if len(span) else "False")
            if stride > 1:
                tests.append(f"({i[axis]} - {low}) % {stride} == 0")
            inner[axis] = f"({i[axis]} - {low})" if step > 0 else f"({high} - {i[axis]})"
            if stride > 1:
                inner[axis] = f"({inner[axis]} // {stride})"
        function.add(f"if {' and '.join(tests) or 'True'}:")
        function.depth += 1
        function.store(target, i, cast(function.load(source, inner), target.buffer.kind).text)
        function.depth -= 1
        if tests:
            function.add("else:")
            function.depth += 1
            function.store(target, i, value)
            function.depth -= 1


def _put_slice(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    _placed(function, target, sources[0], tensor.attrs["bounds"], _zero(tensor.dtype))


def _pad(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    bounds = []
    for pads, length in zip(tensor.attrs["pads"], target.shape):
        if pads != (0, 0) and isinstance(length, Varying):
            raise NotImplementedError("padding of the batch has no kernel")
        bounds.append((None, None, 1) if pads == (0, 0) else (pads[0], length - pads[1], 1))
    _placed(function, target, sources[0], bounds, literal(tensor.attrs["value"], tensor.dtype).text)


def _add_up(function: Function, source: View, folded: View, axes: Sequence[int], accumulate: bool) -> None:
    """Sum over axes, each result by one thread, in the order of the elements; long rows by a block of threads."""
    kind = folded.buffer.kind
    if kind == "float" and _long_rows(source, axes):
        _add_rows_up(function, source, folded, axes, accumulate)
        return
    if kind == "float" and _high_columns(function, source, axes):
        _add_columns_up(function, source, folded, axes, accumulate)
        return
    with function.independent(source.shape, [a for a in range(len(source.shape)) if a not in axes]) as outside:
        function.add(f"total = {_zero(kind)}")
        with function.nest(source.shape, axes=axes, prefix="k") as i:
            both = [o if a not in axes else j for a, (o, j) in enumerate(zip(outside, i))]
            function.add(f"total += {cast(function.load(source, both), kind).text}")
        function.store(folded, outside, "total", accumulate)


def _long_rows(source: View, axes: Sequence[int]) -> bool:
    """Whether axes are the last ones, with elements enough for a block of threads."""
    rank, length = len(source.shape), times(1, *(source.shape[axis] for axis in axes))
    return sorted(axes) == [*range(rank - len(axes), rank)] and isinstance(length, int) and length >= LONG


def _add_rows_up(function: Function, source: View, folded: View, axes: Sequence[int], accumulate: bool) -> None:
    assert isinstance(function, TeamFunction)
    axes = sorted(axes)
    with function.per_block(source.shape, [a for a in range(len(source.shape)) if a not in axes]) as outside:
        both = [*outside]
        function.add("total = F(0)")
        with function.strides("k", "thread()", text_of(times(1, *(source.shape[a] for a in axes))), "threads()"):
            unravelled(function, both, [a for a in axes if source.shape[a] != 1], source.shape, "k", prefix="k")
            function.add(f"total += {cast(function.load(source, both), 'float').text}")
        function.add("total = sum_in_block(total, 1)")
        function.add("if thread() == 0:")
        function.depth += 1
        function.store(folded, outside, "total", accumulate)


def _high_columns(function: Function, source: View, axes: Sequence[int]) -> bool:
    """Whether axes are the first ones, of what is computed for the rows of many steps, and others are left."""
    assert isinstance(function, TeamFunction)
    return function.many_rows and sorted(axes) == [*range(len(axes))] and 0 < len(axes) < len(source.shape)


def _add_columns_up(function: Function, source: View, folded: View, axes: Sequence[int], accumulate: bool) -> None:
    """Sum over rows: a block has eight columns at a time, which are side by side in memory; its threads share rows."""
    assert isinstance(function, TeamFunction)
    function.share()
    shape, axes = source.shape, sorted(axes)
    left = [a for a in range(len(shape)) if a not in axes and shape[a] != 1]
    columns, rows = (text_of(times(1, *(shape[a] for a in some))) for some in (left, axes))
    both = ["0"] * len(shape)
    with function.strides("b", "block()", f"quotient({columns} + {ABREAST - 1}, {ABREAST})", "blocks()"):
        function.add(f"e = b * {ABREAST} + remainder(thread(), {ABREAST})")
        function.add("total = F(0)")
        function.add(f"if e < {columns} and thread() < quotient(threads(), {ABREAST}) * {ABREAST}:")
        function.depth += 1
        unravelled(function, both, left, shape, "e")
        with function.strides("k", f"quotient(thread(), {ABREAST})", rows, f"quotient(threads(), {ABREAST})"):
            unravelled(function, both, [a for a in axes if shape[a] != 1], shape, "k", prefix="k")
            function.add(f"total += {cast(function.load(source, both), 'float').text}")
        function.depth -= 1
        function.add(f"total = sum_in_block(total, {ABREAST})")
        function.add(f"if e < {columns} and thread() < {ABREAST}:")
        function.depth += 1
        unravelled(function, both, left, shape, "e")
        function.store(folded, both, "total", accumulate)


def _sum(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    axes = tensor.attrs["axes"]
    _add_up(function, sources[0], folded_over(sources[0], target, axes, tensor.attrs["keepdims"]), axes, accumulate)


def _sum_to_like(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    axes, folded = folded_like(sources[0], target)
    _add_up(function, sources[0], folded, axes, accumulate)


def _put_add(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    """Each thread has its own places beside the indexed axis, and adds to them in the order of the indices."""
    source, indices = sources[:2]
    axis, rank = tensor.attrs["axis"], len(indices.shape)
    outer = [a for a in range(len(source.shape)) if not axis <= a < axis + rank]
    with function.independent(source.shape, outer) as o:
        before, after = o[:axis], o[axis + rank :]
        if not accumulate:
            with function.nest(target.shape, axes=[axis], prefix="k") as k:
                function.store(target, [*before, k[axis], *after], _zero(tensor.dtype))
        with function.nest(source.shape, axes=range(axis, axis + rank), prefix="k") as k:
            within = k[axis : axis + rank]
            if checked_index(function, function.load(indices, within).text, target.shape[axis]):
                value = function.load(source, [*before, *within, *after])
                function.store(target, [*before, "j", *after], value.text, accumulate=True)


def _put_windows(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    """Each thread has a sample and a channel, and adds its windows one after the other."""
    (source, _), attrs = sources, tensor.attrs
    spatial = len(attrs["size"])
    inner = range(1, len(source.shape) - 1)
    with function.independent(source.shape, [0, len(source.shape) - 1]) as o:
        with function.nest(target.shape, axes=range(1, 1 + spatial), prefix="k") as k:
            function.store(target, [o[0], *k[1 : 1 + spatial], o[-1]], "F(0)")
        with function.nest(source.shape, axes=inner, prefix="k") as k:
            places = [
                f"({p}*{s} + {w}*{d})"
                for p, w, s, d in zip(k[1 : 1 + spatial], k[1 + spatial : -1], attrs["strides"], attrs["dilation"])
            ]
            value = function.load(source, [o[0], *k[1:-1], o[-1]])
            function.store(target, [o[0], *places, o[-1]], value.text, accumulate=True)


def _einsum(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    terms, result = split_equation(tensor.attrs["equation"])
    lengths: dict[str, Length] = {}
    for term, view in zip((*terms, result), (*sources, target)):
        lengths.update(zip(term, view.shape))
    summed = [letter for letter in lengths if letter not in result]
    with function.independent(target.shape) as i:
        index = dict(zip(result, i))
        index.update({letter: f"e{letter}" if lengths[letter] != 1 else "0" for letter in summed})
        function.add("total = F(0)")
        depth = function.depth
        for letter in summed:
            if lengths[letter] != 1:
                function.add(f"for e{letter} in range({text_of(lengths[letter])}):")
                function.depth += 1
        factors = [function.load(view, [index[letter] for letter in term]).text for term, view in zip(terms, sources)]
        function.add(f"total += {' * '.join(factors)}")
        function.depth = depth
        function.store(target, i, "total", accumulate)


def _take(function: Function, tensor: Tensor, target: View, sources: Sequence[View], accumulate: bool) -> None:
    source, indices = sources
    axis, rank = tensor.attrs["axis"], len(indices.shape)
    with function.independent(target.shape) as i:
        if checked_index(function, function.load(indices, i[axis : axis + rank]).text, source.shape[axis]):
            function.store(target, i, function.load(source, [*i[:axis], "j", *i[axis + rank :]]).text)


RULES: dict[str, loops.Emitter] = {
    **loops.RULES,
    "put_slice": _put_slice,
    "pad": _pad,
    "sum": _sum,
    "sum_to_like": _sum_to_like,
    "put_add": _put_add,
    "put_windows": _put_windows,
    "einsum": _einsum,
    "take": _take,
}


def product(
    function: Function,
    target: View,
    left: View,
    right: View,
    panels: Buffer | None,
    accumulate: bool = False,
    units: int | None = None,
    begin: View | None = None,
) -> None:
    """Write a matrix product: of two matrices by tiles, of many small ones each element by one thread."""
    left, right, target = products.flattened(left, right, target)
    if len(target.shape) == 2:
        products.product(function, target, left, right, panels, accumulate)
        return
    with function.independent(target.shape) as i:
        function.add("total = F(0)")
        with function.loop("k", left.shape[-1]):
            a = function.load(left, [*i[:-1], "k"]).text
            b = function.load(right, [*i[:-2], "k", i[-1]]).text
            function.add(f"total += {a} * {b}")
        function.store(target, i, "total", accumulate)
