"""Parts of arrays in another order or place, drawn of ops of structure, under NumPy's names."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rsref.ops.base import kind_of_value, known_lengths, normal_axis
from rsref.ops.indexing import split, take
from rsref.ops.pointwise import equal, not_equal, where
from rsref.ops.reduction import cast_like, sum
from rsref.ops.structure import concatenate, expand_dims, moveaxis, pad, reshape, reshape_like, transpose


def to_end(x: Any, *axes: int) -> Any:
    """Return x with some axes moved to the end."""
    own = [normal_axis("moved to the end", axis, x.ndim) for axis in axes]
    return transpose(x, [axis for axis in range(x.ndim) if axis not in own] + own)


def ravel(x: Any) -> Any:
    """All numbers in one axis, those of the batch among them."""
    return reshape(x, (-1,))


def roll(x: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Any:
    """x moved along axes; what falls off at the end comes in at the beginning. All numbers are one row without axes."""
    if axis is None:
        return reshape_like(_rolled(ravel(x), int(np.sum(shift)), 0), x)
    for one, by in np.broadcast(np.atleast_1d(axis), np.atleast_1d(shift)):
        x = _rolled(x, int(by), normal_axis("roll", int(one), x.ndim))
    return x


def _rolled(x: Any, shift: int, axis: int) -> Any:
    (length,) = known_lengths(x.shape[axis : axis + 1])
    if length == 0:
        return x
    before, after = split(x, [length - shift % length], axis)
    return concatenate([after, before], axis)


def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """What each number has more than the one before along an axis, n times over; of bools, whether it is another."""
    if n < 0:
        raise ValueError(f"diff: n must not be negative; got {n}")
    axis = normal_axis("diff", axis, x.ndim)
    for _ in range(n):
        first = [slice(None)] * x.ndim
        last = list(first)
        first[axis], last[axis] = slice(None, -1), slice(1, None)
        later, sooner = x[tuple(last)], x[tuple(first)]
        x = not_equal(later, sooner) if kind_of_value(x) == "bool" else later - sooner
    return x


def append(x: Any, values: Any, axis: int | None = None) -> Any:
    """Both along an axis; all numbers of both without one."""
    return concatenate([ravel(x), ravel(values)], 0) if axis is None else concatenate([x, values], axis)


def array_split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Parts as alike as can be: the first ones are longer by one."""
    if not isinstance(indices_or_sections, Iterable):
        parts = operator.index(indices_or_sections)
        if parts < 1:
            raise ValueError(f"array_split: there must be at least one part; got {parts}")
        (length,) = known_lengths((x.shape[normal_axis("array_split", axis, x.ndim)],))
        indices_or_sections = [length // parts * i + min(i, length % parts) for i in range(1, parts)]
    return split(x, indices_or_sections, axis)


def hstack(xs: Sequence[Any]) -> Any:
    """Arrays side by side: along the second axis, vectors along their own."""
    return concatenate(xs, 1 if xs[0].ndim > 1 else 0)


def tril(x: Any, k: int = 0) -> Any:
    """The lower triangle of matrices, zeros above the diagonal, or above one that many places beside it."""
    return cast_like(where(_below(x, k), x, 0), x)


def triu(x: Any, k: int = 0) -> Any:
    """The upper triangle of matrices, zeros below the diagonal, or below one that many places beside it."""
    return cast_like(where(~_below(x, k - 1), x, 0), x)


def _below(x: Any, k: int) -> np.ndarray:
    rows, columns = known_lengths(x.shape[-2:])
    return np.tri(rows, columns, k, dtype=bool)


def diag(x: Any, k: int = 0) -> Any:
    """A vector as a diagonal, or the diagonal of a matrix."""
    if x.ndim != 1:
        return _last_diagonal(x, k)
    n = known_lengths(x.shape)[0] + abs(k)
    wide = pad(x, ((max(k, 0), max(-k, 0)),))  # a column for each of its places
    return cast_like(where(np.eye(n, k=k, dtype=bool), wide, 0), x)


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal of two axes as the last one, or one that many places beside it."""
    return _last_diagonal(to_end(x, axis1, axis2), offset)


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of the diagonal of two axes."""
    return sum(diagonal(x, offset, axis1, axis2), -1)


def _last_diagonal(x: Any, k: int) -> Any:
    rows, columns = known_lengths(x.shape[-2:])
    n = max(0, min(rows + min(k, 0), columns - max(k, 0)))
    own = x[..., max(-k, 0) : max(-k, 0) + n, max(k, 0) : max(k, 0) + n]
    return cast_like(sum(where(np.eye(n, dtype=bool), own, 0), -2), x)


def take_along_axis(x: Any, indices: Any, axis: int | None) -> Any:
    """For each place of indices, the value of x at that index along an axis; ValueError for one out of range."""
    if axis is None:
        x, indices, axis = ravel(x), ravel(indices), 0
    axis = normal_axis("take_along_axis", axis, x.ndim)
    (length,) = known_lengths((x.shape[axis],))
    places = np.arange(length)
    indices = take(places, to_end(indices, axis), 0)  # which refuses those that are out of range
    there = equal(expand_dims(indices, -1), places)
    found = sum(where(there, expand_dims(to_end(x, axis), -2), 0), -1)
    return moveaxis(cast_like(found, x), -1, axis)
