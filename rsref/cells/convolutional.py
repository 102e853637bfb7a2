"""LSTM whose products are convolutions, for sequences of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsref import ops
from rsref.cells.lstm import LSTMCell
from rsref.layers.base import window_size
from rsref.tensor import Input, Shape, Tensor


class ConvLSTMCell(LSTMCell):
    """LSTM with convolutions over 1, 2 or more spatial axes (Shi 2015); weights as `keras.layers.ConvLSTM2D`.

    Input (batch, *spatial, channels); states h and c, (*positions, filters) each.
    kernel_size, strides, padding, dilation_rate: of the input's convolution, see `rsref.ops.conv`; the state's has
    stride 1 and padding "same".
    Weights: kernel (*window, channels, 4 * filters), recurrent_kernel (*window, filters, 4 * filters),
    bias (4 * filters,); order i, f, g, o.
    Errors: ValueError if a spatial axis is unknown or does not fit kernel_size; TypeError for units instead
        of filters.
    """

    def __init__(
        self,
        filters: int | None = None,
        kernel_size: int | Sequence[int] = 3,
        *,
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        **options: Any,
    ):
        if "units" in options:
            raise TypeError(f"{type(self).__name__} has filters; got units={options['units']!r}")
        super().__init__(filters, **options)
        self.kernel_size = window_size(kernel_size)
        self.convolution = (strides, padding, dilation_rate)

    @property
    def filters(self) -> int:
        return self.units

    def leaves(self, input_shape: Shape) -> list[Tensor]:
        if len(input_shape) < 3 or None in input_shape[1:]:
            raise ValueError(
                f"{self.name} takes an input (batch, *spatial, channels) of known lengths a step; got {input_shape}"
            )
        self.check_input_dim(input_shape)
        axes = len(input_shape) - 2
        size = self.kernel_size
        self.window = (size,) * axes if isinstance(size, int) else size
        if len(self.window) != axes:
            raise ValueError(f"{self.name}: kernel_size {size!r} does not fit an input of shape {input_shape}")
        x = Input(batch_shape=input_shape, name="x")
        kernel = self.kernel(input_shape[-1])
        self._from_x = ops.conv(self.dropped_input(x), kernel, *self.convolution)
        state = (*self._from_x.shape[1:-1], self.units)
        return [x, *(Input(state, name=name) for name in self.state_names)]

    def kernel(self, features: int | None) -> Tensor:
        """Make the input kernel (*window, channels, 4 * filters)."""
        return self.add_weight("kernel", (*self.window, features, 4 * self.units), *self.kernel_options).tensor

    def recurrent_kernel(self) -> Tensor:
        """Make the recurrent kernel (*window, filters, 4 * filters)."""
        shape = (*self.window, self.units, 4 * self.units)
        return self.add_weight("recurrent_kernel", shape, *self.recurrent_options).tensor

    def projected(self, x: Tensor, h: Tensor, bias: Any = None) -> Tensor:
        z = self._from_x + ops.conv(self.dropped_state(h), self.recurrent_kernel(), 1, "same")
        return self.biased(z, bias)
