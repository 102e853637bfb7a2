"""Rules for operations on each number alone, or on pairs: arithmetic, functions, activations, comparisons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_bridge.rules.base import Rule, kind_of, plain, whole, with_attributes
from rsref import activations, ops


def _cast(operation: Any, x: Any) -> Any:
    return ops.cast(x, kind_of(operation.dtype))


def _convert(operation: Any, x: Any) -> Any:
    return x if operation.dtype is None else ops.cast(x, kind_of(operation.dtype))


def _unless_flags(function: Rule, logical: Rule) -> Rule:
    """Of bools alone Keras answers bools."""
    return lambda operation, *arguments: (logical if kind_of(operation.output.dtype) == "bool" else function)(
        *arguments
    )


def _power(operation: Any, a: Any, b: Any) -> Any:
    if not whole(operation):
        return ops.power(a, b)
    if not isinstance(b, int) or b < 1:
        raise ValueError(f"a power of integers has a counterpart where the exponent is a number, 1 or more; got {b!r}")
    return math.prod([a] * b)


def _clip(operation: Any, x: Any) -> Any:
    return ops.clip(x, operation.x_min, operation.x_max)


def _round(operation: Any, x: Any) -> Any:
    if operation.decimals:
        raise ValueError(f"rounding to {operation.decimals} decimals has no counterpart; to whole numbers has")
    return ops.round(x)


def _where(operation: Any, condition: Any, x1: Any = None, x2: Any = None) -> Any:
    if x1 is None or x2 is None:
        raise ValueError("where with a condition alone has no counterpart: the shape of its answer is not fixed")
    return ops.where(condition, x1, x2)


def _relu_layer(operation: Any, x: Any) -> Any:
    """relu with the slope, the threshold and the greatest value of keras.activations.relu."""
    slope, threshold, top = operation.negative_slope, operation.threshold, operation.max_value
    if not (slope or threshold):
        y = ops.relu(x)
    else:
        y = ops.where(ops.greater(x, threshold) if not slope else ops.greater_equal(x, threshold), x, 0.0)
        y = y + (ops.where(ops.less(x, threshold), slope * (x - threshold), 0.0) if slope else 0.0)
    return y if top is None else ops.minimum(y, top)


def _like(function: Rule) -> Rule:
    return lambda operation, *arguments: function(
        *arguments, None if operation.dtype is None else kind_of(operation.dtype)
    )


def _is_close(operation: Any, a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> Any:
    return ops.isclose(a, b, rtol, atol, operation.equal_nan)


def _nan_to_num(operation: Any, x: Any) -> Any:
    """What stands for infinities is the greatest number of the dtype."""
    if kind_of(operation.output.dtype) != "float":
        return x
    most = float(np.finfo(operation.output.dtype).max)
    top = most if operation.posinf is None else operation.posinf
    return ops.nan_to_num(x, operation.nan, top, -most if operation.neginf is None else operation.neginf)


RULES: dict[str, Rule] = {
    # arithmetic
    "Add": _unless_flags(ops.add, ops.logical_or),
    "Subtract": plain(ops.subtract),
    "Multiply": _unless_flags(ops.multiply, ops.logical_and),
    "Divide": plain(ops.divide),
    "TrueDivide": plain(ops.divide),
    "DivideNoNan": plain(lambda a, b: ops.where(ops.equal(b, 0), 0.0, a / ops.where(ops.equal(b, 0), 1.0, b))),
    "FloorDivide": plain(ops.floor_divide),
    "Mod": plain(ops.remainder),
    "Fmod": plain(ops.fmod),
    "Power": _power,
    "Negative": plain(ops.negative),
    "Absolute": plain(ops.absolute),
    "Fabs": plain(ops.absolute),
    "Sign": plain(ops.sign),
    "Square": plain(ops.square),
    "Sqrt": plain(ops.sqrt),
    "Rsqrt": plain(ops.rsqrt),
    "Reciprocal": plain(ops.reciprocal),
    "Maximum": _unless_flags(ops.maximum, ops.logical_or),
    "Minimum": _unless_flags(ops.minimum, ops.logical_and),
    "Fmax": plain(ops.fmax),
    "Fmin": plain(ops.fmin),
    "Clip": _clip,
    "Floor": plain(ops.floor),
    "Ceil": plain(ops.ceil),
    "Round": _round,
    "Trunc": plain(ops.trunc),
    # exponentials, trigonometric and hyperbolic functions
    "Exp": plain(ops.exp),
    "Exp2": plain(ops.exp2),
    "Expm1": plain(ops.expm1),
    "Log": plain(ops.log),
    "Log1p": plain(ops.log1p),
    "Log2": plain(ops.log2),
    "Log10": plain(ops.log10),
    "Logaddexp": plain(ops.logaddexp),
    "Logaddexp2": plain(ops.logaddexp2),
    "Hypot": plain(ops.hypot),
    "Cbrt": plain(ops.cbrt),
    "Sin": plain(ops.sin),
    "Cos": plain(ops.cos),
    "Tan": plain(ops.tan),
    "Arcsin": plain(ops.arcsin),
    "Arccos": plain(ops.arccos),
    "Arctan": plain(ops.arctan),
    "Arctan2": plain(ops.arctan2),
    "Sinc": plain(ops.sinc),
    "Sinh": plain(ops.sinh),
    "Cosh": plain(ops.cosh),
    "Tanh": plain(ops.tanh),
    "Arcsinh": plain(ops.arcsinh),
    "Arccosh": plain(ops.arccosh),
    "Arctanh": plain(ops.arctanh),
    "Deg2rad": plain(ops.deg2rad),
    "Rad2deg": plain(ops.rad2deg),
    "Erf": plain(ops.erf),
    "Erfc": plain(ops.erfc),
    # activations
    "Relu": plain(ops.relu),
    "ReLU": _relu_layer,
    "Relu6": plain(activations.relu6),
    "Sigmoid": plain(ops.sigmoid),
    "SparseSigmoid": plain(activations.sparse_sigmoid),
    "Softplus": plain(ops.softplus),
    "Softsign": plain(activations.softsign),
    "SoftShrink": with_attributes(activations.soft_shrink, "threshold"),
    "SparsePlus": plain(activations.sparse_plus),
    "Silu": plain(activations.silu),
    "Squareplus": with_attributes(activations.squareplus, "b"),
    "LogSigmoid": plain(activations.log_sigmoid),
    "LeakyRelu": with_attributes(activations.leaky_relu, "negative_slope"),
    "HardSigmoid": plain(activations.hard_sigmoid),
    "HardSilu": plain(activations.hard_silu),
    "Elu": with_attributes(activations.elu, "alpha"),
    "Selu": plain(activations.selu),
    "Celu": with_attributes(activations.celu, "alpha"),
    "Gelu": with_attributes(activations.gelu, "approximate"),
    "Glu": with_attributes(activations.glu, "axis"),
    "TanhShrink": plain(activations.tanh_shrink),
    "HardTanh": plain(activations.hard_tanh),
    "HardShrink": with_attributes(activations.hard_shrink, "threshold"),
    "Threshold": with_attributes(activations.threshold, "threshold", "default_value"),
    # comparisons, logic, selection
    "Equal": plain(ops.equal),
    "NotEqual": plain(ops.not_equal),
    "Less": plain(ops.less),
    "LessEqual": plain(ops.less_equal),
    "Greater": plain(ops.greater),
    "GreaterEqual": plain(ops.greater_equal),
    "LogicalAnd": plain(ops.logical_and),
    "LogicalOr": plain(ops.logical_or),
    "LogicalXor": plain(ops.logical_xor),
    "LogicalNot": plain(ops.logical_not),
    "Isnan": plain(ops.isnan),
    "Isfinite": plain(ops.isfinite),
    "Isinf": plain(ops.isinf),
    "Isposinf": plain(ops.isposinf),
    "Isneginf": plain(ops.isneginf),
    "Isclose": _is_close,
    "Heaviside": plain(ops.heaviside),
    "Where": _where,
    "Select": plain(ops.select),
    "NanToNum": _nan_to_num,
    # fillings, kinds, gradients
    "ZerosLike": _like(ops.zeros_like),
    "OnesLike": _like(ops.ones_like),
    "FullLike": _like(ops.full_like),
    "Cast": _cast,
    "ConvertToTensor": _convert,
    "StopGradient": plain(ops.stop_gradient),
    "Copy": plain(lambda x: x),
    "Real": plain(lambda x: x),
    "Conjugate": plain(lambda x: x),
}
