"""What a layer is, and the checks that layers share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref import constraints, initializers, regularizers
from rsref.tensor import Parameter, Tensor, real_array, unique_name


class Layer:
    """A piece of a step with parameters. Subclass: make parameters in `build`, draw in `call`.

    takes: how many tensors it is called on; None for any number.
    Errors: TypeError if called on anything but Tensors (a step is drawn; arrays go to a recurrent layer); ValueError
        for another number of them than it takes.
    """

    takes: int | None = None

    def __init__(self, name: str | None = None):
        self.name = name or unique_name(_snake_case(type(self).__name__))
        self.own_parameters: list[Parameter] = []
        self.built = False

    if not TYPE_CHECKING:  # mypy need not believe in every attribute

        def __getattr__(self, name: str) -> Any:
            kind = type(self).__name__
            if name in ("name", "own_parameters", "built"):
                raise AttributeError(f"{kind}.__init__ must call super().__init__()")
            if name in ("model", "states", "num_states", "num_inputs"):  # a cell's
                raise AttributeError(f"{self.name}: {name!r} is known once it is built: call it once, or build(shape)")
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    def build(self, *shapes: Any, **_: Any) -> None:  # so that type checkers take any subclass's
        """Make the parameters for inputs of these shapes, batch axis first."""

    def call(self, *tensors: Any, **_: Any) -> Any:
        """Draw the layer on tensors."""
        raise TypeError(f"{type(self).__name__} does not say how to draw itself: write its method call")

    def __call__(self, inputs: Any) -> Any:
        tensors = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{self.name} draws on Tensors made by rsref.Input; got {type(tensor).__name__}")
        if self.takes is not None and len(tensors) != self.takes:
            raise ValueError(f"{self.name} takes {self.takes} tensors; got {len(tensors)}")
        if not self.built:
            tell_of_build(self)
            self.build(*(tensor.shape for tensor in tensors))
            self.built = True
        return self.call(*tensors)

    def add_weight(
        self,
        name: str,
        shape: Sequence[int | None],
        initializer: Any = "glorot_uniform",
        regularizer: Any = None,
        constraint: Any = None,
        trainable: bool = True,
    ) -> Parameter:
        """Make a parameter; ValueError if an axis of its shape is unknown, or its initializer answers another shape."""
        if None in shape:
            raise ValueError(f"{self.name}: weight {name!r} needs a known shape; got {tuple(shape)}")
        full = tuple(int(n) for n in shape if n is not None)
        value = initializers.get(initializer)(full)
        found = tuple(np.shape(value))
        if found != full:
            raise ValueError(f"{self.name}: the initializer of {name!r} answers shape {found} where {full} is needed")
        parameter = Parameter(f"{self.name}/{name}", value, trainable, regularizer, constraint)
        self.own_parameters.append(parameter)
        return parameter

    @property
    def parameters(self) -> list[Parameter]:
        return list(self.own_parameters)

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of the parameters' values, in the order in which they were made."""
        return [parameter.value.copy() for parameter in self.parameters]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Assign the parameters' values, in the order of `get_weights`; ValueError if numbers or shapes differ."""
        assign_weights(self.name, self.parameters, weights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class _Watchers(threading.local):
    """The lists of those who watch, for each thread its own: others may build layers meanwhile."""

    def __init__(self) -> None:
        self.lists: list[list[Layer]] = []


_watchers = _Watchers()


@contextlib.contextmanager
def watched() -> Iterator[list[Layer]]:
    """Answer a list that layers are put on as they begin to be built inside: `forget` undoes that."""
    _watchers.lists.append([])
    try:
        yield _watchers.lists[-1]
    finally:
        _watchers.lists.pop()


def tell_of_build(layer: Layer) -> None:
    """Put a layer that begins to be built on the lists of all who watch."""
    for watcher in _watchers.lists:
        watcher.append(layer)


def forget(layers: Sequence[Layer]) -> None:
    """Let layers be built anew when they are called next, with parameters of their own again."""
    for layer in layers:
        layer.built, layer.own_parameters = False, []


def weight_options(initializer: Any, regularizer: Any = None, constraint: Any = None) -> tuple[Any, Any, Any]:
    """Return what is asked of a weight, as given; ValueError or TypeError, before it is made, for an unknown name."""
    initializers.get(initializer)
    regularizers.get(regularizer)
    constraints.get(constraint)
    return initializer, regularizer, constraint


def assign_weights(owner: str, parameters: Sequence[Parameter], weights: Sequence[Any]) -> None:
    """Assign values to parameters; ValueError, before any is changed, if their numbers or shapes differ.

    TypeError for anything but lists of real arrays.
    """
    if not isinstance(weights, Iterable):
        raise TypeError(f"{owner}: weights must be a list of arrays; got {weights!r}")
    if isinstance(weights, Mapping):
        kind = type(weights).__name__
        raise TypeError(f"{owner}: weights must be a list of arrays in the layer's order; got {kind}: list its values")
    arrays = [real_array(f"{owner}: weights[{i}]", weight) for i, weight in enumerate(weights)]
    if len(arrays) != len(parameters):
        raise ValueError(
            f"{owner} has {len(parameters)} weights "
            f"({', '.join(p.name for p in parameters) or 'none yet: not built'}); got {len(arrays)}"
        )
    for parameter, array in zip(parameters, arrays):
        if parameter.shape != array.shape:
            raise ValueError(f"{owner}: weight {parameter.name!r} has shape {parameter.shape}; got {array.shape}")
    for parameter, array in zip(parameters, arrays):
        parameter.assign(array)


def _snake_case(name: str) -> str:
    words = "".join(
        f"_{c.lower()}" if c.isupper() and not before.isupper() else c.lower() for before, c in zip("A" + name, name)
    )
    return words.lstrip("_")


def positive_integer(name: str, value: Any) -> int:
    """Return the value as an int; ValueError or TypeError, naming the argument, if it is not a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a positive integer; got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}")
    return int(value)


def dropout_rate(name: str, value: float) -> float:
    """Return a rate; ValueError or TypeError, naming the argument, unless it is a number with 0 <= value < 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, at least 0 and less than 1; got {value!r}")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1; got {value!r}")
    return float(value)


def standard_deviation(name: str, value: float) -> float:
    """Return a standard deviation; ValueError or TypeError, naming the argument, unless it is a number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number, at least 0; got {value!r}")
    if not 0 <= value < np.inf:
        raise ValueError(f"{name} must be at least 0 and finite; got {value!r}")
    return float(value)


def window_size(value: Any) -> int | tuple[int, ...]:
    """Return a kernel_size, for all axes or each; ValueError or TypeError unless it is positive integers."""
    if isinstance(value, Iterable):
        return tuple(positive_integer("kernel_size", n) for n in value)
    return positive_integer("kernel_size", value)
