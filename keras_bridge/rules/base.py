"""What rules of all kinds share: arguments and attributes of an operation, kinds of dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_bridge.trace_error import TraceError

Rule = Callable[..., Any]
"""Called as `rule(operation, *arguments, **keywords)`, see `keras_bridge.rules`."""


def plain(function: Rule) -> Rule:
    """The operation has no attributes: its arguments are the function's."""
    return lambda operation, *arguments: function(*arguments)


def with_attributes(function: Rule, *attributes: str) -> Rule:
    """Some attributes of the operation follow the arguments."""
    return lambda operation, *arguments: function(*arguments, *(getattr(operation, name) for name in attributes))


def kind_of(dtype: Any) -> str:
    """Return rsref's "float", "int" or "bool" for a Keras dtype.

    Errors: TraceError for complex numbers, floats of 8 bits and text.
    """
    name = keras.backend.standardize_dtype(dtype)
    if name.startswith(("complex", "float8", "string")):
        raise TraceError(f'the dtype {name} has no counterpart in rsref; engine="keras" runs it')
    return "bool" if name == "bool" else "float" if "float" in name else "int"


def whole(operation: Any) -> bool:
    """Whether Keras answers integers, as it does for some operations of nothing but integers."""
    return kind_of(operation.output.dtype) == "int"
