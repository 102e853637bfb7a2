"""Penalties on weights, by the names of Keras: each answers a loss and its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class L1L2:
    """l1 * sum(|w|) + l2 * sum(w^2)."""

    l1: float = 0.0
    l2: float = 0.0

    def __call__(self, weight: np.ndarray) -> float:
        return float(self.l1 * np.abs(weight).sum() + self.l2 * np.square(weight).sum())

    def gradient(self, weight: np.ndarray) -> np.ndarray:
        """Return the gradient of the loss, in the shape of the weight; 0 for |w| at 0."""
        found: np.ndarray = self.l1 * np.sign(weight) + 2 * self.l2 * weight
        return found


def L1(l1: float = 0.01) -> L1L2:
    """Return l1 * sum(|w|)."""
    return L1L2(l1=l1)


def L2(l2: float = 0.01) -> L1L2:
    """Return l2 * sum(w^2)."""
    return L1L2(l2=l2)


NAMED = {"l1": L1(), "l2": L2(), "l1_l2": L1L2(0.01, 0.01)}


def get(regularizer: Any) -> Any:
    """Return a regularizer by name or of a class, an object with a call and a `gradient` as it is, None for None."""
    if isinstance(regularizer, type):
        return get(regularizer())
    if regularizer is None or (callable(regularizer) and hasattr(regularizer, "gradient")):
        return regularizer
    if isinstance(regularizer, str) and regularizer in NAMED:
        return NAMED[regularizer]
    raise ValueError(
        f"regularizer {regularizer!r} is unknown; known are {', '.join(NAMED)}, or an object with a call and a gradient"
    )
