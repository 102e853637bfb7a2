"""Layers and functions that fold several tensors into one, under the names of Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rsref import ops
from rsref.layers.base import Layer
from rsref.tensor import Tensor


class Merge(Layer):
    """Several tensors folded into one by a function. Fewer axes: axes of length 1 are put in after the batch axis."""

    function: Callable[[list[Tensor]], Tensor]

    def __call__(self, inputs: Any) -> Any:
        if not isinstance(inputs, list | tuple) or len(inputs) < 2:
            raise ValueError(f"{self.name} merges a list of two or more tensors; got {inputs!r}")
        return super().__call__(inputs)

    def call(self, *tensors: Tensor) -> Tensor:
        widest = max(tensors, key=lambda tensor: tensor.ndim)
        return type(self).function([_beside(tensor, widest) for tensor in tensors])


def _beside(tensor: Tensor, widest: Tensor) -> Tensor:
    # what has no batch axis, a weight or a fixed array, is broadcast as NumPy does it
    missing = widest.ndim - tensor.ndim if tensor.shape[:1] == widest.shape[:1] else 0
    beside: Tensor = ops.expand_dims(tensor, tuple(range(1, 1 + missing))) if missing else tensor
    return beside


def _folded(function: Callable[[Any, Any], Any]) -> Callable[[Sequence[Any]], Any]:
    def fold(tensors: Sequence[Any]) -> Any:
        total = tensors[0]
        for tensor in tensors[1:]:
            total = function(total, tensor)
        return total

    return fold


_sum, _product = _folded(ops.add), _folded(ops.multiply)
_greatest, _least = _folded(ops.maximum), _folded(ops.minimum)


class Add(Merge):
    """The sum of a list of tensors."""

    function = staticmethod(_sum)


class Multiply(Merge):
    """The product of a list of tensors."""

    function = staticmethod(_product)


class Maximum(Merge):
    """The greatest of a list of tensors, value by value."""

    function = staticmethod(_greatest)


class Minimum(Merge):
    """The least of a list of tensors, value by value."""

    function = staticmethod(_least)


class Average(Merge):
    """The mean of a list of tensors."""

    function = staticmethod(lambda tensors: _sum(tensors) / len(tensors))


class Subtract(Merge):
    """The first of two tensors less the second."""

    takes = 2
    function = staticmethod(lambda tensors: ops.subtract(*tensors))


class Concatenate(Merge):
    """A list of tensors side by side along an axis."""

    def __init__(self, axis: int = -1, name: str | None = None):
        super().__init__(name)
        self.axis = axis

    def call(self, *tensors: Tensor) -> Tensor:
        result: Tensor = ops.concatenate(tensors, self.axis)
        return result


def add(inputs: Sequence[Tensor]) -> Tensor:
    """Return the sum of a list of tensors."""
    result: Tensor = Add()(inputs)
    return result


def multiply(inputs: Sequence[Tensor]) -> Tensor:
    """Return the product of a list of tensors."""
    result: Tensor = Multiply()(inputs)
    return result


def subtract(inputs: Sequence[Tensor]) -> Tensor:
    """Return the first of two tensors less the second."""
    result: Tensor = Subtract()(inputs)
    return result


def average(inputs: Sequence[Tensor]) -> Tensor:
    """Return the mean of a list of tensors."""
    result: Tensor = Average()(inputs)
    return result


def maximum(inputs: Sequence[Tensor]) -> Tensor:
    """Return the greatest of a list of tensors, value by value."""
    result: Tensor = Maximum()(inputs)
    return result


def minimum(inputs: Sequence[Tensor]) -> Tensor:
    """Return the least of a list of tensors, value by value."""
    result: Tensor = Minimum()(inputs)
    return result


def concatenate(inputs: Sequence[Tensor], axis: int = -1) -> Tensor:
    """Return a list of tensors side by side along an axis."""
    result: Tensor = Concatenate(axis)(inputs)
    return result
