"""How Keras's operations are said with rsref's: one entry an operation class, found by its name.

A rule is called as `rule(operation, *arguments, **keywords)`: the operation holds its attributes (axis, keepdims, ...),
the arguments are rsref tensors, arrays and plain values. It answers one rsref tensor or a list of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from rsref import activations, ops
from rsref.tensor import Tensor

Rule = Callable[..., Any]


def _plain(function: Rule) -> Rule:
    """The operation has no attributes: its arguments are the function's."""
    return lambda operation, *arguments: function(*arguments)


def _with(function: Rule, *attributes: str) -> Rule:
    """Some attributes of the operation follow the arguments."""
    return lambda operation, *arguments: function(*arguments, *(getattr(operation, name) for name in attributes))


def _cast(operation: Any, x: Any) -> Any:
    return ops.cast(x, kind_of(operation.dtype))


def kind_of(dtype: Any) -> str:
    """Return rsref's "float", "int" or "bool" for a Keras dtype."""
    name = keras.backend.standardize_dtype(dtype)
    return "bool" if name == "bool" else "float" if "float" in name else "int"


def _unless_flags(function: Rule, logical: Rule) -> Rule:
    """Of bools alone Keras answers bools."""
    return lambda operation, *arguments: (logical if kind_of(operation.output.dtype) == "bool" else function)(
        *arguments
    )


def _whole(operation: Any) -> bool:
    """Whether Keras answers integers, as it does for some operations of nothing but integers."""
    return kind_of(operation.output.dtype) == "int"


def _mod(operation: Any, a: Any, b: Any) -> Any:
    return a - b * (ops.floor_divide(a, b) if _whole(operation) else ops.floor(a / b))


def _power(operation: Any, a: Any, b: Any) -> Any:
    if not _whole(operation):
        return ops.power(a, b)
    if not isinstance(b, int) or b < 1:
        raise ValueError(f"a power of integers has a counterpart where the exponent is a number, 1 or more; got {b!r}")
    return math.prod([a] * b)


def _like(value: float) -> Rule:
    return lambda operation, x: ops.cast(ops.broadcast_like(value, x), _kind_or(operation.dtype, x))


def _kind_or(dtype: Any, x: Any) -> str:
    return x.dtype if dtype is None else kind_of(dtype)


def _full_like(operation: Any, x: Any, fill_value: Any) -> Any:
    return ops.cast(ops.broadcast_like(fill_value, x), _kind_or(operation.dtype, x))


def _clip(operation: Any, x: Any) -> Any:
    return ops.clip(x, operation.x_min, operation.x_max)


def _split(operation: Any, x: Any) -> Any:
    return ops.split(x, operation.indices_or_sections, operation.axis)


def _pad(operation: Any, x: Any, constant_values: Any = None) -> Any:
    if operation.mode != "constant":
        raise ValueError(f'pad mode {operation.mode!r} has no counterpart; "constant" has')
    return ops.pad(x, operation.pad_width, 0 if constant_values is None else constant_values)


def _round(operation: Any, x: Any) -> Any:
    if operation.decimals:
        raise ValueError(f"rounding to {operation.decimals} decimals has no counterpart; to whole numbers has")
    return ops.round(x)


def _extreme(function: Rule) -> Rule:
    def rule(operation: Any, x: Any) -> Any:
        y = function(x, operation.axis, operation.keepdims)
        initial = getattr(operation, "initial", None)
        pick = ops.maximum if function is ops.max else ops.minimum
        return y if initial is None else pick(y, initial)

    return rule


def _log_add_exp(a: Any, b: Any) -> Any:
    apart = ops.where(ops.equal(a, b), 0.0, a - b)  # two infinities are not apart
    return ops.maximum(a, b) + ops.softplus(-ops.absolute(apart))


def _cumsum(operation: Any, x: Any) -> Any:
    x = x if operation.dtype is None else ops.cast(x, kind_of(operation.dtype))
    return ops.cumsum(ops.reshape(x, (-1,)), 0) if operation.axis is None else ops.cumsum(x, operation.axis)


