"""The layers that a user draws a step with, under the names of Keras."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rsref import activations, ops
from rsref.layers.base import Layer, positive_integer, weight_options, window_size
from rsref.ops.base import lengths_of
from rsref.tensor import Shape, Tensor


class Dense(Layer):
    """activation(x @ kernel + bias) over the last axis.

    Shapes: (batch, ..., features) gives (batch, ..., units); kernel (features, units), bias (units,).
    """

    takes = 1

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        name: str | None = None,
    ):
        super().__init__(name)
        self.units = positive_integer("units", units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_options = weight_options(kernel_initializer, kernel_regularizer, kernel_constraint)
        self.bias_options = weight_options(bias_initializer, bias_regularizer, bias_constraint)

    def build(self, *shapes: Shape) -> None:
        self.kernel = self.add_weight("kernel", (shapes[0][-1], self.units), *self.kernel_options)
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.units,), *self.bias_options)

    def call(self, *tensors: Tensor) -> Tensor:
        z = ops.matmul(tensors[0], self.kernel.tensor)
        result: Tensor = self.activation(z + self.bias.tensor if self.use_bias else z)
        return result


class Embedding(Layer):
    """Rows of a table named by integers. Shapes: (batch, ...) of int gives (batch, ..., output_dim)."""

    takes = 1

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "random_uniform",
        name: str | None = None,
    ):
        super().__init__(name)
        self.input_dim = positive_integer("input_dim", input_dim)
        self.output_dim = positive_integer("output_dim", output_dim)
        self.embeddings_options = weight_options(embeddings_initializer)

    def build(self, *shapes: Shape) -> None:
        shape = (self.input_dim, self.output_dim)
        self.embeddings = self.add_weight("embeddings", shape, *self.embeddings_options)

    def call(self, *tensors: Tensor) -> Tensor:
        result: Tensor = ops.embedding(tensors[0], self.embeddings.tensor)
        return result


class LayerNormalization(Layer):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis (Ba 2016); epsilon as Keras's."""

    takes = 1

    def __init__(self, epsilon: float = 1e-3, center: bool = True, scale: bool = True, name: str | None = None):
        super().__init__(name)
        self.epsilon, self.center, self.scale = epsilon, center, scale

    def build(self, *shapes: Shape) -> None:
        self.gamma = self.add_weight("gamma", shapes[0][-1:], "ones") if self.scale else None
        self.beta = self.add_weight("beta", shapes[0][-1:], "zeros") if self.center else None

    def call(self, *tensors: Tensor) -> Tensor:
        result: Tensor = ops.layer_normalization(
            tensors[0],
            self.gamma.tensor if self.gamma else None,
            self.beta.tensor if self.beta else None,
            epsilon=self.epsilon,
        )
        return result


class RMSNormalization(Layer):
    """x / sqrt(mean(x^2) + epsilon) * scale over the last axis (Zhang and Sennrich 2019)."""

    takes = 1

    def __init__(self, epsilon: float = 1e-6, name: str | None = None):
        super().__init__(name)
        self.epsilon = epsilon

    def build(self, *shapes: Shape) -> None:
        self.scale = self.add_weight("scale", shapes[0][-1:], "ones")

    def call(self, *tensors: Tensor) -> Tensor:
        result: Tensor = ops.rms_normalization(tensors[0], self.scale.tensor, epsilon=self.epsilon)
        return result


class Conv(Layer):
    """Convolution over the spatial axes of (batch, *spatial, channels); see `rsref.ops.conv`."""

    takes = 1

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        name: str | None = None,
    ):
        super().__init__(name)
        self.filters, self.kernel_size = positive_integer("filters", filters), window_size(kernel_size)
        self.options = (strides, padding, dilation_rate)
        self.groups = positive_integer("groups", groups)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_options, self.bias_options = weight_options(kernel_initializer), weight_options(bias_initializer)

    def build(self, *shapes: Shape) -> None:
        shape = shapes[0]
        axes = len(shape) - 2
        window = (self.kernel_size,) * axes if isinstance(self.kernel_size, int) else self.kernel_size
        if len(window) != axes:
            raise ValueError(f"{self.name}: kernel_size {self.kernel_size} does not fit an input of shape {shape}")
        channels = shape[-1]
        if channels is None or channels % self.groups or self.filters % self.groups:
            raise ValueError(f"{self.name}: {channels} channels and {self.filters} filters in {self.groups} groups")
        kernel_shape = (*window, channels // self.groups, self.filters)
        self.kernel = self.add_weight("kernel", kernel_shape, *self.kernel_options)
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.filters,), *self.bias_options)

    def call(self, *tensors: Tensor) -> Tensor:
        z = ops.conv(tensors[0], self.kernel.tensor, *self.options)
        result: Tensor = self.activation(z + self.bias.tensor if self.use_bias else z)
        return result


class Lambda(Layer):
    """Any function of tensors as a layer."""

    def __init__(self, function: Callable[..., Any], name: str | None = None):
        super().__init__(name)
        self.function = function

    def call(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


class Activation(Lambda):
    """An activation by name or function; see `rsref.activations`."""

    takes = 1

    def __init__(self, activation: Any, name: str | None = None):
        super().__init__(activations.get(activation), name)


class Flatten(Layer):
    """(batch, ...) gives (batch, features)."""

    takes = 1

    def call(self, *tensors: Tensor) -> Tensor:
        shape = tensors[0].shape[1:]
        lengths = [n for n in shape if n is not None]
        if len(lengths) < len(shape):
            raise ValueError(f"{self.name}: the axes after the batch must be known; got {tensors[0].shape}")
        result: Tensor = ops.reshape(tensors[0], (None, math.prod(lengths)))
        return result


class Reshape(Layer):
    """The axes after the batch in another shape."""

    takes = 1

    def __init__(self, target_shape: Sequence[int], name: str | None = None):
        super().__init__(name)
        self.target_shape = lengths_of("target_shape", target_shape, -1)

    def call(self, *tensors: Tensor) -> Tensor:
        result: Tensor = ops.reshape(tensors[0], (None, *self.target_shape))
        return result


class Permute(Layer):
    """The axes after the batch, numbered from 1, in another order."""

    takes = 1

    def __init__(self, dims: Sequence[int], name: str | None = None):
        super().__init__(name)
        self.dims = tuple(positive_integer("dims", n) for n in dims)

    def call(self, *tensors: Tensor) -> Tensor:
        result: Tensor = ops.transpose(tensors[0], (0, *self.dims))
        return result


class RepeatVector(Layer):
    """(batch, features) gives (batch, n, features)."""

    takes = 1

    def __init__(self, n: int, name: str | None = None):
        super().__init__(name)
        self.n = positive_integer("n", n)

    def call(self, *tensors: Tensor) -> Tensor:
        result: Tensor = ops.broadcast_to(ops.expand_dims(tensors[0], 1), (None, self.n, None))
        return result
