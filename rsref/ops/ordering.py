"""Numbers in order: each is compared with each, so that its place is how many come before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rsref.ops.base import kind_of_value, known_lengths, normal_axes
from rsref.ops.indexing import unstack
from rsref.ops.parts import ravel, to_end
from rsref.ops.pointwise import cast, equal, greater, isnan, logical_and, logical_not, logical_or, where
from rsref.ops.reduction import as_float, cast_like, sum
from rsref.ops.structure import concatenate, expand_dims, moveaxis, stack
from rsref.tensor import ConstantSource, Tensor

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
    if not 0 <= k <= n:
        raise ValueError(f"there are no {k} greatest of {n} numbers")
    return list(_in_order(x, ranks, k))


def median(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Any:
    """The number in the middle, or the mean of the two that are; NaN if there is one."""
    return _between("median", x, 0.5, axis, "midpoint", keepdims)


def quantile(
    x: Any, q: Any, axis: int | Sequence[int] | None = None, method: str = "linear", keepdims: bool = False
) -> Any:
    """The number that a part q of all does not exceed, on a line between two of them; NaN if there is one.

    q: a number from 0 to 1, or several in one row, which the first axis of the answer then has.
    method: what stands for a place between two numbers: "linear", "lower", "higher" or "midpoint".
    Errors: ValueError for another q or method; TypeError for one that the step computes.
    """
    return _between("quantile", x, q, axis, method, keepdims)


def percentile(
    x: Any, q: Any, axis: int | Sequence[int] | None = None, method: str = "linear", keepdims: bool = False
) -> Any:
    """The same by q from 0 to 100."""
    return _between("percentile", x, np.true_divide(_known(q), 100), axis, method, keepdims)


METHODS: dict[str, Callable[[Any, Any, float], Any]] = {
    "linear": lambda low, high, part: low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part),
    "lower": lambda low, high, part: low,
    "higher": lambda low, high, part: high,
    "midpoint": lambda low, high, part: 0.5 * (low + high),
}
"""Numbers at a place between two, by the part of the way that it is from the lower one."""


def _between(name: str, x: Any, q: Any, axis: Any, method: str, keepdims: bool) -> Any:
    parts, axes = _known(q), normal_axes(name, axis, x.ndim)
    if method not in METHODS:
        raise ValueError(f"{name}: the method is one of {', '.join(METHODS)}; got {method!r}")
    if parts.ndim > 1 or not parts.size or not ((parts >= 0) & (parts <= 1)).all():
        raise ValueError(f"{name}: q is a part of all numbers, or a row of such; got {q!r}")
    x = to_end(as_float(x), *axes)
    n = math.prod(known_lengths(x.shape[x.ndim - len(axes) :]))
    if n == 0:
        raise ValueError(f"{name}: there are no numbers, of which none is in the middle")
    for _ in axes[1:]:
        x = concatenate(unstack(x, axis=-1), -1)
    values, _ = _sorted(x, -1)

    def at(part: float) -> Any:
        place = part * (n - 1)
        low = math.floor(place)
        own = values[..., low]
        y = own if place == low else METHODS[method](own, values[..., low + 1], place - low)
        y = where(isnan(values[..., -1]), np.nan, y)
        return expand_dims(y, sorted(axes)) if keepdims else y

    return stack([at(float(part)) for part in parts]) if parts.ndim else at(float(parts))


def _known(q: Any) -> Any:
    if isinstance(q, Tensor):
        if not isinstance(q.source, ConstantSource):
            raise TypeError("q is known when the step is drawn, not computed by it")
        q = q.source.value
    return np.asarray(q, np.float64)


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
