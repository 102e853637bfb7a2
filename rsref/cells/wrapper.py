"""A recurrent cell around any layer that has no state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsref.cells.base import RNNCell
from rsref.graph import Model
from rsref.layers.base import Layer
from rsref.layers.merging import add, average, concatenate, maximum, multiply
from rsref.ops.base import lengths_of
from rsref.tensor import Input, Shape

MERGES = {"concatenate": concatenate, "add": add, "multiply": multiply, "average": average, "maximum": maximum}


class LayerCell(RNNCell):
    """h' = layer(merge(x, h)): any layer without states made recurrent. One state, the layer's last output.

    layer: a layer, or any function of one tensor.
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
        name: str | None = None,
    ):
        super().__init__(name)
        if isinstance(layer, RNNCell) or not callable(layer):
            raise TypeError(f"{self.name} wraps a layer or a function of one tensor; got {layer!r}")
        if merge not in MERGES:
            raise ValueError(f"merge must be one of {tuple(MERGES)}; got {merge!r}")
        self.layer, self.merge = layer, merge
        self.state_shape = None if state_shape is None else lengths_of("state_shape", state_shape)

    def build_model(self, input_shape: Shape) -> Model:
        x = Input(batch_shape=input_shape, name="x")
        h = Input(input_shape[1:] if self.state_shape is None else self.state_shape, name="h")
        new_h = self.layer(MERGES[self.merge]([x, h]))
        if new_h.shape != h.shape:
            shown = self.layer.name if isinstance(self.layer, Layer) else self.layer
            raise ValueError(
                f"{self.name}: the layer {shown} answers the shape {new_h.shape} where the state has {h.shape}: "
                f"give state_shape={tuple(new_h.shape[1:])}"
            )
        return Model([x, h], [new_h, new_h])
