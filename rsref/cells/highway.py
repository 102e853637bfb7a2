"""Recurrent highway networks: several layers of depth inside one timestep."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsref import initializers, ops
from rsref.cells.full import FullCell
from rsref.graph import Model
from rsref.layers.base import positive_integer
from rsref.tensor import Shape, noise


class RHNCell(FullCell):
    """Recurrent Highway Network (Zilly 2016, arXiv 1607.03474). One state (units,).

    s_0 = h; for l = 1 ... recurrence_depth: candidate = activation(s R_h + b_h), t = gate(s R_t + b_t), with x W_h
    and x W_t added in the first layer; s = candidate t + s (1 - t). h' is the last s. The carry gate is 1 - t, as in
    the paper's experiments, or has weights of its own with coupled=False.
    Weights: kernel (features, gates * units), then recurrent_kernel_l (units, gates * units) and bias_l a layer, l from
    0; order h, t (and c). transform_bias: where the bias of t starts; negative values keep the state at first.
    """

    gates = 2

    def __init__(
        self,
        units: int | None = None,
        recurrence_depth: int = 1,
        *,
        coupled: bool = True,
        transform_bias: float = -2.0,
        **options: Any,
    ):
        super().__init__(units, **options)
        self.recurrence_depth = positive_integer("recurrence_depth", recurrence_depth)
        self.coupled = coupled
        self.transform_bias = transform_bias
        self.gates = 2 if coupled else 3

    def build_model(self, input_shape: Shape) -> Model:
        x, h = self.leaves(input_shape)
        n, width = self.units, self.gates * self.units
        s, z = h, ops.matmul(self.dropped_input(x), self.kernel(x.shape[-1]))
        mask = noise(h.shape, self.recurrent_dropout, "sequence") if self.recurrent_dropout else None
        for layer in range(self.recurrence_depth):
            weights = self.add_weight(f"recurrent_kernel_{layer}", (n, width), *self.recurrent_options).tensor
            from_s = ops.matmul(s if mask is None else s * mask, weights)
            z = z + from_s if layer == 0 else from_s
            if self.use_bias:
                start = np.array(initializers.get(self.bias_options[0])((width,)), np.float64)
                start[n : 2 * n] += self.transform_bias
                z = z + self.add_weight(f"bias_{layer}", (width,), start, *self.bias_options[1:]).tensor
            candidate = self.activation(z[:, :n])
            t = self.recurrent_activation(z[:, n : 2 * n])
            carry = 1 - t if self.coupled else self.recurrent_activation(z[:, 2 * n :])
            s = candidate * t + s * carry
        return Model([x, h], [s, s])
