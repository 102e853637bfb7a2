"""Recurrent weighted average: attention over all past steps, kept as running sums."""

from __future__ import annotations

from rsref import ops
from rsref.cells.simple import UngatedCell
from rsref.graph import Model
from rsref.tensor import Shape


class RWACell(UngatedCell):
    """Recurrent weighted average (Ostmeyer and Cowell 2017, arXiv 1703.01253), in the paper's stable form.

    u = x W_u + b_u; g = [x, h] W_g + b_g; a = [x, h] W_a; with the running maximum m' = max(m, a):
    n' = n exp(m - m') + u tanh(g) exp(a - m'); d' = d exp(m - m') + exp(a - m'); h' = activation(n' / d').
    States h, n, d and m, (units,) each; they start from zeros, and a zero d marks the empty average.
    Weights: kernel (features, 3 * units) in the order u, g, a; recurrent_kernel (units, 2 * units)
    in the order g, a; bias (2 * units,) in the order u, g.
    """

    gates = 3
    state_names = ("h", "n", "d", "m")

    def build_model(self, input_shape: Shape) -> Model:
        x, h, n, d, m = self.leaves(input_shape)
        size = self.units
        from_x = ops.matmul(self.dropped_input(x), self.kernel(x.shape[-1]))
        recurrent = self.add_weight("recurrent_kernel", (size, 2 * size), *self.recurrent_options).tensor
        from_h = ops.matmul(self.dropped_state(h), recurrent)
        u, g, a = ops.split(from_x, 3, -1)
        g, a = g + from_h[:, :size], a + from_h[:, size:]
        if self.use_bias:
            bias = self.add_weight("bias", (2 * size,), *self.bias_options).tensor
            u, g = u + bias[:size], g + bias[size:]
        past = ops.where(d <= 0, a, m)  # an empty average has no maximum yet
        new_m = ops.maximum(past, a)
        kept, added = ops.exp(past - new_m), ops.exp(a - new_m)
        new_n = n * kept + u * ops.tanh(g) * added
        new_d = d * kept + added
        new_h = self.activation(new_n / new_d)
        return Model([x, h, n, d, m], [new_h, new_h, new_n, new_d, new_m])
