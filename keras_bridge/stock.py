"""Whether what is known of a kind of Keras's operations may stand for one of them."""

from __future__ import annotations

from typing import Any

import keras


def is_stock(operation: Any) -> bool:
    """Whether an operation or layer has the `call` that Keras, or this package, wrote, and none of a subclass's own."""
    call = vars(operation).get("call") or type(operation).call
    return getattr(call, "__module__", "").startswith(("keras.src.", "keras_bridge."))


def is_graph(layer: Any) -> bool:
    """Whether a layer is a Functional or Sequential model that does what its graph says, and nothing else."""
    functional = isinstance(layer, keras.Model) and hasattr(layer, "_nodes_by_depth")
    return (functional or isinstance(layer, keras.Sequential)) and is_stock(layer)
