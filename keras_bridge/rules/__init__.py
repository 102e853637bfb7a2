"""How Keras's operations are said with rsref's: one entry an operation class, found by its name.

A rule is called as `rule(operation, *arguments, **keywords)`: the operation holds its attributes (axis, keepdims, ...),
the arguments are rsref tensors, arrays and plain values. It answers one rsref tensor or a list of them.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from keras_bridge.rules import pointwise, products, reductions, structure
from keras_bridge.rules.base import Rule, kind_of
from keras_bridge.rules.integers import in_range
from keras_bridge.rules.layers import LAYERS
from keras_bridge.stock import is_stock
from rsref.tensor import Tensor

__all__ = ["LAYERS", "RULES", "apply_rule", "kind_of"]

RULES: dict[str, Rule] = {
    **pointwise.RULES,
    **reductions.RULES,
    **products.RULES,
    **structure.RULES,
}


def apply_rule(operation: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[Tensor] | None:
    """Return the operation's results as rsref tensors, or None if there is no rule for it."""
    rule = RULES.get(type(operation).__name__)
    if rule is None or isinstance(operation, keras.layers.Layer) or not is_stock(operation):
        return None
    result = rule(operation, *arguments, **keywords)
    results = list(result) if isinstance(result, list | tuple) else [result]
    return [in_range(operation, one, own.dtype) for one, own in zip(results, tree.flatten(operation.output))]
