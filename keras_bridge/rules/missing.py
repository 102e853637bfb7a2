"""Rules for reductions that pass over values that are not numbers, as missing ones of a series often are."""

from __future__ import annotations

import math
from typing import Any

from keras_bridge.rules.base import Rule
from keras_bridge.rules.reductions import cumulated_sum, product
from rsref import ops


def _filled(x: Any, value: float) -> Any:
    """x with a value for what is not a number; whole numbers all are."""
    return x if x.dtype != "float" else ops.where(ops.isnan(x), value, x)


def _count(operation: Any, x: Any, keepdims: bool) -> Any:
    there = ops.logical_not(ops.isnan(ops.cast(x, "float")))
    return ops.cast(ops.sum(ops.cast(there, "int"), operation.axis, keepdims), "float")


def _sum(operation: Any, x: Any) -> Any:
    return ops.sum(_filled(x, 0.0), operation.axis, operation.keepdims)


def _mean(operation: Any, x: Any, keepdims: bool | None = None) -> Any:
    keepdims = operation.keepdims if keepdims is None else keepdims
    return ops.sum(_filled(x, 0.0), operation.axis, keepdims) / _count(operation, x, keepdims)


def _var(operation: Any, x: Any) -> Any:
    x = ops.cast(x, "float")
    apart = ops.where(ops.isnan(x), 0.0, x - _mean(operation, x, keepdims=True))
    return ops.sum(ops.square(apart), operation.axis, operation.keepdims) / _count(operation, x, operation.keepdims)


def _extreme(function: Rule, least: float) -> Rule:
    def rule(operation: Any, x: Any) -> Any:
        y = function(_filled(x, least), operation.axis, operation.keepdims)
        if x.dtype != "float":
            return y
        return ops.where(ops.equal(_count(operation, x, operation.keepdims), 0), math.nan, y)

    return rule


RULES: dict[str, Rule] = {
    "Nansum": _sum,
    "Nanmean": _mean,
    "Nanvar": _var,
    "Nanstd": lambda operation, x: ops.sqrt(_var(operation, x)),
    "Nanmax": _extreme(ops.max, -math.inf),
    "Nanmin": _extreme(ops.min, math.inf),
    "Nanprod": lambda operation, x: product(operation, _filled(x, 1.0)),
    "Nancumsum": lambda operation, x: cumulated_sum(operation, _filled(x, 0.0)),
}
