"""Cells whose gates see the input alone, so that a parallel scan could run them (Feng 2024, arXiv 2410.01201)."""

from __future__ import annotations

from typing import Any

from rsref import activations, ops
from rsref.cells.full import FullCell, refuse_options
from rsref.graph import Model
from rsref.tensor import Shape, Tensor


class InputGatedCell(FullCell):
    """A cell with no recurrent product: kernel and bias alone. TypeError for options of what it does not have."""

    def __init__(self, units: int | None = None, *, activation: Any = "linear", **options: Any):
        refuse_options(type(self).__name__, "recurrent kernel", options)
        super().__init__(units, activation=activation, **options)

    def parts(self, x: Tensor) -> list[Tensor]:
        """Return x kernel + bias, cut into its gates."""
        z = ops.matmul(self.dropped_input(x), self.kernel(x.shape[-1]))
        parts: list[Tensor] = ops.split(self.biased(z), self.gates, -1)
        return parts


class MinGRUCell(InputGatedCell):
    """h' = (1 - z) h + z activation(x W_h + b_h), z = gate(x W_z + b_z) (Feng 2024, section 3.1). One state (units,).

    Weights: kernel (features, 2 * units), bias (2 * units,); order z, h. The activation is linear, as in the paper.
    """

    gates = 2

    def build_model(self, input_shape: Shape) -> Model:
        x, h = self.leaves(input_shape)
        gate, candidate = self.parts(x)
        z = self.recurrent_activation(gate)
        new_h = (1 - z) * h + z * self.activation(candidate)
        return Model([x, h], [new_h, new_h])


class MinLSTMCell(InputGatedCell):
    """h' = f / (f + i) h + i / (f + i) activation(x W_h + b_h) (Feng 2024, section 3.2). One state (units,).

    f and i are gates of x; where both are 0, half of h is kept, since they are equal.
    Weights: kernel (features, 3 * units), bias (3 * units,); order f, i, h.
    """

    gates = 3

    def build_model(self, input_shape: Shape) -> Model:
        x, h = self.leaves(input_shape)
        z_f, z_i, candidate = self.parts(x)
        kept = self._kept(z_f, z_i)
        new_h = kept * h + (1 - kept) * self.activation(candidate)
        return Model([x, h], [new_h, new_h])

    def _kept(self, z_f: Tensor, z_i: Tensor) -> Tensor:
        """Return f / (f + i)."""
        kept: Tensor
        if self.recurrent_activation is activations.sigmoid:
            # by the gates' logarithms: the gates themselves vanish for great negative z (Feng 2024, appendix B)
            kept = ops.sigmoid(ops.softplus(-z_i) - ops.softplus(-z_f))
            return kept
        f, i = self.recurrent_activation(z_f), self.recurrent_activation(z_i)
        total = f + i
        empty = ops.equal(total, 0.0)
        kept = ops.where(empty, 0.5, f / ops.where(empty, 1.0, total))
        return kept