def _repeat(operation: Any, x: Any) -> Any:
    if operation.axis is None or not isinstance(operation.repeats, int):
        raise ValueError(f"repeat with repeats={operation.repeats!r}, axis={operation.axis!r} has no counterpart")
    return ops.repeat(x, operation.repeats, operation.axis)


def _tile(operation: Any, x: Any) -> Any:
    repeats = operation.repeats if isinstance(operation.repeats, list | tuple) else [operation.repeats]
    return ops.tile(x, [*[1] * (x.ndim - len(repeats)), *repeats])


def _where(operation: Any, condition: Any, x1: Any = None, x2: Any = None) -> Any:
    if x1 is None or x2 is None:
        raise ValueError("where with a condition alone has no counterpart: the shape of its answer is not fixed")
    return ops.where(condition, x1, x2)


def _einsum(operation: Any, *operands: Any, **_: Any) -> Any:
    return ops.einsum(operation.subscripts, *operands)


def _channels_last(operation: Any) -> None:
    form = operation.data_format or keras.config.image_data_format()
    if form != "channels_last":
        raise ValueError(f'data_format {form!r} has no counterpart; "channels_last" has')


def _conv(operation: Any, inputs: Any, kernel: Any) -> Any:
    _channels_last(operation)
    return ops.conv(inputs, kernel, operation.strides, operation.padding, operation.dilation_rate)


def _pool(function: Rule) -> Rule:
    def rule(operation: Any, inputs: Any) -> Any:
        _channels_last(operation)
        return function(inputs, operation.pool_size, operation.strides, operation.padding)

    return rule


def _layer_norm(operation: Any, x: Any, gamma: Any = None, beta: Any = None) -> Any:
    if operation.rms_scaling:
        raise ValueError("LayerNorm with rms_scaling=True has no counterpart; RMSNorm has")
    epsilon = keras.config.epsilon() if operation.epsilon is None else operation.epsilon
    return ops.layer_normalization(x, gamma, beta, operation.axis, epsilon)


def _rms_norm(operation: Any, x: Any, scale: Any = None) -> Any:
    epsilon = keras.config.epsilon() if operation.epsilon is None else operation.epsilon
    return ops.rms_normalization(x, scale, operation.axis, epsilon)


def _moments(operation: Any, x: Any) -> Any:
    axes, keepdims = operation.axes, operation.keepdims
    return [ops.mean(x, axes, keepdims), ops.var(x, axes, keepdims)]


def _batch_norm(operation: Any, x: Any, mean: Any, variance: Any, offset: Any = None, scale: Any = None) -> Any:
    shape = [1] * x.ndim
    shape[operation.axis] = -1
    wide = [None if v is None else ops.reshape(v, shape) for v in (mean, variance, offset, scale)]
    y = (x - wide[0]) * ops.rsqrt(wide[1] + operation.epsilon)
    y = y if wide[3] is None else y * wide[3]
    return y if wide[2] is None else y + wide[2]


def _stack(operation: Any, xs: Any) -> Any:
    return ops.stack(xs, operation.axis)


def _concatenate(operation: Any, xs: Any) -> Any:
    return ops.concatenate(xs, operation.axis)


def _one_hot(operation: Any, x: Any) -> Any:
    kind = "float" if operation.dtype is None else kind_of(operation.dtype)
    return ops.cast(ops.one_hot(x, operation.num_classes, operation.axis), kind)


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


def _reshape(operation: Any, x: Any) -> Any:
    return ops.reshape(x, operation.newshape)


def _convert(operation: Any, x: Any) -> Any:
    return x if operation.dtype is None else ops.cast(x, kind_of(operation.dtype))


def _relu_layer(operation: Any, x: Any) -> Any:
    """relu with the slope, the threshold and the greatest value of keras.activations.relu."""
    slope, threshold, top = operation.negative_slope, operation.threshold, operation.max_value
    if not (slope or threshold):
        y = ops.relu(x)
    else:
        y = ops.where(ops.greater(x, threshold) if not slope else ops.greater_equal(x, threshold), x, 0.0)
        y = y + (ops.where(ops.less(x, threshold), slope * (x - threshold), 0.0) if slope else 0.0)
    return y if top is None else ops.minimum(y, top)


