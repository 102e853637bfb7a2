"""Rules for operations over an axis: sums and extremes, places, norms and normalizations."""

from __future__ import annotations

from typing import Any

import keras

from keras_bridge.rules.base import Rule, kind_of, with_attributes
from rsref import ops


def _extreme(function: Rule) -> Rule:
    def rule(operation: Any, x: Any) -> Any:
        y = function(x, operation.axis, operation.keepdims)
        initial = getattr(operation, "initial", None)
        pick = ops.maximum if function is ops.max else ops.minimum
        return y if initial is None else pick(y, initial)

    return rule


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


def _normalize(operation: Any, x: Any) -> Any:
    epsilon = keras.config.epsilon() if operation.epsilon is None else operation.epsilon
    if operation.order != 2:
        return x / ops.maximum(ops.norm(x, operation.order, operation.axis, True), epsilon)
    return x * ops.minimum(ops.rsqrt(ops.sum(ops.square(x), operation.axis, True)), 1.0 / epsilon)


def _quantile(operation: Any, x: Any, q: Any) -> Any:
    if operation.method != "linear":  # Keras computes it by a line all the same where it is drawn, and not elsewhere
        raise ValueError(f'Quantile with method "{operation.method}" has no counterpart')
    return ops.quantile(x, q, operation.axis, keepdims=operation.keepdims)


def _average(operation: Any, x: Any, weights: Any = None) -> Any:
    return ops.average(x, operation.axis, weights)


def _cumulated_sum(operation: Any, x: Any) -> Any:
    x = x if operation.dtype is None else ops.cast(x, kind_of(operation.dtype))
    return ops.cumsum(ops.ravel(x), 0) if operation.axis is None else ops.cumsum(x, operation.axis)


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
    "Cumsum": _cumulated_sum,
    "Prod": with_attributes(ops.prod, *_fold),
    "Cumprod": with_attributes(ops.cumprod, *_axis),
    "Nansum": with_attributes(ops.nansum, *_fold),
    "Nanmean": with_attributes(ops.nanmean, *_fold),
    "Nanvar": with_attributes(ops.nanvar, *_fold),
    "Nanstd": with_attributes(ops.nanstd, *_fold),
    "Nanmax": with_attributes(ops.nanmax, *_fold),
    "Nanmin": with_attributes(ops.nanmin, *_fold),
    "Nanprod": with_attributes(ops.nanprod, *_fold),
    "Nancumsum": with_attributes(ops.nancumsum, *_axis),
    "Median": with_attributes(ops.median, *_fold),
    "Quantile": _quantile,
    "Sort": with_attributes(ops.sort, *_axis),
    "Argsort": with_attributes(ops.argsort, *_axis),
    "TopK": with_attributes(ops.top_k, "k"),
    "Ptp": with_attributes(ops.ptp, *_fold),
    "Average": _average,
    "CountNonzero": with_attributes(ops.count_nonzero, *_axis),
    "Any": with_attributes(ops.any, *_fold),
    "All": with_attributes(ops.all, *_fold),
    "Softmax": with_attributes(ops.softmax, *_axis),
    "LogSoftmax": with_attributes(ops.log_softmax, *_axis),
    # none for Sparsemax: what Keras computes is not sparsemax where more than one value is left
    "Norm": with_attributes(ops.norm, "ord", *_fold),
    "Normalize": _normalize,
    "Moments": _moments,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "BatchNorm": _batch_norm,
}
