"""Functions of one number that LLVM can turn into vector code: no branches, no calls, no tables.

float32: range reduction and log after Cephes (S. Moshier, netlib), N. Juffa's erf, and exp(r) - 1 by the polynomial of
least relative error for r up to log(2) / 2; each within 4 units in the last place over the whole range, NaN and
infinities included. float64: see `vector_math64`, and the C library's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from rsref_fast.cpu import vector_math64
from rsref_fast.cpu.jit import exactly
from rsref_fast.cpu.pointers import greater, less, on_bits, one_like
from rsref_fast.cpu.vector_math64 import clipped

f32 = np.float32
ROUNDER = 12582912.0
"""1.5 * 2**23: a float32 that is added to it is rounded to an integer, which its low bits then hold.

A power of two has a sum of 127 and its exponent in bits 23 to 30; shifted there, all other bits of a rounder leave.
"""
HALVED, ONCE, RAISED, TWICE = (f32(ROUNDER + n) for n in (126, 127, 127 + 24, 2 * 127))
"""Rounders for half a power of two, for all of it, for 2**24 of it, and for two powers that make one together."""

two_to = on_bits(lambda b, x, c: b.shl(x, c(23)))
"""2**n, where n is the number that its argument holds, rounded by `ONCE`; half of that or more by others."""

two_to_half = on_bits(lambda b, x, c: b.shl(b.lshr(x, c(1)), c(23)))
two_to_rest = on_bits(lambda b, x, c: b.shl(b.sub(x, b.lshr(x, c(1))), c(23)))
"""Their product is 2**n for any n that is rounded by `TWICE`, through the denormals to infinity."""

exponent = on_bits(lambda b, x, c: b.sub(b.lshr(x, c(23)), c(126)), to_float=False)
mantissa = on_bits(lambda b, x, c: b.or_(b.and_(x, c(0x007FFFFF)), c(0x3F000000)))
"""x = mantissa * 2**exponent, mantissa from 0.5 to 1, for positive x."""


@exactly
def _shifted(x, rounder):
    """A number that holds the multiple of log(2) that is nearest to x."""
    return x * f32(1.44269504088896341) + rounder


@exactly
def _rest(x, whole):
    """What is left of x when a multiple of log(2) is taken off."""
    return x - whole * f32(0.693359375) - whole * f32(-2.12194440e-4)


@exactly
def _grown(r):
    """exp(r) - 1 for r up to log(2) / 2."""
    p = f32(1.38825075828e-3)
    p = p * r + f32(8.36658047542e-3)
    p = p * r + f32(4.16672018164e-2)
    p = p * r + f32(1.66665431766e-1)
    p = p * r + f32(4.9999998144e-1)
    return p * (r * r) + r


@exactly
def _exp(x):
    x = clipped(x, f32(-104), f32(89))
    shifted = _shifted(x, TWICE)
    half = two_to_half(shifted)
    return (_grown(_rest(x, shifted - TWICE)) * half + half) * two_to_rest(shifted)


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
def _expm1(x):
    """One formula for small and large x, all of it halved: so it reaches infinity as late as exp does."""
    x = clipped(x, f32(-20), f32(89))
    shifted = _shifted(x, HALVED)
    power = two_to(shifted)
    half = _grown(_rest(x, shifted - HALVED)) * power + (power - f32(0.5))
    return half + half


@exactly
def _tanh(x):
    """(exp(2 x) - 1) / (exp(2 x) + 1), both halved. The multiple of log(2) need not be known better than it is here.

    What is left is r = x - whole * log(2) / 2, and the polynomial that of (exp(2 r) - 1) / 2.
    """
    x = clipped(x, f32(-10), f32(10))
    shifted = x * f32(2.88539008177792681) + ONCE
    r = x - (shifted - ONCE) * f32(0.34657359027997264)
    p = f32(32 * 1.38825075828e-3)
    p = p * r + f32(16 * 8.36658047542e-3)
    p = p * r + f32(8 * 4.16672018164e-2)
    p = p * r + f32(4 * 1.66665431766e-1)
    p = p * r + f32(2 * 4.9999998144e-1)
    power = two_to(shifted)
    half = (p * (r * r) + r) * power + (power * f32(0.5) - f32(0.5))
    return half / (half + f32(1))


@exactly
def _sigmoid(x):
    """exp(x) / (exp(x) + 1), both times 2**24: so exp(x) is no denormal where the answer is one."""
    x = clipped(x, f32(-104), f32(30))
    shifted = _shifted(x, RAISED)
    power = two_to(shifted)
    raised = _grown(_rest(x, shifted - RAISED)) * power + power
    return raised / (raised + f32(16777216.0))


@exactly
def _log1p(x):
    u = f32(1) + x
    d = u - f32(1)
    y = _log(u) * (x / (d if d != f32(0) else f32(1)))
    y = x if d == f32(0) else y
    return x if x == f32(math.inf) else y


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


def _softplus64() -> Any:
    @exactly
    def softplus(x):
        return (x if not x <= 0.0 else 0.0) + math.log1p(math.exp(-abs(x)))

    return softplus


NAMES = {
    "exp": math.exp, "expm1": math.expm1, "log": math.log, "log1p": math.log1p, "sin": math.sin, "cos": math.cos,
    "tan": math.tan, "arctan": math.atan, "sinh": math.sinh, "cosh": math.cosh, "tanh": math.tanh, "erf": math.erf,
    "erfc": math.erfc,
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
    found.update(VECTORISED if single else {**vector_math64.VECTORISED, "softplus": _softplus64()})
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
    def arctan2(a, b):
        return real(math.atan2(np.float64(a), np.float64(b)))

    @exactly
    def sign(x):
        one = one_like(x)
        return one if x > 0 else -one if x < 0 else x

    @exactly
    def absolute(x):
        return abs(x)

    return {f.__name__: f for f in (sqrt, floor, ceil, rint, power, arctan2, sign, absolute)} | {
        "floor_divide": _floor_divide(), "modulo": _modulo(), "maximum": greater, "minimum": less,
    }  # fmt: skip


def _modulo() -> Any:
    @exactly
    def modulo(a, b):
        return a % b

    return modulo


def _floor_divide() -> Any:
    @exactly
    def floor_divide(a, b):
        return a // b

    return floor_divide
