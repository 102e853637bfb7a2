"""Functions of each number, or of pairs, drawn of a few pointwise ops, under NumPy's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsref.ops.base import kind_of_value as kind
from rsref.ops.pointwise import (
    absolute,
    arctan,
    broadcast_like,
    cast,
    ceil,
    equal,
    floor,
    greater,
    isfinite,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_or,
    maximum,
    minimum,
    power,
    remainder,
    rsqrt,
    sin,
    softplus,
    sqrt,
    square,
    stop_gradient,
    where,
)
from rsref.ops.reduction import cast_like

LOG_2, LOG_10 = math.log(2.0), math.log(10.0)


def _whole(*operands: Any) -> bool:
    return all(kind(one) != "float" for one in operands)


def trunc(x: Any) -> Any:
    """x rounded towards zero."""
    return x if _whole(x) else where(less(x, 0), ceil(x), floor(x))


def fmod(a: Any, b: Any) -> Any:
    """What is left of a / b rounded towards zero: it has the sign of a."""
    left = remainder(absolute(a), absolute(b))
    return where(less(a, 0), -left, left)


def exp2(x: Any) -> Any:
    """2 to the power of x."""
    return power(2.0, x)


def log2(x: Any) -> Any:
    """The logarithm of base 2."""
    return log(x) / LOG_2


def log10(x: Any) -> Any:
    """The logarithm of base 10; of powers of 10 it may be off by a rounding."""
    return log(x) / LOG_10


def logaddexp(a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)), where neither of the two is computed."""
    apart = where(equal(a, b), 0.0, a - b)  # two infinities are not apart
    return maximum(a, b) + softplus(-absolute(apart))


def logaddexp2(a: Any, b: Any) -> Any:
    """log2(2^a + 2^b)."""
    return logaddexp(a * LOG_2, b * LOG_2) / LOG_2


def hypot(a: Any, b: Any) -> Any:
    """The root of a^2 + b^2, of parts of the greater one, whose square may be beyond all numbers."""
    most = stop_gradient(maximum(absolute(a), absolute(b)))
    unit = where(logical_and(greater(most, 0), isfinite(most)), most, 1.0)
    return unit * sqrt(square(a / unit) + square(b / unit))


def cbrt(x: Any) -> Any:
    """The cube root."""
    return where(less(x, 0), -1.0, 1.0) * power(absolute(x), 1.0 / 3.0)


def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), 1 at 0."""
    angle = math.pi * where(equal(x, 0), 1.0, x)
    return where(equal(x, 0), 1.0, sin(angle) / angle)


def arcsin(x: Any) -> Any:
    """The angle from -pi/2 to pi/2 of which x is the sine."""
    return arctan(x * rsqrt((1.0 - x) * (1.0 + x)))


def arccos(x: Any) -> Any:
    """The angle from 0 to pi of which x is the cosine."""
    return 2.0 * arctan(sqrt((1.0 - x) / (1.0 + x)))


def arcsinh(x: Any) -> Any:
    """The logarithm of x + sqrt(1 + x^2), of |x| since below zero the two cancel each other."""
    signs = where(less(x, 0), -1.0, 1.0)
    size = signs * x
    far = greater(size, 1e9)  # where the square may be beyond all numbers, and 1 is nothing beside it
    near = where(far, 1.0, size)
    small = log1p(near + near * near / (1.0 + sqrt(1.0 + near * near)))
    return signs * where(far, log(where(far, size, 1.0)) + LOG_2, small)


def arccosh(x: Any) -> Any:
    """The logarithm of x + sqrt(x^2 - 1), for x of 1 and more."""
    far = greater(x, 1e9)
    near = where(far, 2.0, x)
    return where(far, log(where(far, x, 1.0)) + LOG_2, log1p(near - 1.0 + sqrt(near - 1.0) * sqrt(near + 1.0)))


def arctanh(x: Any) -> Any:
    """Half the logarithm of (1 + x) / (1 - x)."""
    return 0.5 * (log1p(x) - log1p(-x))


def deg2rad(x: Any) -> Any:
    """Degrees as radians."""
    return x * (math.pi / 180.0)


def rad2deg(x: Any) -> Any:
    """Radians as degrees."""
    return x * (180.0 / math.pi)


def isinf(x: Any) -> Any:
    """Whether x is one of the infinities."""
    return equal(absolute(x), math.inf)


def isposinf(x: Any) -> Any:
    """Whether x is the positive infinity."""
    return equal(x, math.inf)


def isneginf(x: Any) -> Any:
    """Whether x is the negative infinity."""
    return equal(x, -math.inf)


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether |a - b| is at most atol + rtol |b|; infinities are close to themselves."""
    a, b = cast(a, "float"), cast(b, "float")
    near = less_equal(absolute(a - b), atol + rtol * absolute(b))
    near = logical_or(equal(a, b), logical_and(near, isfinite(b)))
    return logical_or(near, logical_and(isnan(a), isnan(b))) if equal_nan else near


def fmax(a: Any, b: Any) -> Any:
    """The greater one; the other one where one is NaN."""
    return maximum(a, b) if _whole(a, b) else where(isnan(a), b, where(isnan(b), a, maximum(a, b)))


def fmin(a: Any, b: Any) -> Any:
    """The lesser one; the other one where one is NaN."""
    return minimum(a, b) if _whole(a, b) else where(isnan(a), b, where(isnan(b), a, minimum(a, b)))


def heaviside(x: Any, at_zero: Any) -> Any:
    """1 above zero, 0 below, and another value at it; NaN stays so."""
    return where(less(x, 0), 0.0, where(greater(x, 0), 1.0, where(equal(x, 0), at_zero, x)))


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """x with numbers for NaN and the infinities; those of float32 that are farthest from 0, if not given."""
    if _whole(x):
        return x
    largest = float(np.finfo(np.float32).max)
    top, bottom = largest if posinf is None else posinf, -largest if neginf is None else neginf
    x = where(equal(x, math.inf), top, where(isnan(x), nan, x))
    return where(equal(x, -math.inf), bottom, x)


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    """The choice of the first condition that holds."""
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        default = where(condition, choice, default)
    return default


def full_like(x: Any, fill_value: Any, dtype: str | None = None) -> Any:
    """A value as often as x has numbers. dtype: "float", "int" or "bool"; that of x if not given."""
    value = broadcast_like(fill_value, x)
    return cast_like(value, x) if dtype is None else cast(value, dtype)


def zeros_like(x: Any, dtype: str | None = None) -> Any:
    """Zeros; see `full_like`."""
    return full_like(x, 0.0, dtype)


def ones_like(x: Any, dtype: str | None = None) -> Any:
    """Ones; see `full_like`."""
    return full_like(x, 1.0, dtype)
