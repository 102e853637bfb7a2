"""Rules for reductions that pass over values that are not numbers, as missing ones of a series often are."""

from __future__ import annotations

import math
from typing import Any

from keras_bridge.rules.base import Rule, with_attributes
from keras_bridge.rules.reductions import cumulated_sum, product
from rsref import ops


def _filled(x: Any, value: float) -> Any:
    """x with a value for what is not a number; whole numbers all are."""
    return x if x.dtype != "float" else ops.where(ops.isnan(x), value, x)


def _count(x: Any, axis: Any, keepdims: bool) -> Any:
    there = ops.logical_not(ops.isnan(ops.cast(x, "float")))
    return ops.cast(ops.sum(ops.cast(there, "int"), axis, keepdims), "float")


def _sum(x: Any, axis: Any, keepdims: bool) -> Any:
    return ops.sum(_filled(x, 0.0), axis, keepdims)


def _mean(x: Any, axis: Any, keepdims: bool) -> Any:
    return _sum(x, axis, keepdims) / _count(x, axis, keepdims)


def _var(x: Any, axis: Any, keepdims: bool) -> Any:
    x = ops.cast(x, "float")
    apart = ops.where(ops.isnan(x), 0.0, x - _mean(x, axis, True))  # the gradient of NaN's square would be none
    return ops.sum(ops.square(apart), axis, keepdims) / _count(x, axis, keepdims)


def _std(x: Any, axis: Any, keepdims: bool) -> Any:
    return ops.sqrt(_var(x, axis, keepdims))


def _extreme(function: Rule, least: float) -> Rule:
    def extreme(x: Any, axis: Any, keepdims: bool) -> Any:
        y = function(_filled(x, least), axis, keepdims)
        return y if x.dtype != "float" else ops.where(ops.equal(_count(x, axis, keepdims), 0), math.nan, y)

    return extreme


_fold = ("axis", "keepdims")

RULES: dict[str, Rule] = {
    "Nansum": with_attributes(_sum, *_fold),
    "Nanmean": with_attributes(_mean, *_fold),
    "Nanvar": with_attributes(_var, *_fold),
    "Nanstd": with_attributes(_std, *_fold),
    "Nanmax": with_attributes(_extreme(ops.max, -math.inf), *_fold),
    "Nanmin": with_attributes(_extreme(ops.min, math.inf), *_fold),
    "Nanprod": lambda operation, x: product(operation, _filled(x, 1.0)),
    "Nancumsum": lambda operation, x: cumulated_sum(operation, _filled(x, 0.0)),
}
