"""Rules for operations over an axis: sums and extremes, places, norms and normalizations."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import keras
import numpy as np

from keras_bridge.rules.base import Rule, kind_of, with_attributes
from rsref import ops


def _extreme(function: Rule) -> Rule:
    def rule(operation: Any, x: Any) -> Any:
        y = function(x, operation.axis, operation.keepdims)
        initial = getattr(operation, "initial", None)
        pick = ops.maximum if function is ops.max else ops.minimum
        return y if initial is None else pick(y, initial)

    return rule


def _any_or_all(function: Rule) -> Rule:
    def rule(operation: Any, x: Any) -> Any:
        return ops.cast(function(ops.cast(ops.cast(x, "bool"), "int"), operation.axis, operation.keepdims), "bool")

    return rule


def cumulated_sum(operation: Any, x: Any) -> Any:
    """Return a cumulated sum; of the flattened array without an axis."""
    x = x if operation.dtype is None else ops.cast(x, kind_of(operation.dtype))
    return ops.cumsum(ops.reshape(x, (-1,)), 0) if operation.axis is None else ops.cumsum(x, operation.axis)


def _moments(operation: Any, x: Any) -> Any:
    axes, keepdims = operation.axes, operation.keepdims
    return [ops.mean(x, axes, keepdims), ops.var(x, axes, keepdims)]


def _layer_norm(operation: Any, x: Any, gamma: Any = None, beta: Any = None) -> Any:
    if operation.rms_scaling:
        raise ValueError("LayerNorm with rms_scaling=True has no counterpart; RMSNorm has")
    epsilon = keras.config.epsilon() if operation.epsilon is None else operation.epsilon
    return ops.layer_normalization(x, gamma, beta, operation.axis, epsilon)


def _rms_norm(operation: Any, x: Any, scale: Any = None) -> Any:
    epsilon = keras.config.epsilon() if operation.epsilon is None else operation.epsilon
    return ops.rms_normalization(x, scale, operation.axis, epsilon)


def _batch_norm(operation: Any, x: Any, mean: Any, variance: Any, offset: Any = None, scale: Any = None) -> Any:
    shape = [1] * x.ndim
    shape[operation.axis] = -1
    wide = [None if v is None else ops.reshape(v, shape) for v in (mean, variance, offset, scale)]
    y = (x - wide[0]) * ops.rsqrt(wide[1] + operation.epsilon)
    y = y if wide[3] is None else y * wide[3]
    return y if wide[2] is None else y + wide[2]


def product(operation: Any, x: Any) -> Any:
    """Return a product over axes of known lengths."""
    kind = kind_of(operation.output.dtype)
    axes = range(x.ndim) if operation.axis is None else np.atleast_1d(operation.axis)
    for axis in sorted((int(a) % x.ndim for a in axes), reverse=True):
        parts = [ops.cast(part, kind) for part in ops.unstack(x, axis=axis)]
        x = math.prod(parts[1:], start=parts[0])
        x = ops.expand_dims(x, axis) if operation.keepdims else x
    return x


def _cumulated_product(operation: Any, x: Any) -> Any:
    x = ops.cast(x, kind_of(operation.output.dtype))
    x, axis = (ops.reshape(x, (-1,)), 0) if operation.axis is None else (x, operation.axis)
    return ops.stack([*accumulate(ops.unstack(x, axis=axis), ops.multiply)], axis)


def _norm(operation: Any, x: Any) -> Any:
    return _norm_of(x, operation.ord, operation.axis, operation.keepdims)


def _norm_of(x: Any, order: Any, axis: Any, keepdims: bool) -> Any:
    """The norm of vectors of any order, and of matrices the one that takes them for vectors."""
    x = ops.cast(x, "float")
    rank = x.ndim if axis is None else len(np.atleast_1d(axis))
    if order in (None, "fro") or (order == 2 and rank == 1):
        return ops.sqrt(ops.sum(ops.square(x), axis, keepdims))
    if rank != 1 or order == 0:
        raise ValueError(f'the norm of order {order!r} over {rank} axes has no counterpart; "fro" has')
    size = ops.absolute(x)
    if math.isinf(order):
        return (ops.max if order > 0 else ops.min)(size, axis, keepdims)
    return ops.power(ops.sum(ops.power(size, float(order)), axis, keepdims), 1.0 / order)


def _normalize(operation: Any, x: Any) -> Any:
    epsilon = keras.config.epsilon() if operation.epsilon is None else operation.epsilon
    if operation.order != 2:
        return x / ops.maximum(_norm_of(x, operation.order, operation.axis, True), epsilon)
    return x * ops.minimum(ops.rsqrt(ops.sum(ops.square(x), operation.axis, True)), 1.0 / epsilon)


def _average(operation: Any, x: Any, weights: Any = None) -> Any:
    """The mean, or that by weights of x's shape or along its axis."""
    axis = operation.axis
    if weights is None:
        return ops.mean(x, axis)
    if len(weights.shape) < x.ndim:
        weights = ops.reshape(weights, [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
    return ops.sum(x * weights, axis) / ops.sum(weights, axis)


def _range(x: Any, axis: Any, keepdims: bool) -> Any:
    return ops.max(x, axis, keepdims) - ops.min(x, axis, keepdims)


def _count_nonzero(operation: Any, x: Any) -> Any:
    return ops.sum(ops.cast(ops.not_equal(x, 0), "int"), operation.axis)


_axis = ("axis",)
_fold = ("axis", "keepdims")

RULES: dict[str, Rule] = {
    # reductions and norms
    "Sum": with_attributes(ops.sum, *_fold),
    "Mean": with_attributes(ops.mean, *_fold),
    "Var": with_attributes(ops.var, *_fold),
    "Std": with_attributes(ops.std, *_fold),
    "Max": _extreme(ops.max),
    "Amax": _extreme(ops.max),
    "Min": _extreme(ops.min),
    "Amin": _extreme(ops.min),
    "Logsumexp": with_attributes(ops.logsumexp, *_fold),
    "Argmax": with_attributes(ops.argmax, *_fold),
    "Argmin": with_attributes(ops.argmin, *_fold),
    "Cumsum": cumulated_sum,
    "Prod": product,
    "Cumprod": _cumulated_product,
    "Ptp": with_attributes(_range, *_fold),
    "Average": _average,
    "CountNonzero": _count_nonzero,
    "Any": _any_or_all(ops.max),
    "All": _any_or_all(ops.min),
    "Softmax": with_attributes(ops.softmax, *_axis),
    "LogSoftmax": with_attributes(ops.log_softmax, *_axis),
    # none for Sparsemax: what Keras computes is not sparsemax where more than one value is left
    "Norm": _norm,
    "Normalize": _normalize,
    "Moments": _moments,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "BatchNorm": _batch_norm,
}
