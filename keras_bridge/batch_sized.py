"""Values as long as the batch, such as `ops.zeros((ops.shape(x)[0], 6))`, while a layer is recorded.

Of a symbolic tensor that length is None, for which backends make no tensor: an operation on it is recorded instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src import backend
from keras.src.ops.numpy import Repeat, Tile
from keras.src.ops.operation import Operation

from keras_bridge.replaced import replaced

MAKERS = {"zeros": 0, "ones": 0, "full": 0, "broadcast_to": 1, "tile": 1}
"""Functions of the backend that keras.ops of the same names call, and the place of the shape in their arguments."""

_kept = {name: getattr(backend.numpy, name) for name in (*MAKERS, "repeat")}


@contextlib.contextmanager
def batch_sized(inputs: list[Any]) -> Iterator[None]:
    """Let shapes and repeats that begin with None mean the length of a batch, that of the symbolic inputs."""
    batched = [x for x in inputs if x.shape and x.shape[0] is None]
    if not batched:
        yield
        return
    x = batched[0]
    makers = {name: _made(_kept[name], place, x) for name, place in MAKERS.items()}
    with (
        replaced(backend.numpy, **makers, repeat=_repeated(x)),
        replaced(Tile, symbolic_call=_tiled_symbol(x)),
        replaced(Repeat, symbolic_call=_repeated_symbol(x)),
    ):
        yield


def _made(function: Callable[..., Any], place: int, x: Any) -> Callable[..., Any]:
    """Return a function of the backend that takes such shapes, too."""

    def make(*arguments: Any, **options: Any) -> Any:
        shape = arguments[place] if len(arguments) > place else None
        if shape is None or not for_batch(shape):
            return function(*arguments, **options)
        one = function(*arguments[:place], (1, *shape[1:]), *arguments[place + 1 :], **options)
        return _for_each(one, x)

    return make


def _repeated(x: Any) -> Callable[..., Any]:
    def repeat(value: Any, repeats: Any, axis: Any = None) -> Any:
        return _for_each(value, x) if repeats is None and axis == 0 else _kept["repeat"](value, repeats, axis=axis)

    return repeat


def _tiled_symbol(x: Any) -> Callable[..., Any]:
    def symbolic_call(operation: Any, value: Any) -> Any:
        if not for_batch(operation.repeats):
            return Operation.symbolic_call(operation, value)
        return _for_each(keras.ops.tile(value, (1, *operation.repeats[1:])), x)

    return symbolic_call


def _repeated_symbol(x: Any) -> Callable[..., Any]:
    def symbolic_call(operation: Any, value: Any) -> Any:
        own = operation.repeats is None and operation.axis == 0
        return _for_each(value, x) if own else Operation.symbolic_call(operation, value)

    return symbolic_call


def for_batch(shape: Any) -> bool:
    """Whether a shape, or repeats, begin with the length of the batch."""
    return isinstance(shape, tuple | list) and len(shape) > 0 and shape[0] is None


def _for_each(value: Any, x: Any) -> Any:
    """Return a value (1, ...) for each sample of a batch; ValueError for one of several rows."""
    if value.shape[0] != 1:
        raise ValueError(f"shape {tuple(value.shape)} is repeated as often as the batch is long, which is not traced")
    ops = keras.ops
    zeros = ops.sum(ops.zeros_like(x, dtype="int32"), axis=tuple(range(1, len(x.shape))))
    places = ops.reshape(zeros, (-1, *(1,) * (len(value.shape) - 1)))
    return ops.where(ops.equal(places, 0), value, value)