def _get_item(operation: Any, x: Any, key: Any) -> Any:
    return ops.get_item(x, tuple(key) if isinstance(key, list) else key)  # as a saved model has it, and Keras reads it


def _any_or_all(function: Rule) -> Rule:
    def rule(operation: Any, x: Any) -> Any:
        return ops.cast(function(ops.cast(ops.cast(x, "bool"), "int"), operation.axis, operation.keepdims), "bool")

    return rule


_axis = ("axis",)
_fold = ("axis", "keepdims")

RULES: dict[str, Rule] = {
    # arithmetic
    "Add": _unless_flags(ops.add, ops.logical_or),
    "Subtract": _plain(ops.subtract),
    "Multiply": _unless_flags(ops.multiply, ops.logical_and),
    "Divide": _plain(ops.divide),
    "TrueDivide": _plain(ops.divide),
    "DivideNoNan": _plain(lambda a, b: ops.where(ops.equal(b, 0), 0.0, a / ops.where(ops.equal(b, 0), 1.0, b))),
    "FloorDivide": _plain(ops.floor_divide),
    "Mod": _mod,
    "Power": _power,
    "Negative": _plain(ops.negative),
    "Absolute": _plain(ops.absolute),
    "Fabs": _plain(ops.absolute),
    "Sign": _plain(ops.sign),
    "Square": _plain(ops.square),
    "Sqrt": _plain(ops.sqrt),
    "Rsqrt": _plain(ops.rsqrt),
    "Reciprocal": _plain(ops.reciprocal),
    "Maximum": _unless_flags(ops.maximum, ops.logical_or),
    "Minimum": _unless_flags(ops.minimum, ops.logical_and),
    "Clip": _clip,
    "Floor": _plain(ops.floor),
    "Ceil": _plain(ops.ceil),
    "Round": _round,
    # exponentials, trigonometric and hyperbolic functions
    "Exp": _plain(ops.exp),
    "Exp2": _plain(lambda x: ops.exp(x * 0.6931471805599453)),
    "Expm1": _plain(ops.expm1),
    "Log": _plain(ops.log),
    "Log1p": _plain(ops.log1p),
    "Log2": _plain(lambda x: ops.log(x) / 0.6931471805599453),
    "Log10": _plain(lambda x: ops.log(x) / 2.302585092994046),
    "Logaddexp": _plain(_log_add_exp),
    "Sin": _plain(ops.sin),
    "Cos": _plain(ops.cos),
    "Tan": _plain(ops.tan),
    "Arctan": _plain(ops.arctan),
    "Sinh": _plain(ops.sinh),
    "Cosh": _plain(ops.cosh),
    "Tanh": _plain(ops.tanh),
    "Erf": _plain(ops.erf),
    "Erfc": _plain(ops.erfc),
    # activations
    "Relu": _plain(ops.relu),
    "ReLU": _relu_layer,
    "Relu6": _plain(activations.relu6),
    "Sigmoid": _plain(ops.sigmoid),
    "SparseSigmoid": _plain(activations.sparse_sigmoid),
    "Softplus": _plain(ops.softplus),
    "Softsign": _plain(activations.softsign),
    "SoftShrink": _with(activations.soft_shrink, "threshold"),
    "SparsePlus": _plain(activations.sparse_plus),
    "Silu": _plain(activations.silu),
    "Squareplus": _with(activations.squareplus, "b"),
    "LogSigmoid": _plain(activations.log_sigmoid),
    "LeakyRelu": _with(activations.leaky_relu, "negative_slope"),
    "HardSigmoid": _plain(activations.hard_sigmoid),
    "HardSilu": _plain(activations.hard_silu),
    "Elu": _with(activations.elu, "alpha"),
    "Selu": _plain(activations.selu),
    "Celu": _with(activations.celu, "alpha"),
    "Gelu": _with(activations.gelu, "approximate"),
    "Glu": _with(activations.glu, "axis"),
    "TanhShrink": _plain(activations.tanh_shrink),
    "HardTanh": _plain(activations.hard_tanh),
    "HardShrink": _with(activations.hard_shrink, "threshold"),
    "Threshold": _with(activations.threshold, "threshold", "default_value"),
    "Softmax": _with(ops.softmax, *_axis),
    "LogSoftmax": _with(ops.log_softmax, *_axis),
    # none for Sparsemax: what Keras computes is not sparsemax where more than one value is left
    # comparisons, logic, selection
    "Equal": _plain(ops.equal),
    "NotEqual": _plain(ops.not_equal),
    "Less": _plain(ops.less),
    "LessEqual": _plain(ops.less_equal),
    "Greater": _plain(ops.greater),
    "GreaterEqual": _plain(ops.greater_equal),
    "LogicalAnd": _plain(ops.logical_and),
    "LogicalOr": _plain(ops.logical_or),
    "LogicalXor": _plain(ops.logical_xor),
    "LogicalNot": _plain(ops.logical_not),
    "Isnan": _plain(ops.isnan),
    "Isfinite": _plain(ops.isfinite),
    "Where": _where,
    "Any": _any_or_all(ops.max),
    "All": _any_or_all(ops.min),
    # reductions and norms
    "Sum": _with(ops.sum, *_fold),
    "Mean": _with(ops.mean, *_fold),
    "Var": _with(ops.var, *_fold),
    "Std": _with(ops.std, *_fold),
    "Max": _extreme(ops.max),
    "Amax": _extreme(ops.max),
    "Min": _extreme(ops.min),
    "Amin": _extreme(ops.min),
    "Logsumexp": _with(ops.logsumexp, *_fold),
    "Argmax": _with(ops.argmax, *_fold),
    "Argmin": _with(ops.argmin, *_fold),
    "Cumsum": _cumsum,
    "Moments": _moments,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "BatchNorm": _batch_norm,
    # products
    "Matmul": _plain(ops.matmul),
    "Dot": _plain(ops.dot),
    "Tensordot": _with(ops.tensordot, "axes"),
    "Einsum": _einsum,
    "Conv": _conv,
    "MaxPool": _pool(ops.max_pool),
    "AveragePool": _pool(ops.average_pool),
    # structure and places
    "Reshape": _reshape,
    "Ravel": _plain(lambda x: ops.reshape(x, (-1,))),
    "Transpose": _with(ops.transpose, "axes"),
    "Swapaxes": _with(ops.swapaxes, "axis1", "axis2"),
    "Moveaxis": _moveaxis,
    "ExpandDims": _with(ops.expand_dims, *_axis),
    "Squeeze": _with(ops.squeeze, *_axis),
    "BroadcastTo": _with(ops.broadcast_to, "shape"),
    "Concatenate": _concatenate,
    "Stack": _stack,
    "Unstack": _with(ops.unstack, "num", "axis"),
    "Split": _split,
    "Repeat": _repeat,
    "Tile": _tile,
    "Pad": _pad,
    "Flip": _flip,
    "GetItem": _get_item,
    "Take": _with(ops.take, *_axis),
    "OneHot": _one_hot,
    "ZerosLike": _like(0.0),
    "OnesLike": _like(1.0),
    "FullLike": _full_like,
    "Cast": _cast,
    "ConvertToTensor": _convert,
    "StopGradient": _plain(ops.stop_gradient),
    "Copy": _plain(lambda x: x),
}


def apply_rule(operation: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[Tensor] | None:
    """Return the operation's results as rsref tensors, or None if there is no rule for it."""
    rule = RULES.get(type(operation).__name__)
    if rule is None or isinstance(operation, keras.layers.Layer):
        return None
    result = rule(operation, *arguments, **keywords)
    return list(result) if isinstance(result, list | tuple) else [result]
