"""Functions of numbers on the device: libdevice's own for each precision, and a few that treat NaN as NumPy does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.cuda import libdevice

from rsref_fast.cuda.intrinsics import one_like
from rsref_fast.cuda.jit import device

LIBDEVICE = {
    "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt", "sin": "sin", "cos": "cos",
    "tan": "tan", "arctan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "erf": "erf", "erfc": "erfc",
    "floor": "floor", "ceil": "ceil", "rint": "rint", "power": "pow", "arctan2": "atan2",
}  # fmt: skip
"""Our name of a function, and libdevice's for float64; that for float32 has an f behind it."""


def functions(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return all functions of numbers that kernels may call, by name, for a working precision."""
    ending = "f" if dtype.itemsize == 4 else ""
    named = {name: getattr(libdevice, own + ending) for name, own in LIBDEVICE.items()}
    F = dtype.type
    found = {name: _two(F, f) if name in ("power", "arctan2") else _one(F, f) for name, f in named.items()}
    written = _written(F, getattr(libdevice, "fmod" + ending), named["floor"], named["exp"], named["log1p"])
    return {**found, **written, **({"sigmoid": _sigmoid(F, named["exp"])} if dtype.itemsize == 4 else {})}


def _sigmoid(F: Any, exp: Any) -> Any:
    @device
    def sigmoid(x):
        """With no branch for what float32 has no normal number for; what is left of the quotient is right to 2 ulp."""
        return libdevice.fast_fdividef(F(1), F(1) + exp(-F(x)))

    return sigmoid


def _one(F: Any, function: Any) -> Any:
    @device
    def call(x):
        return function(F(x))

    return call


def _two(F: Any, function: Any) -> Any:
    @device
    def call(x, y):
        return function(F(x), F(y))

    return call


def _written(F: Any, fmod: Any, floor: Any, exp: Any, log1p: Any) -> dict[str, Any]:
    @device
    def sigmoid(x):
        return F(1) / (F(1) + exp(-x))

    @device
    def softplus(x):
        return (x if not x <= F(0) else F(0)) + log1p(exp(-abs(x)))

    @device
    def sign(x):
        one = one_like(x)
        return one if x > 0 else -one if x < 0 else x

    @device
    def absolute(x):
        return abs(x)

    @device
    def maximum(a, b):
        return a if a >= b or a != a else b

    @device
    def minimum(a, b):
        return a if a <= b or a != a else b

    @device
    def float_divide(a, b):
        """As NumPy: the quotient's floor, found by the remainder, which is exact."""
        rest = fmod(a, b)
        if b == F(0):
            return a / b
        quotient = (a - rest) / b
        if rest != F(0) and (b < F(0)) != (rest < F(0)):
            quotient -= F(1)
        if quotient == F(0):
            return F(0) * (a / b)
        whole = floor(quotient)
        return whole + F(1) if quotient - whole > F(0.5) else whole

    @device
    def modulo(a, b):
        """As NumPy: exact, with the sign of the divisor."""
        rest = fmod(a, b)
        if rest == F(0):
            return -F(0) if b < F(0) else F(0)
        return rest + b if (b < F(0)) != (rest < F(0)) else rest

    return {
        "sigmoid": sigmoid, "softplus": softplus, "sign": sign, "absolute": absolute, "maximum": maximum,
        "minimum": minimum, "floor_divide": float_divide, "modulo": modulo,
    }  # fmt: skip
