"""Projections of weights after an update, by the names of Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

EPSILON = 1e-7


@dataclass(frozen=True)
class MaxNorm:
    """The norm along an axis is at most `max_value`."""

    max_value: float = 2.0
    axis: int = 0

    def __call__(self, weight: np.ndarray) -> np.ndarray:
        norms = _norms(weight, self.axis)
        scaled: np.ndarray = weight * (np.clip(norms, 0, self.max_value) / (EPSILON + norms))
        return scaled


@dataclass(frozen=True)
class MinMaxNorm:
    """The norm along an axis lies between two values; `rate` is how far it is moved there at once."""

    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: int = 0

    def __call__(self, weight: np.ndarray) -> np.ndarray:
        norms = _norms(weight, self.axis)
        wanted = self.rate * np.clip(norms, self.min_value, self.max_value) + (1 - self.rate) * norms
        scaled: np.ndarray = weight * (wanted / (EPSILON + norms))
        return scaled


@dataclass(frozen=True)
class UnitNorm:
    """The norm along an axis is 1."""

    axis: int = 0

    def __call__(self, weight: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = weight / (EPSILON + _norms(weight, self.axis))
        return scaled


class NonNeg:
    """No value is negative."""

    def __call__(self, weight: np.ndarray) -> np.ndarray:
        return np.maximum(weight, 0)


def _norms(weight: np.ndarray, axis: int) -> np.ndarray:
    return np.sqrt(np.square(weight).sum(axis=axis, keepdims=True))


NAMED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "max_norm": MaxNorm(),
    "min_max_norm": MinMaxNorm(),
    "unit_norm": UnitNorm(),
    "non_neg": NonNeg(),
}


def get(constraint: Any) -> Any:
    """Return a constraint by name or of a class, a callable as it is, None for None; ValueError for an unknown name."""
    if isinstance(constraint, type):
        return constraint()
    if constraint is None or callable(constraint):
        return constraint
    if not isinstance(constraint, str) or constraint not in NAMED:
        raise ValueError(f"constraint {constraint!r} is unknown; known are {', '.join(NAMED)}, or a callable")
    return NAMED[constraint]
