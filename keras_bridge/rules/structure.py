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


_axis = ("axis",)
_diagonals = ("offset", "axis1", "axis2")

RULES: dict[str, Rule] = {
    # structure and places
    "Reshape": _reshape,
    "Ravel": plain(ops.ravel),
    "Transpose": with_attributes(ops.transpose, "axes"),
    "Swapaxes": with_attributes(ops.swapaxes, "axis1", "axis2"),
    "Moveaxis": _moveaxis,
    "ExpandDims": with_attributes(ops.expand_dims, *_axis),
    "Squeeze": with_attributes(ops.squeeze, *_axis),
    "BroadcastTo": with_attributes(ops.broadcast_to, "shape"),
    "Concatenate": _concatenate,
    "Hstack": plain(lambda xs: ops.concatenate(xs, 1)),  # vectors make Keras itself fail
    "Dstack": plain(lambda xs: ops.concatenate([ops.expand_dims(x, -1) if x.ndim == 2 else x for x in xs], 2)),
    "Append": with_attributes(ops.append, *_axis),
    "Stack": _stack,
    "Unstack": with_attributes(ops.unstack, "num", "axis"),
    "Split": _split,
    "ArraySplit": with_attributes(ops.array_split, "indices_or_sections", "axis"),
    "Hsplit": _split_along(1),
    "Dsplit": _split_along(2),
    "Repeat": _repeat,
    "Tile": _tile,
    "Pad": _pad,
    "Flip": _flip,
    "Fliplr": plain(lambda x: ops.flip(x, 1)),
    "Flipud": plain(lambda x: ops.flip(x, 0)),
    "Roll": with_attributes(ops.roll, "shift", "axis"),
    "Tril": with_attributes(ops.tril, "k"),
    "Triu": with_attributes(ops.triu, "k"),
    "Diag": with_attributes(ops.diag, "k"),
    "Diff": with_attributes(ops.diff, "n", "axis"),
    "Diagonal": with_attributes(ops.diagonal, *_diagonals),
    "Trace": with_attributes(ops.trace, *_diagonals),
    "GetItem": _get_item,
    "Slice": _slice,
    "SliceUpdate": plain(_slice_update),
    "TakeAlongAxis": with_attributes(ops.take_along_axis, *_axis),
    "Take": with_attributes(ops.take, *_axis),
    "OneHot": _one_hot,
    "MultiHot": _multi_hot,
    "Digitize": _digitize,
}
