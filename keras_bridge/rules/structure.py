"""Rules for operations that move numbers: shapes, parts and places."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_bridge.rules.base import Rule, kind_of, plain, with_attributes
from rsref import ops
from rsref.tensor import Tensor


def _reshape(operation: Any, x: Any) -> Any:
    return ops.reshape(x, operation.newshape)


def _split(operation: Any, x: Any) -> Any:
    return ops.split(x, operation.indices_or_sections, operation.axis)


def _pad(operation: Any, x: Any, constant_values: Any = None) -> Any:
    if operation.mode != "constant":
        raise ValueError(f'pad mode {operation.mode!r} has no counterpart; "constant" has')
    return ops.pad(x, operation.pad_width, 0 if constant_values is None else constant_values)


def _repeat(operation: Any, x: Any) -> Any:
    if operation.axis is None or not isinstance(operation.repeats, int):
        raise ValueError(f"repeat with repeats={operation.repeats!r}, axis={operation.axis!r} has no counterpart")
    return ops.repeat(x, operation.repeats, operation.axis)


def _tile(operation: Any, x: Any) -> Any:
    repeats = operation.repeats if isinstance(operation.repeats, list | tuple) else [operation.repeats]
    return ops.tile(x, [*[1] * (x.ndim - len(repeats)), *repeats])


def _stack(operation: Any, xs: Any) -> Any:
    return ops.stack(xs, operation.axis)


def _concatenate(operation: Any, xs: Any) -> Any:
    return ops.concatenate(xs, operation.axis)


def _one_hot(operation: Any, x: Any) -> Any:
    kind = "float" if operation.dtype is None else kind_of(operation.dtype)
    return ops.cast(ops.one_hot(x, operation.num_classes, operation.axis), kind)


def _multi_hot(operation: Any, x: Any) -> Any:
    return ops.max(_one_hot(operation, x), 1 if x.ndim > 1 else 0)


def _digitize(operation: Any, x: Any, bins: Any) -> Any:
    """In which interval a number is: how many bounds are not above it."""
    return ops.sum(ops.cast(ops.greater_equal(ops.expand_dims(x, -1), bins), "int"), -1)


def _flip(operation: Any, x: Any) -> Any:
    axes = range(x.ndim) if operation.axis is None else np.atleast_1d(operation.axis)
    for axis in axes:
        x = ops.flip(x, int(axis))
    return x


def _moveaxis(operation: Any, x: Any) -> Any:
    """Take the moved axes out of the order and put them in again at their destinations."""
    sources = [int(axis) % x.ndim for axis in np.atleast_1d(operation.source)]
    order = [axis for axis in range(x.ndim) if axis not in sources]
    for destination, source in sorted(zip((int(a) % x.ndim for a in np.atleast_1d(operation.destination)), sources)):
        order.insert(destination, source)
    return ops.transpose(x, order)


def _get_item(operation: Any, x: Any, key: Any) -> Any:
    return ops.get_item(x, tuple(key) if isinstance(key, list) else key)  # as a saved model has it, and Keras reads it


def _roll(operation: Any, x: Any) -> Any:
    if operation.axis is None:
        return ops.reshape_like(_rolled(ops.reshape(x, (-1,)), operation.shift, 0), x)
    axes, shifts = np.atleast_1d(operation.axis), np.atleast_1d(operation.shift)
    for axis, shift in np.broadcast(axes, shifts):
        x = _rolled(x, int(shift), int(axis) % x.ndim)
    return x


def _rolled(x: Any, shift: int, axis: int) -> Any:
    length = x.shape[axis]
    if length is None:
        raise ValueError("an axis of unknown length cannot be rolled")
    before, after = ops.split(x, [length - shift % length], axis)
    return ops.concatenate([after, before], axis)


def _triangle(lower: bool) -> Rule:
    def rule(operation: Any, x: Any) -> Any:
        rows, columns = lengths_of(x.shape[-2:])
        within = np.tri(rows, columns, operation.k if lower else operation.k - 1, dtype=bool)
        return ops.cast(ops.where(within if lower else ~within, x, 0), x.dtype)

    return rule


def lengths_of(shape: Any) -> list[int]:
    """Return known lengths. Errors: ValueError if one is unknown."""
    if None in shape:
        raise ValueError(f"lengths must be known here; got {tuple(shape)}")
    return [int(n) for n in shape]


def _diag(operation: Any, x: Any) -> Any:
    """A vector as a diagonal, or the diagonal of a matrix."""
    k, lengths = operation.k, lengths_of(x.shape)
    if x.ndim == 1:
        n = lengths[0] + abs(k)
        wide = ops.pad(x, ((max(k, 0), max(-k, 0)),))  # a column for each of its places
        return ops.cast(ops.where(np.eye(n, k=k, dtype=bool), wide, 0), x.dtype)
    return _last_diagonal(x, k)


def _last_diagonal(x: Any, k: int) -> Any:
    """The diagonal of the last two axes, or one that many places beside it."""
    rows, columns = lengths_of(x.shape[-2:])
    n = max(0, min(rows + min(k, 0), columns - max(k, 0)))
    own = x[..., max(-k, 0) : max(-k, 0) + n, max(k, 0) : max(k, 0) + n]
    return ops.cast(ops.sum(ops.where(np.eye(n, dtype=bool), own, 0), -2), x.dtype)


def _diagonal(operation: Any, x: Any) -> Any:
    return _last_diagonal(to_end(x, operation.axis1, operation.axis2), operation.offset)


def to_end(x: Any, *axes: int) -> Any:
    """Return x with some axes moved to the end."""
    own = [axis % x.ndim for axis in axes]
    return ops.transpose(x, [axis for axis in range(x.ndim) if axis not in own] + own)


def _along(operation: Any, x: Any, indices: Any) -> Any:
    """For each place of indices, the value of x at that index along an axis."""
    if operation.axis is None:
        x, indices, axis = ops.reshape(x, (-1,)), ops.reshape(indices, (-1,)), 0
    else:
        axis = operation.axis % x.ndim
    (length,) = lengths_of(x.shape[axis : axis + 1])
    places = np.arange(length)
    indices = ops.take(places, to_end(indices, axis), 0)  # which refuses those that are out of range
    there = ops.equal(ops.expand_dims(indices, -1), places)
    found = ops.sum(ops.where(there, ops.expand_dims(to_end(x, axis), -2), 0), -1)
    return ops.moveaxis(ops.cast(found, x.dtype), -1, axis)


def _array_split(operation: Any, x: Any) -> Any:
    """Parts as alike as can be: the first ones are longer by one."""
    parts, axis = operation.indices_or_sections, operation.axis
    if isinstance(parts, int):
        (length,) = lengths_of([x.shape[axis]])
        parts = [length // parts * i + min(i, length % parts) for i in range(1, parts)]
    return ops.split(x, parts, axis)


def _split_along(axis: int) -> Rule:
    return lambda operation, x: ops.split(x, operation.indices_or_sections, min(axis, x.ndim - 1))


def _slice(operation: Any, x: Any, start_indices: Any) -> Any:
    key = []
    for length, start, size in zip(x.shape, _starts(start_indices), operation.shape, strict=True):
        whole = start == 0 and size in (None, -1, length)
        stop = length if size == -1 or None in (length, size) else start + size
        if not whole and (length is None or not 0 <= start <= stop <= length):
            raise ValueError(f"a slice from {start} of {size} values has no counterpart in an axis of length {length}")
        key.append(slice(None) if whole else slice(start, stop))
    return x[tuple(key)]


def _slice_update(x: Any, start_indices: Any, updates: Any) -> Any:
    """x with other values from some place on."""
    widths, within = [], np.ones((), bool)
    for length, start, size in zip(x.shape, _starts(start_indices), updates.shape, strict=True):
        if length is None and size is None and start == 0:
            widths.append((0, 0))
            within = np.expand_dims(within, -1)
            continue
        if None in (length, size) or not 0 <= start <= length - size:
            raise ValueError(f"{size} values from place {start} on cannot be set in an axis of length {length}")
        widths.append((start, length - size - start))
        places = np.arange(length)
        within = np.expand_dims(within, -1) & (places >= start) & (places < start + size)
    return ops.where(within, ops.cast(ops.pad(updates, widths), x.dtype), x)


def _starts(indices: Any) -> list[int]:
    """Where a slice begins, if the step says it."""
    if isinstance(indices, Tensor) or any(isinstance(i, Tensor) for i in indices):
        raise ValueError("a slice whose place is computed has no counterpart; take_along_axis has")
    return [int(i) for i in indices]


def _diff(operation: Any, x: Any) -> Any:
    for _ in range(operation.n):
        first = [slice(None)] * x.ndim
        last = list(first)
        first[operation.axis], last[operation.axis] = slice(None, -1), slice(1, None)
        x = x[tuple(last)] - x[tuple(first)]
    return x


def _append(operation: Any, x: Any, y: Any) -> Any:
    if operation.axis is None:
        return ops.concatenate([ops.reshape(x, (-1,)), ops.reshape(y, (-1,))], 0)
    return ops.concatenate([x, y], operation.axis)


_axis = ("axis",)

RULES: dict[str, Rule] = {
    # structure and places
    "Reshape": _reshape,
    "Ravel": plain(lambda x: ops.reshape(x, (-1,))),
    "Transpose": with_attributes(ops.transpose, "axes"),
    "Swapaxes": with_attributes(ops.swapaxes, "axis1", "axis2"),
    "Moveaxis": _moveaxis,
    "ExpandDims": with_attributes(ops.expand_dims, *_axis),
    "Squeeze": with_attributes(ops.squeeze, *_axis),
    "BroadcastTo": with_attributes(ops.broadcast_to, "shape"),
    "Concatenate": _concatenate,
    "Hstack": plain(lambda xs: ops.concatenate(xs, 1)),  # vectors make Keras itself fail
    "Dstack": plain(lambda xs: ops.concatenate([ops.expand_dims(x, -1) if x.ndim == 2 else x for x in xs], 2)),
    "Append": _append,
    "Stack": _stack,
    "Unstack": with_attributes(ops.unstack, "num", "axis"),
    "Split": _split,
    "ArraySplit": _array_split,
    "Hsplit": _split_along(1),
    "Dsplit": _split_along(2),
    "Repeat": _repeat,
    "Tile": _tile,
    "Pad": _pad,
    "Flip": _flip,
    "Fliplr": plain(lambda x: ops.flip(x, 1)),
    "Flipud": plain(lambda x: ops.flip(x, 0)),
    "Roll": _roll,
    "Tril": _triangle(lower=True),
    "Triu": _triangle(lower=False),
    "Diag": _diag,
    "Diff": _diff,
    "Diagonal": _diagonal,
    "Trace": lambda operation, x: ops.sum(_diagonal(operation, x), -1),
    "GetItem": _get_item,
    "Slice": _slice,
    "SliceUpdate": plain(_slice_update),
    "TakeAlongAxis": _along,
    "Take": with_attributes(ops.take, *_axis),
    "OneHot": _one_hot,
    "MultiHot": _multi_hot,
    "Digitize": _digitize,
}
