"""The error of everything that turns a Keras step into rsref's ops."""

from __future__ import annotations

from typing import Any


class TraceError(NotImplementedError):
    """A layer or operation of the step has no counterpart in rsref; the text names it."""


def with_own_weight(path: str) -> TraceError:
    """Return the error for a weight of the backend's own: its value would be kept, and it would have no gradient."""
    return TraceError(
        f"{path}: a weight that Keras does not know, such as a torch.nn.Parameter or a tf.Variable, is not traced; "
        f'make it by add_weight; engine="keras" runs it'
    )


def without_counterpart(operation: Any, path: str) -> TraceError:
    """Return the error for a Keras operation that no rule knows."""
    return TraceError(
        f'{path}: the operation {type(operation).__name__} has no counterpart in rsref; engine="keras" runs it'
    )
