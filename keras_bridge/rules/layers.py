"""Rules for layers that cannot be opened, since they call the backend itself: one entry a class of Keras.

A rule is called as those of operations are, with the layer in the operation's place.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_bridge.rules.base import Rule
from rsref import ops


def _softmax(layer: Any, x: Any, mask: Any = None) -> Any:
    """Masked places count as -1e9, and answer 0 where nothing else is left, too."""
    if mask is None:
        return ops.softmax(x, layer.axis)
    mask = mask if mask.dtype == "bool" else ops.greater(mask, 0.5)
    return ops.where(mask, ops.softmax(ops.where(mask, x, -1e9), layer.axis), 0.0)


LAYERS: dict[type, Rule] = {keras.layers.Softmax: _softmax}
