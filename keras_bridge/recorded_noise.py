"""Dropout and normal noise that a layer's call draws by keras.random, recorded as what layers of Keras draw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras.src import backend

DROPOUT, NORMAL = backend.random.dropout, backend.random.normal
"""The functions of the backend under those of keras.random."""


@contextlib.contextmanager
def recording_noise() -> Iterator[None]:
    """Let noise that is new for each sample and call be recorded; a whole number as seed draws the same each time."""
    backend.random.dropout, backend.random.normal = _dropout, _normal
    try:
        yield
    finally:
        backend.random.dropout, backend.random.normal = DROPOUT, NORMAL


def _dropout(inputs: Any, rate: Any, noise_shape: Any = None, seed: Any = None) -> Any:
    if not isinstance(inputs, keras.KerasTensor) or isinstance(seed, int):
        return DROPOUT(inputs, rate, noise_shape=noise_shape, seed=seed)
    layer = keras.layers.Dropout(0.0, noise_shape, name="dropout", dtype=inputs.dtype)
    layer.rate = float(rate)
    return _drawn(layer, inputs, seed)


def _normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    if not shape or shape[0] is not None or isinstance(seed, int):
        return NORMAL(shape, mean=mean, stddev=stddev, dtype=dtype, seed=seed)
    zeros = keras.ops.zeros(shape, dtype)
    layer = keras.layers.GaussianNoise(0.0, name="normal", dtype=zeros.dtype)
    layer.stddev = 1.0
    return _drawn(layer, zeros, seed) * stddev + mean


def _drawn(layer: Any, inputs: Any, seed: Any) -> Any:
    """Return what a random layer answers in every mode, with the generator of the layer that asks for it."""
    own = 0 if isinstance(seed, keras.random.SeedGenerator) else None
    vars(layer).update(seed=own, seed_generator=seed)  # past Keras: what a layer holds is its own
    return layer(inputs, training=True)
