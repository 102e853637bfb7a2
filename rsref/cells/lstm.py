"""Long short-term memory: the standard cell, and the one with peepholes."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsref import initializers, ops
from rsref.cells.full import FullCell
from rsref.graph import Model
from rsref.tensor import Shape, Tensor


class LSTMCell(FullCell):
    """c' = f c + i g, h' = o activation(c') (Hochreiter 1997, Gers 2000); Keras's weights, order i, f, g, o.

    States h and c, (units,) each. unit_forget_bias: the forget gate's bias starts at 1 (Jozefowicz 2015).
    """

    gates = 4
    state_names = ("h", "c")

    def __init__(self, units: int | None = None, *, unit_forget_bias: bool = True, **options: Any):
        super().__init__(units, **options)
        self.unit_forget_bias = unit_forget_bias

    def initial_bias(self) -> np.ndarray:
        """Return the bias before training: its initializer's, with 1 for the forget gate."""
        value = np.array(initializers.get(self.bias_options[0])((4 * self.units,)), np.float64)
        if self.unit_forget_bias:
            value[self.units : 2 * self.units] = 1
        return value

    def build_model(self, input_shape: Shape) -> Model:
        x, h, c = self.leaves(input_shape)
        z_i, z_f, z_g, z_o = ops.split(self.projected(x, h, self.initial_bias()), 4, -1)
        new_c = self.recurrent_activation(z_f) * c + self.recurrent_activation(z_i) * self.activation(z_g)
        new_h = self.recurrent_activation(z_o) * self.activation(new_c)
        return Model([x, h, c], [new_h, new_h, new_c])


class PeepholeLSTMCell(LSTMCell):
    """LSTM whose gates see the cell state: i and f see c, o sees c' (Gers and Schmidhuber 2000).

    States h and c, (units,) each. Weights: those of the LSTM, then peephole (3, units) in the order i, f, o.
    """

    def build_model(self, input_shape: Shape) -> Model:
        x, h, c = self.leaves(input_shape)
        z_i, z_f, z_g, z_o = ops.split(self.projected(x, h, self.initial_bias()), 4, -1)
        peephole: Tensor = self.add_weight("peephole", (3, self.units), "glorot_uniform").tensor
        i = self.recurrent_activation(z_i + peephole[0] * c)
        f = self.recurrent_activation(z_f + peephole[1] * c)
        new_c = f * c + i * self.activation(z_g)
        new_h = self.recurrent_activation(z_o + peephole[2] * new_c) * self.activation(new_c)
        return Model([x, h, c], [new_h, new_h, new_c])
