"""Numbers in order: each is compared with each, so that its place is how many come before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsref.ops.base import kind_of_value, known_lengths, normal_axes
from rsref.ops.indexing import unstack
from rsref.ops.parts import ravel, to_end
from rsref.ops.pointwise import cast, equal, greater, isnan, logical_and, logical_not, logical_or, where
from rsref.ops.reduction import as_float, cast_like, sum
from rsref.ops.structure import concatenate, expand_dims, moveaxis

MOST = 1024
"""Numbers that are put in order: comparing each with each takes the square of their number."""


def sort(x: Any, axis: int | None = -1) -> Any:
    """Numbers in ascending order along an axis, NaN at the end; all of them without one."""
    return _sorted(x, axis)[0]


def argsort(x: Any, axis: int | None = -1) -> Any:
    """The places of the numbers that `sort` answers; equal ones stay in order."""
    return _sorted(x, axis)[1]


def top_k(x: Any, k: int) -> list[Any]:
    """The k greatest numbers of the last axis, the greatest first, and their places."""
    ranks, n = _ranks(x, descending=True), x.shape[-1]
    if k > n:
        raise ValueError(f"there are no {k} greatest of {n} numbers")
    return list(_in_order(x, ranks, k))


def median(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Any:
    """The number in the middle, or the mean of the two that are; NaN if there is one."""
    axes = normal_axes("median", axis, x.ndim)
    x = to_end(as_float(x), *axes)
    n = math.prod(known_lengths(x.shape[x.ndim - len(axes) :]))
    if n == 0:
        raise ValueError("median: there are no numbers, of which none is in the middle")
    for _ in axes[1:]:
        x = concatenate(unstack(x, axis=-1), -1)
    values, _ = _sorted(x, -1)
    y = 0.5 * (values[..., (n - 1) // 2] + values[..., n // 2])
    y = where(isnan(values[..., -1]), np.nan, y)
    return expand_dims(y, sorted(axes)) if keepdims else y


def _ranks(x: Any, descending: bool) -> Any:
    """How many numbers of the last axis come before each: the first of equal ones; NaN is above all numbers."""
    (n,) = known_lengths(x.shape[-1:])
    if n > MOST:
        raise ValueError(f"numbers are put in order up to {MOST} of them; got {n}")
    own, others = expand_dims(x, -1), expand_dims(x, -2)
    first, second = (others, own) if descending else (own, others)
    sooner, alike = greater(first, second), equal(others, own)
    if kind_of_value(x) == "float":
        sooner = logical_or(sooner, logical_and(isnan(first), logical_not(isnan(second))))
        alike = logical_or(alike, logical_and(isnan(first), isnan(second)))
    earlier = np.tri(n, k=-1, dtype=bool)  # among equal ones: own in rows
    return sum(cast(logical_or(sooner, logical_and(alike, earlier)), "int"), -1)


def _in_order(x: Any, ranks: Any, count: int) -> tuple[Any, Any]:
    """The first numbers of the last axis by their ranks, and their places."""
    there = equal(expand_dims(ranks, -2), np.arange(count)[:, None])
    values = cast_like(sum(where(there, expand_dims(x, -2), 0), -1), x)
    return values, sum(where(there, np.arange(x.shape[-1]), 0), -1)


def _sorted(x: Any, axis: int | None) -> tuple[Any, Any]:
    """Values and places in ascending order along an axis; of all numbers without one."""
    x, axis = (ravel(x), 0) if axis is None else (x, axis)
    last = to_end(x, axis)
    values, places = _in_order(last, _ranks(last, descending=False), last.shape[-1])
    return moveaxis(values, -1, axis), moveaxis(places, -1, axis)
