"""Gated recurrent units: the GRU in both of its forms, and the minimal gated unit."""

from __future__ import annotations

from typing import Any

from rsref import ops
from rsref.cells.full import FullCell
from rsref.graph import Model
from rsref.tensor import Shape, Tensor


class GRUCell(FullCell):
    """h' = z h + (1 - z) candidate (Cho 2014); Keras's weights, gates in the order z, r, h. One state (units,).

    reset_after: the reset gate acts after the recurrent product, and the bias has two rows (2, 3 * units), for the
    input and for the state: candidate = activation(x W + b + r (h U + c));
    else candidate = activation(x W + (r h) U + b).
    """

    gates = 3

    def __init__(self, units: int | None = None, *, reset_after: bool = True, **options: Any):
        super().__init__(units, **options)
        self.reset_after = reset_after

    def build_model(self, input_shape: Shape) -> Model:
        x, h = self.leaves(input_shape)
        kernel, recurrent_kernel = self.kernel(x.shape[-1]), self.recurrent_kernel()
        read = self.dropped_state(h)
        from_x = ops.matmul(self.dropped_input(x), kernel)
        new_h = (self._reset_after if self.reset_after else self._reset_before)(from_x, h, read, recurrent_kernel)
        return Model([x, h], [new_h, new_h])

    def _reset_after(self, from_x: Tensor, h: Tensor, read: Tensor, recurrent_kernel: Tensor) -> Tensor:
        from_h = ops.matmul(read, recurrent_kernel)
        if self.use_bias:
            bias = self.add_weight("bias", (2, 3 * self.units), *self.bias_options).tensor
            from_x, from_h = from_x + bias[0], from_h + bias[1]
        n = self.units
        z, r = ops.split(self.recurrent_activation(from_x[:, : 2 * n] + from_h[:, : 2 * n]), 2, -1)
        candidate = self.activation(from_x[:, 2 * n :] + r * from_h[:, 2 * n :])
        return z * h + (1 - z) * candidate

    def _reset_before(self, from_x: Tensor, h: Tensor, read: Tensor, recurrent_kernel: Tensor) -> Tensor:
        n = self.units
        from_x = self.biased(from_x)
        from_h = ops.matmul(read, recurrent_kernel[:, : 2 * n])
        z, r = ops.split(self.recurrent_activation(from_x[:, : 2 * n] + from_h), 2, -1)
        candidate = self.activation(from_x[:, 2 * n :] + ops.matmul(r * read, recurrent_kernel[:, 2 * n :]))
        return z * h + (1 - z) * candidate


class MinimalGatedCell(FullCell):
    """h' = (1 - f) h + f activation(x W + (f h) U + b), one gate f (Zhou 2016). One state (units,); order f, h."""

    gates = 2

    def build_model(self, input_shape: Shape) -> Model:
        x, h = self.leaves(input_shape)
        n = self.units
        kernel, recurrent_kernel = self.kernel(x.shape[-1]), self.recurrent_kernel()
        read = self.dropped_state(h)
        from_x = ops.matmul(self.dropped_input(x), kernel)
        from_x = self.biased(from_x)
        f = self.recurrent_activation(from_x[:, :n] + ops.matmul(read, recurrent_kernel[:, :n]))
        candidate = self.activation(from_x[:, n:] + ops.matmul(f * read, recurrent_kernel[:, n:]))
        new_h = (1 - f) * h + f * candidate
        return Model([x, h], [new_h, new_h])
