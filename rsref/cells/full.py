"""What the full cells share: units, activations, the two kernels and the bias with their options, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsref import activations, initializers, ops
from rsref.cells.base import RNNCell
from rsref.layers.base import dropout_rate, positive_integer, weight_options
from rsref.tensor import Input, Shape, Tensor, noise


class FullCell(RNNCell):
    """A cell whose gates are columns of one kernel, one recurrent kernel and one bias, as in Keras.

    units (or `output_dim`, its old name): length of the state. input_dim: checked against the input's last axis.
    activation: of the candidate and the output; recurrent_activation: of the gates.
    kernel_, recurrent_, bias_ initializer, regularizer and constraint: as in Keras.
    dropout, recurrent_dropout: rates for the input and the state h; one mask lasts for a whole sequence (Gal 2016).
    Weights: kernel (features, gates * units), recurrent_kernel (units, gates * units), bias (gates * units,).
    Errors: TypeError for an option that there is not, or of a part that the cell does not have.
    """

    gates = 1
    state_names: tuple[str, ...] = ("h",)

    def __init__(
        self,
        units: int | None = None,
        *,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        input_dim: int | None = None,
        output_dim: int | None = None,
        name: str | None = None,
        **unknown: Any,
    ):
        super().__init__(name)
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no option {', '.join(unknown)}; "
                "those of the loop, such as return_sequences, are for get_layer(...)"
            )
        if units is not None and output_dim is not None and units != output_dim:
            raise ValueError(f"units={units} and output_dim={output_dim} say the same thing: give one of them")
        self.units = positive_integer("units", output_dim if units is None else units)
        self.input_dim = None if input_dim is None else positive_integer("input_dim", input_dim)
        self.activation = activations.get(activation)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.use_bias = use_bias
        self.kernel_options = weight_options(kernel_initializer, kernel_regularizer, kernel_constraint)
        self.recurrent_options = weight_options(recurrent_initializer, recurrent_regularizer, recurrent_constraint)
        self.bias_options = weight_options(bias_initializer, bias_regularizer, bias_constraint)
        self.dropout = dropout_rate("dropout", dropout)
        self.recurrent_dropout = dropout_rate("recurrent_dropout", recurrent_dropout)

    def leaves(self, input_shape: Shape) -> list[Tensor]:
        """Return the input and one state (units,) for each name; ValueError if the input does not fit."""
        if len(input_shape) != 2:
            raise ValueError(f"{self.name} takes an input (batch, features) a step; got shape {input_shape}")
        self.check_input_dim(input_shape)
        return [Input(batch_shape=input_shape, name="x"), *(Input((self.units,), name=n) for n in self.state_names)]

    def check_input_dim(self, input_shape: Shape) -> None:
        """Raise ValueError if the input's last axis is not as long as `input_dim` says."""
        if self.input_dim is not None and input_shape[-1] != self.input_dim:
            raise ValueError(
                f"{self.name} was made for input_dim={self.input_dim}; got an input of shape {input_shape}"
            )

    def kernel(self, features: int | None) -> Tensor:
        """Make the input kernel (features, gates * units)."""
        return self.add_weight("kernel", (features, self.gates * self.units), *self.kernel_options).tensor

    def recurrent_kernel(self) -> Tensor:
        """Make the recurrent kernel (units, gates * units)."""
        shape = (self.units, self.gates * self.units)
        return self.add_weight("recurrent_kernel", shape, *self.recurrent_options).tensor

    def bias(self, initial: np.ndarray | None = None) -> Tensor | float:
        """Make the bias (gates * units,), or answer 0 without one; `initial` stands in for the initializer."""
        if not self.use_bias:
            return 0.0
        initializer, *others = self.bias_options
        start = initializers.get(initializer) if initial is None else initializers.get(initial)
        return self.add_weight("bias", (self.gates * self.units,), start, *others).tensor

    def projected(self, x: Tensor, h: Tensor, bias: Any = None) -> Tensor:
        """Make the three weights and return x kernel + h recurrent_kernel + bias, dropout applied."""
        kernel, recurrent_kernel = self.kernel(x.shape[-1]), self.recurrent_kernel()
        z = ops.matmul(self.dropped_input(x), kernel) + ops.matmul(self.dropped_state(h), recurrent_kernel)
        return self.biased(z, bias)

    def biased(self, z: Tensor, initial: Any = None) -> Tensor:
        """Make the bias and return z with it, or z without one; `initial` as in `bias`."""
        return z + self.bias(initial) if self.use_bias else z

    def dropped_input(self, x: Tensor) -> Tensor:
        return x * noise(x.shape, self.dropout, "sequence") if self.dropout else x

    def dropped_state(self, h: Tensor) -> Tensor:
        return h * noise(h.shape, self.recurrent_dropout, "sequence") if self.recurrent_dropout else h


OF_PARTS = {
    "recurrent kernel": ("recurrent_initializer", "recurrent_regularizer", "recurrent_constraint", "recurrent_dropout"),
    "gates": ("recurrent_activation",),
    "candidate with an activation": ("activation",),
}
"""The options of parts that not every cell has."""


def refuse_options(cell: str, part: str, options: dict[str, Any]) -> None:
    """Raise TypeError for options of a part that the cell does not have."""
    given = [name for name in options if name in OF_PARTS[part]]
    if given:
        raise TypeError(f"{cell} has no {part}: {', '.join(given)} cannot be given")
