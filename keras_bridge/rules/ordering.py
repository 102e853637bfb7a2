"""Rules for numbers in order: each is compared with each, so that its place is how many come before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_bridge.rules.base import Rule, with_attributes
from keras_bridge.rules.structure import lengths_of, to_end
from rsref import ops

MOST = 1024
"""Numbers that are put in order: comparing each with each takes the square of their number."""


def _ranks(x: Any, descending: bool) -> Any:
    """How many numbers of the last axis come before each: the first of equal ones; NaN is above all numbers."""
    (n,) = lengths_of(x.shape[-1:])
    if n > MOST:
        raise ValueError(f"numbers in order have a counterpart up to {MOST} of them; got {n}")
    own, others = ops.expand_dims(x, -1), ops.expand_dims(x, -2)
    first, second = (others, own) if descending else (own, others)
    sooner, equal = ops.greater(first, second), ops.equal(others, own)
    if x.dtype == "float":
        sooner = ops.logical_or(sooner, ops.logical_and(ops.isnan(first), ops.logical_not(ops.isnan(second))))
        equal = ops.logical_or(equal, ops.logical_and(ops.isnan(first), ops.isnan(second)))
    earlier = np.tri(n, k=-1, dtype=bool)  # among equal ones: own in rows
    before = ops.logical_or(sooner, ops.logical_and(equal, earlier))
    return ops.sum(ops.cast(before, "int"), -1)


def _in_order(x: Any, ranks: Any, count: int) -> tuple[Any, Any]:
    """The first numbers of the last axis by their ranks, and their places."""
    there = ops.equal(ops.expand_dims(ranks, -2), np.arange(count)[:, None])
    places = np.arange(x.shape[-1])
    values = ops.cast(ops.sum(ops.where(there, ops.expand_dims(x, -2), 0), -1), x.dtype)
    return values, ops.sum(ops.where(there, places, 0), -1)


def _sorted(x: Any, axis: Any) -> tuple[Any, Any]:
    """Values and places in ascending order, and the axis they are along; of the flattened array without an axis."""
    x, axis = (ops.reshape(x, (-1,)), 0) if axis is None else (x, axis % x.ndim)
    last = to_end(x, axis)
    values, places = _in_order(last, _ranks(last, descending=False), last.shape[-1])
    return ops.moveaxis(values, -1, axis), ops.moveaxis(places, -1, axis)


def _median(x: Any, axis: Any, keepdims: bool) -> Any:
    axes = [int(a) % x.ndim for a in np.atleast_1d(range(x.ndim) if axis is None else axis)]
    x = to_end(ops.cast(x, "float"), *axes)
    kept = x.ndim - len(axes)
    n = int(np.prod(lengths_of(x.shape[kept:])))
    for _ in axes[1:]:
        x = ops.concatenate(ops.unstack(x, axis=-1), -1)
    values, _ = _sorted(x, -1)
    y = 0.5 * (values[..., (n - 1) // 2] + values[..., n // 2])
    y = ops.where(ops.isnan(values[..., -1]), np.nan, y)
    return ops.expand_dims(y, sorted(axes)) if keepdims else y


def _top(x: Any, k: int) -> list[Any]:
    ranks, n = _ranks(x, descending=True), x.shape[-1]
    if k > n:
        raise ValueError(f"there are no {k} greatest of {n} numbers")
    return list(_in_order(x, ranks, k))


RULES: dict[str, Rule] = {
    "Sort": with_attributes(lambda x, axis: _sorted(x, axis)[0], "axis"),
    "Argsort": with_attributes(lambda x, axis: _sorted(x, axis)[1], "axis"),
    "TopK": with_attributes(_top, "k"),
    "Median": with_attributes(_median, "axis", "keepdims"),
}
