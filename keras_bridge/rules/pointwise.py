"""Rules for operations on each number alone, or on pairs: arithmetic, functions, activations, comparisons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_bridge.rules.base import Rule, kind_of, plain, whole, with_attributes
from rsref import activations, ops

LOG_2 = math.log(2.0)


def _cast(operation: Any, x: Any) -> Any:
    return ops.cast(x, kind_of(operation.dtype))


def _convert(operation: Any, x: Any) -> Any:
    return x if operation.dtype is None else ops.cast(x, kind_of(operation.dtype))


def _unless_flags(function: Rule, logical: Rule) -> Rule:
    """Of bools alone Keras answers bools."""
    return lambda operation, *arguments: (logical if kind_of(operation.output.dtype) == "bool" else function)(
        *arguments
    )


def _mod(operation: Any, a: Any, b: Any) -> Any:
    return a - b * (ops.floor_divide(a, b) if whole(operation) else ops.floor(a / b))


def _power(operation: Any, a: Any, b: Any) -> Any:
    if not whole(operation):
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


def _round(operation: Any, x: Any) -> Any:
    if operation.decimals:
        raise ValueError(f"rounding to {operation.decimals} decimals has no counterpart; to whole numbers has")
    return ops.round(x)


def _log_add_exp(a: Any, b: Any) -> Any:
    apart = ops.where(ops.equal(a, b), 0.0, a - b)  # two infinities are not apart
    return ops.maximum(a, b) + ops.softplus(-ops.absolute(apart))


def _log_add_exp2(a: Any, b: Any) -> Any:
    return _log_add_exp(a * LOG_2, b * LOG_2) / LOG_2


def _hypotenuse(a: Any, b: Any) -> Any:
    """The root of a^2 + b^2, of parts of the greater one, whose square may be beyond all numbers."""
    greater = ops.stop_gradient(ops.maximum(ops.absolute(a), ops.absolute(b)))
    unit = ops.where(ops.logical_and(ops.greater(greater, 0), ops.isfinite(greater)), greater, 1.0)
    return unit * ops.sqrt(ops.square(a / unit) + ops.square(b / unit))


def _cube_root(x: Any) -> Any:
    return ops.where(ops.less(x, 0), -1.0, 1.0) * ops.power(ops.absolute(x), 1.0 / 3.0)


def _sinc(x: Any) -> Any:
    angle = math.pi * ops.where(ops.equal(x, 0), 1.0, x)
    return ops.where(ops.equal(x, 0), 1.0, ops.sin(angle) / angle)


def _truncated(x: Any) -> Any:
    return x if x.dtype == "int" else ops.where(ops.less(x, 0), ops.ceil(x), ops.floor(x))


def _remainder(operation: Any, a: Any, b: Any) -> Any:
    """What is left of a, with its sign: the quotient is rounded towards zero."""
    if not whole(operation):
        quotient = _truncated(a / b)
        return a - ops.where(ops.equal(quotient, 0), 0.0, b * quotient)
    signs = ops.sign(a) * ops.sign(b)
    return a - b * signs * ops.floor_divide(ops.absolute(a), ops.absolute(b))


def _unless_nan(function: Rule) -> Rule:
    """The other one of two numbers, where one is none."""

    def rule(operation: Any, a: Any, b: Any) -> Any:
        if kind_of(operation.output.dtype) != "float":
            return function(a, b)
        return ops.where(ops.isnan(a), b, ops.where(ops.isnan(b), a, function(a, b)))

    return rule


def _is_close(operation: Any, a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> Any:
    a, b = ops.cast(a, "float"), ops.cast(b, "float")
    near = ops.less_equal(ops.absolute(a - b), atol + rtol * ops.absolute(b))
    near = ops.logical_or(ops.equal(a, b), ops.logical_and(near, ops.isfinite(b)))
    return ops.logical_or(near, ops.logical_and(ops.isnan(a), ops.isnan(b))) if operation.equal_nan else near


def _step(x: Any, at_zero: Any) -> Any:
    """1 above zero, 0 below, and another value at it; what is no number stays so."""
    return ops.where(ops.less(x, 0), 0.0, ops.where(ops.greater(x, 0), 1.0, ops.where(ops.equal(x, 0), at_zero, x)))


def _arcsinh(x: Any) -> Any:
    """The logarithm of x + sqrt(1 + x^2), of |x| since below zero the two cancel each other."""
    sign = ops.where(ops.less(x, 0), -1.0, 1.0)
    size = sign * x
    return sign * ops.log1p(size + size * size / (1.0 + ops.sqrt(1.0 + size * size)))


def _where(operation: Any, condition: Any, x1: Any = None, x2: Any = None) -> Any:
    if x1 is None or x2 is None:
        raise ValueError("where with a condition alone has no counterpart: the shape of its answer is not fixed")
    return ops.where(condition, x1, x2)


def _select(operation: Any, conditions: Any, choices: Any, default: Any = 0) -> Any:
    """The choice of the first condition that holds."""
    for condition, choice in reversed(list(zip(conditions, choices))):
        default = ops.where(condition, choice, default)
    return default


def _nan_to_num(operation: Any, x: Any) -> Any:
    if x.dtype != "float":
        return x
    largest = float(np.finfo(operation.output.dtype).max)
    top = largest if operation.posinf is None else operation.posinf
    bottom = -largest if operation.neginf is None else operation.neginf
    x = ops.where(ops.equal(x, math.inf), top, ops.where(ops.isnan(x), operation.nan, x))
    return ops.where(ops.equal(x, -math.inf), bottom, x)


def _relu_layer(operation: Any, x: Any) -> Any:
    """relu with the slope, the threshold and the greatest value of keras.activations.relu."""
    slope, threshold, top = operation.negative_slope, operation.threshold, operation.max_value
    if not (slope or threshold):
        y = ops.relu(x)
    else:
        y = ops.where(ops.greater(x, threshold) if not slope else ops.greater_equal(x, threshold), x, 0.0)
        y = y + (ops.where(ops.less(x, threshold), slope * (x - threshold), 0.0) if slope else 0.0)
    return y if top is None else ops.minimum(y, top)


RULES: dict[str, Rule] = {
    # arithmetic
    "Add": _unless_flags(ops.add, ops.logical_or),
    "Subtract": plain(ops.subtract),
    "Multiply": _unless_flags(ops.multiply, ops.logical_and),
    "Divide": plain(ops.divide),
    "TrueDivide": plain(ops.divide),
    "DivideNoNan": plain(lambda a, b: ops.where(ops.equal(b, 0), 0.0, a / ops.where(ops.equal(b, 0), 1.0, b))),
    "FloorDivide": plain(ops.floor_divide),
    "Mod": _mod,
    "Fmod": _remainder,
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
    "Fmax": _unless_nan(ops.maximum),
    "Fmin": _unless_nan(ops.minimum),
    "Clip": _clip,
    "Floor": plain(ops.floor),
    "Ceil": plain(ops.ceil),
    "Round": _round,
    "Trunc": plain(_truncated),
    # exponentials, trigonometric and hyperbolic functions
    "Exp": plain(ops.exp),
    "Exp2": plain(lambda x: ops.exp(x * LOG_2)),
    "Expm1": plain(ops.expm1),
    "Log": plain(ops.log),
    "Log1p": plain(ops.log1p),
    "Log2": plain(lambda x: ops.log(x) / LOG_2),
    "Log10": plain(lambda x: ops.log(x) / 2.302585092994046),
    "Logaddexp": plain(_log_add_exp),
    "Logaddexp2": plain(_log_add_exp2),
    "Hypot": plain(_hypotenuse),
    "Cbrt": plain(_cube_root),
    "Sin": plain(ops.sin),
    "Cos": plain(ops.cos),
    "Tan": plain(ops.tan),
    "Arcsin": plain(lambda x: ops.arctan(x * ops.rsqrt((1.0 - x) * (1.0 + x)))),
    "Arccos": plain(lambda x: 2.0 * ops.arctan(ops.sqrt((1.0 - x) / (1.0 + x)))),
    "Arctan": plain(ops.arctan),
    "Arctan2": plain(ops.arctan2),
    "Sinc": plain(_sinc),
    "Sinh": plain(ops.sinh),
    "Cosh": plain(ops.cosh),
    "Tanh": plain(ops.tanh),
    "Arcsinh": plain(_arcsinh),
    "Arccosh": plain(lambda x: ops.log1p(x - 1.0 + ops.sqrt(x - 1.0) * ops.sqrt(x + 1.0))),
    "Arctanh": plain(lambda x: 0.5 * (ops.log1p(x) - ops.log1p(-x))),
    "Deg2rad": plain(lambda x: x * (math.pi / 180.0)),
    "Rad2deg": plain(lambda x: x * (180.0 / math.pi)),
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
    "Isinf": plain(lambda x: ops.equal(ops.absolute(x), math.inf)),
    "Isposinf": plain(lambda x: ops.equal(x, math.inf)),
    "Isneginf": plain(lambda x: ops.equal(x, -math.inf)),
    "Isclose": _is_close,
    "Heaviside": plain(_step),
    "Where": _where,
    "Select": _select,
    "NanToNum": _nan_to_num,
    # fillings, kinds, gradients
    "ZerosLike": _like(0.0),
    "OnesLike": _like(1.0),
    "FullLike": _full_like,
    "Cast": _cast,
    "ConvertToTensor": _convert,
    "StopGradient": plain(ops.stop_gradient),
    "Copy": plain(lambda x: x),
    "Real": plain(lambda x: x),
    "Conjugate": plain(lambda x: x),
}
