"""Functions of one float64 that LLVM can turn into vector code: `vector_math`'s formulas, with what 53 bits need.

exp(r) - 1, for r up to log(2) / 2, is its Taylor polynomial of degree 13: what it leaves out is less than half a unit
in the last place. log(2) in two parts after fdlibm (Sun Microsystems, netlib).
"""

from __future__ import annotations

from numba import types

from rsref_fast.cpu.jit import exactly
from rsref_fast.cpu.pointers import on_bits

ROUNDER = 6755399441055744.0
"""1.5 * 2**52: a float64 that is added to it is rounded to an integer, which its low bits then hold."""

HALVED, RAISED, TWICE = (ROUNDER + n for n in (1022, 1023 + 53, 2 * 1023))
"""Rounders for half a power of two, for 2**53 of it, and for two powers that make one together."""

RAISE = 2.0**53

two_to = on_bits(lambda b, x, c: b.shl(x, c(52)), element=types.float64)
"""2**n, halved or raised, where n is the number that its argument holds, rounded by `HALVED` or `RAISED`."""

two_to_half = on_bits(lambda b, x, c: b.shl(b.lshr(x, c(1)), c(52)), element=types.float64)
two_to_rest = on_bits(lambda b, x, c: b.shl(b.sub(x, b.lshr(x, c(1))), c(52)), element=types.float64)
"""Their product is 2**n for any n that is rounded by `TWICE`, through the denormals to infinity."""


@exactly
def _rest(x, whole):
    """What is left of x when a multiple of log(2) is taken off."""
    return x - whole * 6.93147180369123816490e-01 - whole * 1.90821492927058770002e-10


@exactly
def _grown(r):
    """exp(r) - 1 for r up to log(2) / 2."""
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    return p * (r * r) + r


@exactly
def clipped(x, least, most):
    """x between two bounds; NaN stays what it is."""
    x = most if x > most else x
    return least if x < least else x


@exactly
def _exp(x):
    x = clipped(x, -746.0, 710.0)
    shifted = x * 1.44269504088896340736 + TWICE
    half = two_to_half(shifted)
    return (_grown(_rest(x, shifted - TWICE)) * half + half) * two_to_rest(shifted)


@exactly
def _expm1(x):
    """One formula for small and large x, all of it halved: so it reaches infinity as late as exp does."""
    x = clipped(x, -40.0, 710.0)
    shifted = x * 1.44269504088896340736 + HALVED
    power = two_to(shifted)
    half = _grown(_rest(x, shifted - HALVED)) * power + (power - 0.5)
    return half + half


@exactly
def _tanh(x):
    """(exp(2 x) - 1) / (exp(2 x) + 1), both halved."""
    x = clipped(x, -20.0, 20.0)
    y = x + x
    shifted = y * 1.44269504088896340736 + HALVED
    power = two_to(shifted)
    half = _grown(_rest(y, shifted - HALVED)) * power + (power - 0.5)
    return half / (half + 1.0)


@exactly
def _sigmoid(x):
    """exp(x) / (exp(x) + 1), both times 2**53: so exp(x) is no denormal where the answer is one."""
    x = clipped(x, -746.0, 40.0)
    shifted = x * 1.44269504088896340736 + RAISED
    power = two_to(shifted)
    raised = _grown(_rest(x, shifted - RAISED)) * power + power
    return raised / (raised + RAISE)


VECTORISED = {"exp": _exp, "expm1": _expm1, "tanh": _tanh, "sigmoid": _sigmoid}
