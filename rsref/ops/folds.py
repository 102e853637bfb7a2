"""Reductions drawn of sums, extremes and products, under NumPy's names; some pass over values that are not numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from rsref.ops.base import compatible, kind_of_value, normal_axes, normal_axis
from rsref.ops.elementary import ones_like
from rsref.ops.indexing import unstack
from rsref.ops.parts import ravel
from rsref.ops.pointwise import (
    absolute,
    broadcast_like,
    cast,
    equal,
    isnan,
    logical_not,
    multiply,
    not_equal,
    power,
    sqrt,
    square,
    where,
)
from rsref.ops.reduction import as_float, cast_like, cumsum, max, mean, min, sum
from rsref.ops.structure import expand_dims, reshape, stack
from rsref.tensor import Tensor

Axis = int | Sequence[int] | None


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether one of the values is not 0."""
    return not_equal(sum(cast(cast(x, "bool"), "int"), axis, keepdims), 0)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether no value is 0."""
    return equal(sum(cast(equal(x, 0), "int"), axis, keepdims), 0)


def count_nonzero(x: Any, axis: Axis = None) -> Any:
    """How many values are not 0."""
    return sum(cast(not_equal(x, 0), "int"), axis)


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The product over axes of known lengths; that of bools is an int."""
    x = cast(x, "int") if kind_of_value(x) == "bool" else x
    for one in reversed(normal_axes("prod", axis, x.ndim)):
        parts = unstack(x, axis=one) or [ones_like(sum(x, one))]
        x = math.prod(parts[1:], start=parts[0])
        x = expand_dims(x, one) if keepdims else x
    return x


def cumprod(x: Any, axis: int | None = None) -> Any:
    """The running product along an axis of known length; of all numbers without one."""
    x, axis = (ravel(x), 0) if axis is None else (x, axis)
    x = cast(x, "int") if kind_of_value(x) == "bool" else x
    return stack([*accumulate(unstack(x, axis=axis), multiply)], axis) if x.shape[axis] != 0 else x


def ptp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """What the greatest value has more than the least one."""
    return max(x, axis, keepdims) - min(x, axis, keepdims)


def average(x: Any, axis: int | None = None, weights: Any = None) -> Any:
    """The mean, or that by weights of x's shape, or a vector of them along its axis; ValueError for others."""
    if weights is None:
        return mean(x, axis)
    weights = weights if isinstance(weights, Tensor) else np.asarray(weights)
    if weights.ndim == 1 < x.ndim and axis is not None:
        axis = normal_axis("average", axis, x.ndim)
        if compatible(weights.shape, x.shape[axis : axis + 1]):
            weights = broadcast_like(reshape(weights, [-1 if i == axis else 1 for i in range(x.ndim)]), x)
    if not compatible(weights.shape, x.shape):
        raise ValueError(f"average: weights must have x's shape {x.shape}, or be along its axis; got {weights.shape}")
    return sum(x * weights, axis) / sum(weights, axis)


def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    """The norm of vectors of any order, and of matrices the one that takes them for vectors ("fro")."""
    x = as_float(x)
    rank = x.ndim if axis is None else len(np.atleast_1d(axis))
    if ord in (None, "fro") or (ord == 2 and rank == 1):
        return sqrt(sum(square(x), axis, keepdims))
    if rank != 1 or ord == 0:
        raise ValueError(f'the norm of order {ord!r} over {rank} axes has no counterpart; "fro" has')
    size = absolute(x)
    if math.isinf(ord):
        return (max if ord > 0 else min)(size, axis, keepdims)
    return power(sum(power(size, float(ord)), axis, keepdims), 1.0 / ord)


def _filled(x: Any, value: float) -> Any:
    """x with a value for what is not a number; whole numbers all are."""
    return x if kind_of_value(x) != "float" else where(isnan(x), value, x)


def _count(x: Any, axis: Axis, keepdims: bool) -> Any:
    there = sum(cast(logical_not(isnan(as_float(x))), "int"), axis, keepdims)
    return cast_like(there, x) if kind_of_value(x) == "float" else cast(there, "float")


def nansum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The sum of what is not NaN."""
    return sum(_filled(x, 0.0), axis, keepdims)


def nanprod(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The product of what is not NaN; see `prod`."""
    return prod(_filled(x, 1.0), axis, keepdims)


def nancumsum(x: Any, axis: int | None = None) -> Any:
    """The running sum of what is not NaN along an axis; of all numbers without one."""
    x = _filled(x, 0.0)
    return cumsum(ravel(x), 0) if axis is None else cumsum(x, axis)


def nanmean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The mean of what is not NaN."""
    return nansum(x, axis, keepdims) / _count(x, axis, keepdims)


def nanvar(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The variance of what is not NaN."""
    x = as_float(x)
    apart = where(isnan(x), 0.0, x - nanmean(x, axis, True))  # the gradient of NaN's square would be none
    return sum(square(apart), axis, keepdims) / _count(x, axis, keepdims)


def nanstd(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The standard deviation of what is not NaN."""
    return sqrt(nanvar(x, axis, keepdims))


def nanmax(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The greatest value that is not NaN; NaN if there is none."""
    return _extreme(max, -math.inf, x, axis, keepdims)


def nanmin(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The least value that is not NaN; NaN if there is none."""
    return _extreme(min, math.inf, x, axis, keepdims)


def _extreme(function: Callable[..., Any], least: float, x: Any, axis: Axis, keepdims: bool) -> Any:
    y = function(_filled(x, least), axis, keepdims)
    return y if kind_of_value(x) != "float" else where(equal(_count(x, axis, keepdims), 0), math.nan, y)
