"""Constants as long as the batch, such as `ops.zeros((ops.shape(x)[0], 6))`, while a layer is recorded.

Of a symbolic tensor that length is None, for which backends make no tensor: an operation on it is recorded instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src import backend

MAKERS = {"zeros": 0, "ones": 0, "full": 0, "broadcast_to": 1}
"""Functions of the backend that keras.ops of the same names call, and the place of the shape in their arguments."""

_kept = {name: getattr(backend.numpy, name) for name in MAKERS}


@contextlib.contextmanager
def batch_sized(inputs: list[Any]) -> Iterator[None]:
    """Let shapes that begin with None mean the length of a batch, that of the symbolic inputs."""
    batched = [x for x in inputs if x.shape and x.shape[0] is None]
    if not batched:
        yield
        return
    for name, place in MAKERS.items():
        setattr(backend.numpy, name, _made(_kept[name], place, batched[0]))
    try:
        yield
    finally:
        for name, function in _kept.items():
            setattr(backend.numpy, name, function)


def _made(function: Callable[..., Any], place: int, x: Any) -> Callable[..., Any]:
    """Return a function of the backend that takes such shapes, too."""

    def make(*arguments: Any, **options: Any) -> Any:
        shape = arguments[place] if len(arguments) > place else None
        if not isinstance(shape, tuple | list) or not shape or shape[0] is not None:
            return function(*arguments, **options)
        one = function(*arguments[:place], (1, *shape[1:]), *arguments[place + 1 :], **options)
        return _for_each(one, x)

    return make


def _for_each(value: Any, x: Any) -> Any:
    """Return a value (1, ...) for each sample of a batch."""
    ops = keras.ops
    zeros = ops.sum(ops.zeros_like(x, dtype="int32"), axis=tuple(range(1, len(x.shape))))
    places = ops.reshape(zeros, (-1, *(1,) * (len(value.shape) - 1)))
    return ops.where(ops.equal(places, 0), value, value)
