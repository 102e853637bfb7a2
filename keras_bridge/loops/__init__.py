"""The bare time loop of each backend: `scan(step, carry, sequences, length, like)`.

step(carry, slices) -> (carry, outputs), lists of tensors all; carry keeps its shapes and dtypes. sequences are
time-major. `like` holds a tensor of the shape and dtype of each output. The answer is (carry, stacked outputs),
time-major; if `like` is empty, outputs are dropped.
"""

from typing import Any

from keras_bridge.backend import backend_module


def scan(
    step: Any, carry: list[Any], sequences: list[Any], length: Any, like: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Run the loop of the backend; see the module's text."""
    return backend_module("keras_bridge.loops").scan(step, carry, sequences, length, like)
