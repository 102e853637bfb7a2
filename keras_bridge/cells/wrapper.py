"""A recurrent cell around any Keras layer that has no state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras.layers import add, average, concatenate, maximum, multiply

from keras_bridge.cells.base import RNNCell, as_cell

MERGES = {"concatenate": concatenate, "add": add, "multiply": multiply, "average": average, "maximum": maximum}


@keras.saving.register_keras_serializable("keras_bridge")
class LayerCell(RNNCell):
    """h' = layer(merge([x, h])): any layer without states made recurrent. One state, the layer's last output.

    state_shape: the shape of the layer's output without the batch axis, an integer for a vector; the input's if
        not given.
    merge: "concatenate" (along the last axis), "add", "multiply", "average" or "maximum".
    Errors: ValueError if the layer's output does not have the state's shape, TypeError if `layer` is a cell.
    """

    def __init__(
        self,
        layer: Any,
        state_shape: int | Sequence[int] | None = None,
        merge: str = "concatenate",
        **options: Any,
    ):
        super().__init__(**options)
        if not isinstance(layer, keras.layers.Layer) or as_cell(layer) is not None:
            raise TypeError(f"{self.name} wraps a Keras layer without states; got {type(layer).__name__}")
        if merge not in MERGES:
            raise ValueError(f"merge must be one of {tuple(MERGES)}; got {merge!r}")
        self.layer, self.merge = layer, merge
        self.state_shape = (state_shape,) if isinstance(state_shape, int) else state_shape

    def build_model(self, input_shape: tuple[int | None, ...]) -> Any:
        x = keras.Input(batch_shape=input_shape)
        h = keras.Input(tuple(input_shape[1:] if self.state_shape is None else self.state_shape))
        new_h = self.layer(MERGES[self.merge]([x, h]))
        if tuple(new_h.shape) != tuple(h.shape):
            raise ValueError(
                f"{self.name}: the layer {self.layer.name} answers the shape {tuple(new_h.shape)} where the state has "
                f"{tuple(h.shape)}: give state_shape={tuple(new_h.shape[1:])}"
            )
        return keras.Model([x, h], [new_h, new_h])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "state_shape": self.state_shape,
            "merge": self.merge,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LayerCell:
        config = dict(config)
        return cls(keras.saving.deserialize_keras_object(config.pop("layer")), **config)
