"""The call on Keras's NumPy backend, which has no autodiff: forward alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = list[np.ndarray]


def call(
    forward: Callable[[Arrays], Arrays], backward: Callable[[Arrays, Arrays], Arrays], tensors: list[Any], specs: Any
) -> list[Any]:
    """Return forward(tensors); see `keras_bridge.gradients`."""
    return forward([np.asarray(tensor) for tensor in tensors])
