"""Derivatives of functions of arrays, computed from values alone: complex steps and central differences.

Both are taken along one direction, so that a check against a gradient costs one or four evaluations however many
numbers there are: the gradient's dot product with a random direction must be the derivative along it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray

COMPLEX_STEP = 1e-30
"""So small that its square vanishes: the derivative is exact to rounding (Squire and Trapp 1998)."""
DIFFERENCE_STEP = 1e-4

TOLERANCES = {"complex": 1e-9, "difference": 1e-6, "float32": 1e-3}
"""Greatest relative error accepted: in float64 by method, and for an engine that runs in float32."""


def directional_derivative(
    function: Callable[..., Any],
    arrays: Sequence[Array],
    directions: Sequence[Array | None],
    method: str = "complex",
) -> list[Array]:
    """Return the derivative of each array that a function answers, along one direction for each of its operands.

    directions: None for an operand that is held fixed.
    method: "complex" for a function that is analytic (piecewise will do), and is written with NumPy functions that
        take complex numbers; "difference" (central, of fourth order) for any smooth one.
    """
    if method == "complex":
        moved = [a if d is None else a + 1j * COMPLEX_STEP * d for a, d in zip(arrays, directions)]
        return [np.imag(y) / COMPLEX_STEP for y in _listed(function(*moved))]
    if method != "difference":
        raise ValueError(f'method must be "complex" or "difference"; got {method!r}')

    def at(offset: float) -> list[Array]:
        places = [a if d is None else a + offset * DIFFERENCE_STEP * d for a, d in zip(arrays, directions)]
        return _listed(function(*places))

    stencil = zip(at(-2), at(-1), at(1), at(2))
    return [(a - 8 * b + 8 * c - d) / (12 * DIFFERENCE_STEP) for a, b, c, d in stencil]


def complex_step_gradient(function: Callable[[Array], Any], array: Any) -> Array:
    """Return the gradient of an analytic function from one array to a number: one evaluation for each number in it."""
    array = np.asarray(array, dtype=np.float64)
    gradient = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        moved = array.astype(complex)
        moved[place] += 1j * COMPLEX_STEP
        gradient[place] = np.imag(function(moved)) / COMPLEX_STEP
    return gradient


def relative_error(
    gradients: Sequence[Array | None], directions: Sequence[Array | None], derivative: float, size: float = 1.0
) -> float:
    """Return how far the gradients' dot product with the directions is from a derivative.

    The error is relative to the sum of the terms' sizes: terms may cancel. Derivatives below a ten-thousandth of `size`
    (that of the cotangent which the gradients were computed from) count as of that size: they may be rounding alone.
    """
    terms = [g * d for g, d in zip(gradients, directions) if g is not None and d is not None]
    total = sum(float(term.sum()) for term in terms)
    scale = max(sum(float(np.abs(term).sum()) for term in terms), abs(derivative), 1e-4 * size)
    error = abs(total - derivative) / scale if scale else 0.0
    return error if np.isfinite(error) else float("inf")


def _listed(value: Any) -> list[Array]:
    return list(value) if isinstance(value, list | tuple) else [value]
