"""Integers of fewer bits than rsref's 64: what leaves their range comes back at its other end, as in Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_bridge.rules import products, structure
from keras_bridge.rules.base import kind_of
from rsref import ops
from rsref.tensor import Tensor

NARROW = ("int8", "int16", "uint8", "uint16", "uint32")
PRODUCTS = (*products.RULES, "Multiply", "Square", "Power", "Prod", "Nanprod", "Cumprod")
"""Whose results are taken into the range of int32: counters and places, which are sums, are left as they are."""

WIDER = {"uint16": "int32", "uint32": "int64"}
"""What Keras computes in on PyTorch."""


def in_range(operation: Any, result: Tensor, dtype: Any) -> Tensor:
    """Return the result of an operation, given its Keras dtype."""
    kind, name = keras.backend.standardize_dtype(dtype), type(operation).__name__
    if kind_of(kind) != "int":
        return result
    if keras.backend.backend() == "torch":
        kind = WIDER.get(kind, kind)
    if name in structure.RULES or not (kind in NARROW or (kind == "int32" and name in PRODUCTS)):
        return result
    range_ = np.iinfo(kind)
    values = int(range_.max) - int(range_.min) + 1
    return result - values * ops.floor_divide(result - int(range_.min), values)
