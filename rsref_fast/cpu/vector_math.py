"""Functions of one number that LLVM can turn into vector code: no branches, no calls, no tables.

float32: range reduction and polynomials after Cephes (S. Moshier, netlib) and N. Juffa's erf, each within 4 units in
the last place over the whole range, NaN and infinities included. float64: the C library's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from rsref_fast.cpu.jit import exactly
from rsref_fast.cpu.pointers import on_bits

f32 = np.float32
ROUNDER = 0x4B400000
"""The bits of 1.5 * 2**23: a float32 that is added to it is rounded to an integer, which its low bits then hold."""


def _power(builder: Any, n: Any, number: Any) -> Any:
    return builder.shl(builder.add(n, number(127)), number(23))


def _whole(builder: Any, bits: Any, number: Any) -> Any:
    return builder.sub(bits, number(ROUNDER))


def _first_half(builder: Any, bits: Any, number: Any) -> Any:
    return builder.ashr(_whole(builder, bits, number), number(1))


two_to = on_bits(lambda b, x, c: _power(b, _whole(b, x, c), c))
"""2**n, where n is the rounded number that its argument holds; n from -126 to 127."""

two_to_half = on_bits(lambda b, x, c: _power(b, _first_half(b, x, c), c))
two_to_rest = on_bits(lambda b, x, c: _power(b, b.sub(_whole(b, x, c), _first_half(b, x, c)), c))
"""Their product is 2**n for any n, through the denormals to infinity."""

exponent = on_bits(lambda b, x, c: b.sub(b.lshr(x, c(23)), c(126)), to_float=False)
mantissa = on_bits(lambda b, x, c: b.or_(b.and_(x, c(0x007FFFFF)), c(0x3F000000)))
"""x = mantissa * 2**exponent, mantissa from 0.5 to 1, for positive x."""


@exactly
def _reduced(x, shifted):
    """exp of what is left of x when the multiple of log(2) that `shifted` holds is taken off."""
    whole = shifted - f32(12582912.0)
    r = x - whole * f32(0.693359375)
    r = r - whole * f32(-2.12194440e-4)
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    return p * (r * r) + r + f32(1)


@exactly
def _exp(x):
    clean = f32(89) if x > f32(89) else x
    clean = f32(-104) if clean < f32(-104) else clean
    shifted = clean * f32(1.44269504088896341) + f32(12582912.0)
    return _reduced(clean, shifted) * two_to_half(shifted) * two_to_rest(shifted)


@exactly
def _exp_inside(x):
    """exp for numbers whose result is neither infinite nor denormal."""
    shifted = x * f32(1.44269504088896341) + f32(12582912.0)
    return _reduced(x, shifted) * two_to(shifted)


@exactly
def _log(x):
    small = x < f32(1.17549435e-38)
    scaled = x * f32(33554432.0) if small else x
    e = exponent(scaled) - (f32(25) if small else f32(0))
    m = mantissa(scaled)
    low = m < f32(0.70710678118654752440)
    e = e - f32(1) if low else e
    m = m + m - f32(1) if low else m - f32(1)
    z = m * m
    p = f32(7.0376836292e-2)
    p = p * m + f32(-1.1514610310e-1)
    p = p * m + f32(1.1676998740e-1)
    p = p * m + f32(-1.2420140846e-1)
    p = p * m + f32(1.4249322787e-1)
    p = p * m + f32(-1.6668057665e-1)
    p = p * m + f32(2.0000714765e-1)
    p = p * m + f32(-2.4999993993e-1)
    p = p * m + f32(3.3333331174e-1)
    y = m * z * p + e * f32(-2.12194440e-4) - f32(0.5) * z
    y = m + y + e * f32(0.693359375)
    y = f32(math.inf) if x == f32(math.inf) else y
    y = f32(-math.inf) if x == f32(0) else y
    return y if x >= f32(0) else f32(math.nan)


@exactly
def _tanh(x):
    a = abs(x)
    z = x * x
    p = f32(-5.70498872745e-3)
    p = p * z + f32(2.06390887954e-2)
    p = p * z + f32(-5.37397155531e-2)
    p = p * z + f32(1.33314422036e-1)
    p = p * z + f32(-3.33332819422e-1)
    near = p * z * x + x
    e = _exp_inside(f32(-20) if a > f32(10) else f32(-2) * a)
    far = (f32(1) - e) / (f32(1) + e)
    far = -far if x < f32(0) else far
    return near if a < f32(0.625) else far


@exactly
def _sigmoid(x):
    e = _exp(-abs(x))
    return (f32(1) if x >= f32(0) else e) / (f32(1) + e)


@exactly
def _log1p(x):
    u = f32(1) + x
    d = u - f32(1)
    y = _log(u) * (x / (d if d != f32(0) else f32(1)))
    y = x if d == f32(0) else y
    return x if x == f32(math.inf) else y


@exactly
def _expm1(x):
    """exp(x) - 1 by its series where that is small, else by subtraction."""
    p = f32(1.9841270e-4)
    p = p * x + f32(1.3888889e-3)
    p = p * x + f32(8.3333333e-3)
    p = p * x + f32(4.1666667e-2)
    p = p * x + f32(1.6666667e-1)
    p = p * x + f32(0.5)
    near = p * (x * x) + x
    far = _exp(x) - f32(1)
    return near if abs(x) < f32(0.4) else far


@exactly
def _softplus(x):
    e = _exp(-abs(x))
    return (x if x > f32(0) else f32(0)) + _log1p(e) if x == x else x


@exactly
def _erf(x):
    t = abs(x)
    s = x * x
    r = f32(-1.72853470e-5) * t + f32(3.83197126e-4)
    u = f32(-3.88396438e-3) * t + f32(2.42546219e-2)
    r = r * s + u
    r = r * t + f32(-1.06777877e-1)
    r = r * t + f32(-6.34846687e-1)
    r = r * t + f32(-1.28717512e-1)
    r = r * t - t
    far = f32(1) - _exp(r if t < f32(5) else f32(-40))
    far = -far if x < f32(0) else far
    p = f32(-5.96761703e-4)
    p = p * s + f32(4.99119423e-3)
    p = p * s + f32(-2.67681349e-2)
    p = p * s + f32(1.12819925e-1)
    p = p * s + f32(-3.76125336e-1)
    p = p * s + f32(1.28379166e-1)
    near = p * x + x
    y = far if t > f32(0.927734375) else near
    return y if x == x else x


def _through_double(function: Callable[[float], float]) -> Any:
    """A function of float32 that is computed in float64 and rounded once."""

    @exactly
    def rounded(x):
        return f32(function(np.float64(x)))

    return rounded


def _plain(function: Callable[[float], float]) -> Any:
    @exactly
    def same(x):
        return function(x)

    return same


def _sigmoid64() -> Any:
    @exactly
    def sigmoid(x):
        return 1.0 / (1.0 + math.exp(-x))

    return sigmoid


def _softplus64() -> Any:
    @exactly
    def softplus(x):
        return (x if not x <= 0.0 else 0.0) + math.log1p(math.exp(-abs(x)))

    return softplus


NAMES = {
    "exp": math.exp, "expm1": math.expm1, "log": math.log, "log1p": math.log1p, "sin": math.sin, "cos": math.cos,
    "tan": math.tan, "arctan": math.atan, "sinh": math.sinh, "cosh": math.cosh, "tanh": math.tanh, "erf": math.erf,
}  # fmt: skip
VECTORISED = {
    "exp": _exp, "log": _log, "tanh": _tanh, "sigmoid": _sigmoid, "log1p": _log1p, "expm1": _expm1,
    "softplus": _softplus, "erf": _erf,
}  # fmt: skip


def functions(element: Any) -> dict[str, Any]:
    """Return all functions that kernels may call, by name, for float32 or float64."""
    single = element is types.float32
    real = np.float32 if single else np.float64
    found = {name: (_through_double(f) if single else _plain(f)) for name, f in NAMES.items()}
    found.update(VECTORISED if single else {"sigmoid": _sigmoid64(), "softplus": _softplus64()})
    return {**found, **_arithmetic(real)}


def _arithmetic(real: Any) -> dict[str, Any]:
    @exactly
    def sqrt(x):
        return real(math.sqrt(x))

    @exactly
    def floor(x):
        return real(np.floor(x))

    @exactly
    def ceil(x):
        return real(np.ceil(x))

    @exactly
    def rint(x):
        return real(np.rint(x))

    @exactly
    def power(a, b):
        return real(math.pow(np.float64(a), np.float64(b)))

    @exactly
    def sign(x):
        one = type_one(x)
        return one if x > 0 else -one if x < 0 else x

    @exactly
    def type_one(x):
        return x - x + 1 if x == x else x

    @exactly
    def absolute(x):
        return abs(x)

    @exactly
    def maximum(a, b):
        return a if (a >= b) | (a != a) else b

    @exactly
    def minimum(a, b):
        return a if (a <= b) | (a != a) else b

    return {f.__name__: f for f in (sqrt, floor, ceil, rint, power, sign, absolute, maximum, minimum)} | {
        "floor_divide": _floor_divide()
    }


def _floor_divide() -> Any:
    @exactly
    def floor_divide(a, b):
        return a // b

    return floor_divide
