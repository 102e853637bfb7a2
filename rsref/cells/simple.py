"""Cells with one matrix product pair and no gates: the simple recurrent network and IndRNN."""

from __future__ import annotations

from typing import Any

from rsref import ops
from rsref.cells.full import FullCell, refuse_options
from rsref.graph import Model
from rsref.tensor import Shape


class UngatedCell(FullCell):
    """A cell with no gates. TypeError for their activation."""

    def __init__(self, units: int | None = None, **options: Any):
        refuse_options(type(self).__name__, "gates", options)
        super().__init__(units, **options)


class SimpleRNNCell(UngatedCell):
    """h' = activation(x kernel + h recurrent_kernel + bias) (Elman 1990); Keras's weights. One state (units,)."""

    def build_model(self, input_shape: Shape) -> Model:
        x, h = self.leaves(input_shape)
        new_h = self.activation(self.projected(x, h))
        return Model([x, h], [new_h, new_h])


class IndRNNCell(UngatedCell):
    """h' = activation(x kernel + h * recurrent_kernel + bias): each unit reads its own past only (Li 2018).

    One state (units,). Weights: kernel (features, units), recurrent_kernel (units,), bias (units,).
    """

    def __init__(
        self,
        units: int | None = None,
        *,
        activation: Any = "relu",
        recurrent_initializer: Any = "random_uniform",
        **options: Any,
    ):
        super().__init__(units, activation=activation, recurrent_initializer=recurrent_initializer, **options)

    def build_model(self, input_shape: Shape) -> Model:
        x, h = self.leaves(input_shape)
        kernel = self.kernel(x.shape[-1])
        own = self.add_weight("recurrent_kernel", (self.units,), *self.recurrent_options).tensor
        z = ops.matmul(self.dropped_input(x), kernel) + self.dropped_state(h) * own
        new_h = self.activation(self.biased(z))
        return Model([x, h], [new_h, new_h])
