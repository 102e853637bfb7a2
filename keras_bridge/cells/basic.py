"""The three classical cells, drawn from Dense, add and multiply: read these to learn how to write one.

The full versions, with Keras's options and weight layout, are in the file beside this one.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import Input, ops
from keras.layers import Activation, Dense, add, multiply

from keras_bridge.cells.base import RNNCell


class BasicCell(RNNCell):
    """What the basic cells share: a number of units, and gates drawn from two Dense layers."""

    def __init__(self, units: int, **options: Any):
        super().__init__(**options)
        self.units = units

    def gate(self, x: Any, h: Any, activation: str) -> Any:
        """activation(x W + h U + b)."""
        return Activation(activation)(add([Dense(self.units)(x), Dense(self.units, use_bias=False)(h)]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("keras_bridge.basic")
class SimpleRNNCell(BasicCell):
    """h' = tanh(x W + h U + b) (Elman 1990). One state (units,)."""

    def build_model(self, input_shape: tuple[int | None, ...]) -> Any:
        x, h = Input(batch_shape=input_shape), Input((self.units,))
        new_h = self.gate(x, h, "tanh")
        return keras.Model([x, h], [new_h, new_h])


@keras.saving.register_keras_serializable("keras_bridge.basic")
class GRUCell(BasicCell):
    """h' = z h + (1 - z) tanh(x W + (r h) U + b), z and r being gates (Cho 2014). One state (units,)."""

    def build_model(self, input_shape: tuple[int | None, ...]) -> Any:
        x, h = Input(batch_shape=input_shape), Input((self.units,))
        z = self.gate(x, h, "sigmoid")
        r = self.gate(x, h, "sigmoid")
        candidate = self.gate(x, multiply([r, h]), "tanh")
        new_h = add([multiply([z, h]), multiply([1 - z, candidate])])
        return keras.Model([x, h], [new_h, new_h])


@keras.saving.register_keras_serializable("keras_bridge.basic")
class LSTMCell(BasicCell):
    """c' = f c + i g, h' = o tanh(c'), i, f and o being gates (Hochreiter 1997, Gers 2000). Two states (units,)."""

    def build_model(self, input_shape: tuple[int | None, ...]) -> Any:
        x, h, c = Input(batch_shape=input_shape), Input((self.units,)), Input((self.units,))
        i = self.gate(x, h, "sigmoid")
        f = self.gate(x, h, "sigmoid")
        g = self.gate(x, h, "tanh")
        o = self.gate(x, h, "sigmoid")
        new_c = add([multiply([f, c]), multiply([i, g])])
        new_h = multiply([o, ops.tanh(new_c)])
        return keras.Model([x, h, c], [new_h, new_h, new_c])
