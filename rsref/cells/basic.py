"""The three classical cells, drawn from Dense, add and multiply: read these to learn how to write one.

The full versions, with Keras's options and weight layout, are in the files beside this one.
"""

from __future__ import annotations

from rsref import ops
from rsref.cells.base import RNNCell
from rsref.graph import Model
from rsref.layers import Activation, Dense, add, multiply
from rsref.layers.base import positive_integer
from rsref.tensor import Input, Shape, Tensor


class BasicCell(RNNCell):
    """What the basic cells share: a number of units, and gates drawn from two Dense layers."""

    def __init__(self, units: int, name: str | None = None):
        super().__init__(name)
        self.units = positive_integer("units", units)

    def gate(self, x: Tensor, h: Tensor, activation: str) -> Tensor:
        """activation(x W + h U + b)."""
        return Activation(activation)(add([Dense(self.units)(x), Dense(self.units, use_bias=False)(h)]))


class SimpleRNNCell(BasicCell):
    """h' = tanh(x W + h U + b) (Elman 1990). One state (units,)."""

    def build_model(self, input_shape: Shape) -> Model:
        x, h = Input(batch_shape=input_shape), Input((self.units,))
        new_h = self.gate(x, h, "tanh")
        return Model([x, h], [new_h, new_h])


class GRUCell(BasicCell):
    """h' = z h + (1 - z) tanh(x W + (r h) U + b), z and r being gates (Cho 2014). One state (units,)."""

    def build_model(self, input_shape: Shape) -> Model:
        x, h = Input(batch_shape=input_shape), Input((self.units,))
        z = self.gate(x, h, "sigmoid")
        r = self.gate(x, h, "sigmoid")
        candidate = self.gate(x, multiply([r, h]), "tanh")
        new_h = add([multiply([z, h]), multiply([1 - z, candidate])])
        return Model([x, h], [new_h, new_h])


class LSTMCell(BasicCell):
    """c' = f c + i g, h' = o tanh(c'), i, f and o being gates (Hochreiter 1997, Gers 2000). Two states (units,)."""

    def build_model(self, input_shape: Shape) -> Model:
        x, h, c = Input(batch_shape=input_shape), Input((self.units,)), Input((self.units,))
        i = self.gate(x, h, "sigmoid")
        f = self.gate(x, h, "sigmoid")
        g = self.gate(x, h, "tanh")
        o = self.gate(x, h, "sigmoid")
        new_c = add([multiply([f, c]), multiply([i, g])])
        new_h = multiply([o, ops.tanh(new_c)])
        return Model([x, h, c], [new_h, new_h, new_c])
