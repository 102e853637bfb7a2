"""LSTM and GRU with layer normalisation inside the step (Ba 2016)."""

from __future__ import annotations

from typing import Any

from rsref import ops
from rsref.cells.gru import GRUCell
from rsref.cells.lstm import LSTMCell
from rsref.graph import Model
from rsref.tensor import Shape, Tensor


class LayerNormLSTMCell(LSTMCell):
    """LSTM with normalised products and cell state (Ba 2016, equations 20 to 22).

    z = LN(x kernel) + LN(h recurrent_kernel) + bias; c' = f c + i g; h' = o activation(LN(c')).
    States h and c, (units,) each. Weights: the LSTM's, then gamma_x and gamma_h (4 * units,), gamma_c and
    beta_c (units,). epsilon: added to the variances, 0.001 by default as in Keras's layer normalisation.
    """

    def __init__(self, units: int | None = None, *, epsilon: float = 1e-3, **options: Any):
        super().__init__(units, **options)
        self.epsilon = epsilon

    def build_model(self, input_shape: Shape) -> Model:
        x, h, c = self.leaves(input_shape)
        kernel, recurrent_kernel = self.kernel(x.shape[-1]), self.recurrent_kernel()
        bias = self.bias(self.initial_bias())
        gain_x, gain_h = (self.add_weight(n, (4 * self.units,), "ones").tensor for n in ("gamma_x", "gamma_h"))
        from_x = _normal(ops.matmul(self.dropped_input(x), kernel), gain_x, self.epsilon)
        from_h = _normal(ops.matmul(self.dropped_state(h), recurrent_kernel), gain_h, self.epsilon)
        z_i, z_f, z_g, z_o = ops.split(from_x + from_h + bias, 4, -1)
        new_c = self.recurrent_activation(z_f) * c + self.recurrent_activation(z_i) * self.activation(z_g)
        gain_c = self.add_weight("gamma_c", (self.units,), "ones").tensor
        shift_c = self.add_weight("beta_c", (self.units,), "zeros").tensor
        normal_c = _normal(new_c, gain_c, self.epsilon) + shift_c
        new_h = self.recurrent_activation(z_o) * self.activation(normal_c)
        return Model([x, h, c], [new_h, new_h, new_c])


class LayerNormGRUCell(GRUCell):
    """GRU with normalised products (Ba 2016, section 3.1, in the form with the reset gate after the product).

    z, r = gates(LN(x W) + LN(h U) + b); candidate = activation(LN(x W_h) + b_h + r LN(h U_h));
    h' = z h + (1 - z) candidate.
    One state (units,). Weights: kernel, recurrent_kernel, bias (3 * units,), gains gamma_x and gamma_h (3 * units,).
    epsilon: added to the variances, 0.001 by default as in Keras's layer normalisation.
    Errors: ValueError for reset_after=False.
    """

    def __init__(self, units: int | None = None, *, epsilon: float = 1e-3, **options: Any):
        super().__init__(units, **options)
        if not self.reset_after:
            raise ValueError(f"{self.name} resets after the recurrent product: reset_after=False cannot be given")
        self.epsilon = epsilon

    def build_model(self, input_shape: Shape) -> Model:
        x, h = self.leaves(input_shape)
        n = self.units
        kernel, recurrent_kernel, bias = self.kernel(x.shape[-1]), self.recurrent_kernel(), self.bias()
        gain_x, gain_h = (self.add_weight(name, (3 * n,), "ones").tensor for name in ("gamma_x", "gamma_h"))
        raw_x = ops.matmul(self.dropped_input(x), kernel)
        raw_h = ops.matmul(self.dropped_state(h), recurrent_kernel)
        # the gates and the candidate are normalised apart, since the reset gate scales the candidate's product alone
        from_x = _normal_parts(raw_x, gain_x, 2 * n, self.epsilon) + bias
        from_h = _normal_parts(raw_h, gain_h, 2 * n, self.epsilon)
        z, r = ops.split(self.recurrent_activation(from_x[:, : 2 * n] + from_h[:, : 2 * n]), 2, -1)
        candidate = self.activation(from_x[:, 2 * n :] + r * from_h[:, 2 * n :])
        new_h = z * h + (1 - z) * candidate
        return Model([x, h], [new_h, new_h])


def _normal(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    normal: Tensor = ops.layer_normalization(x, gain, epsilon=epsilon)
    return normal


def _normal_parts(x: Tensor, gain: Tensor, place: int, epsilon: float) -> Tensor:
    parts = [_normal(x[:, :place], gain[:place], epsilon), _normal(x[:, place:], gain[place:], epsilon)]
    joined: Tensor = ops.concatenate(parts, -1)
    return joined
