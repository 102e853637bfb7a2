"""What Keras's random layers do in training: one entry a class.

A rule takes the layer and a tensor, and answers the layer's result and the noise in it, which comes from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from rsref.tensor import Shape, Tensor, noise


class Uniform(layers.Layer):
    """Adds numbers from 0 to 1 to what it is given: what keras.random.uniform is recorded as."""

    rate = 1.0

    def call(self, x: Any) -> Any:
        return x + keras.random.uniform(keras.ops.shape(x), dtype=x.dtype, seed=self.seed_generator)

    def compute_output_spec(self, x: Any, **_: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


def leaf_of(shape: Shape, **of: Any) -> Tensor:
    """Return noise of a shape (see `rsref.tensor.noise`); ValueError if samples share it, or lengths are unknown."""
    if shape[0] is not None:
        raise ValueError("a dropout mask shared by the samples is not traced")
    if None in shape[1:]:
        raise ValueError(f"a dropout mask of unknown shape {shape} is not traced")
    return noise(shape, **of)


def _mask(layer: Any, x: Tensor) -> Tensor:
    given = layer.noise_shape or (None,) * x.ndim
    return leaf_of(tuple(n if m is None else m for n, m in zip(x.shape, given)), rate=layer.rate)


def _dropout(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    mask = _mask(layer, x)
    return x * mask, mask


def _spatial_dropout(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    channels = 1 if getattr(layer, "data_format", None) == "channels_first" else x.ndim - 1
    mask = leaf_of(tuple(n if axis in (0, channels) else 1 for axis, n in enumerate(x.shape)), rate=layer.rate)
    return x * mask, mask


def _gaussian_dropout(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    scales = leaf_of(x.shape, stddev=math.sqrt(layer.rate / (1 - layer.rate)))
    return x * scales, scales


def _gaussian_noise(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    added = leaf_of(x.shape, stddev=layer.stddev, mean=0.0)
    return x + added, added


def _uniform(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    added = leaf_of(x.shape, width=1.0, mean=0.5)
    return x + added, added


def _alpha_dropout(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """What is dropped saturates, and all is scaled so that mean and variance stay (Klambauer 2017, section 2)."""
    saturated = -1.0507009873554804934193349852946 * 1.6732632423543772848170429916717
    scale = ((1 - layer.rate) * (1 + layer.rate * saturated**2)) ** -0.5
    mask = _mask(layer, x)
    kept = mask * (1 - layer.rate)
    return scale * (x * kept + saturated * (1 - kept)) - scale * saturated * layer.rate, mask


RANDOM_LAYERS: dict[type, Callable[[Any, Tensor], tuple[Tensor, Tensor]]] = {
    layers.Dropout: _dropout,
    layers.SpatialDropout1D: _spatial_dropout,
    layers.SpatialDropout2D: _spatial_dropout,
    layers.SpatialDropout3D: _spatial_dropout,
    layers.GaussianDropout: _gaussian_dropout,
    layers.GaussianNoise: _gaussian_noise,
    layers.AlphaDropout: _alpha_dropout,
    Uniform: _uniform,
}
