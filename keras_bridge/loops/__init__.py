"""The bare time loop of each backend: `scan(step, carry, sequences, length, like)`.

step(carry, slices) -> (carry, outputs), lists of tensors all; carry keeps its shapes and dtypes. sequences are
time-major. `like` holds a tensor of the shape and dtype of each output. The answer is (carry, stacked outputs),
time-major; if `like` is empty, outputs are dropped.
"""

from importlib import import_module
from typing import Any

import keras


def backend_module(package: str) -> Any:
    """Return the module of a package that serves Keras's backend; ValueError if there is none."""
    name = keras.backend.backend()
    if name not in ("jax", "tensorflow", "torch"):
        raise ValueError(f"keras_bridge runs on the jax, tensorflow and torch backends; KERAS_BACKEND is {name!r}")
    return import_module(f"{package}.{name}")


def scan(
    step: Any, carry: list[Any], sequences: list[Any], length: Any, like: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Run the loop of the backend; see the module's text."""
    return backend_module("keras_bridge.loops").scan(step, carry, sequences, length, like)
