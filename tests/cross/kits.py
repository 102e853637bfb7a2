"""The same names from rsref and from Keras with keras_bridge: a case is drawn once and runs on both."""

from types import SimpleNamespace

import keras

import keras_bridge
import rsref


@keras.saving.register_keras_serializable("tests")
class Shifted(keras.layers.Layer):
    """A subclassed Keras layer built of ops: x + 0.5 tanh(x)."""

    def call(self, x):
        return x + 0.5 * keras.ops.tanh(x)


RSREF = SimpleNamespace(
    **{name: getattr(rsref, name) for name in ("Input", "Dense", "Activation", "Learned", "add", "multiply")},
    **{name: getattr(rsref, name) for name in ("concatenate", "RecurrentModel", "RecurrentSequential", "ops")},
    Conv=rsref.Conv,
    LayerNormalization=rsref.LayerNormalization,
    cells=rsref.cells,
    shifted=lambda name: rsref.Lambda(lambda x: x + 0.5 * rsref.ops.tanh(x), name=name),
)
KERAS = SimpleNamespace(
    **{name: getattr(keras.layers, name) for name in ("Dense", "Activation", "add", "multiply", "concatenate")},
    **{name: getattr(keras_bridge, name) for name in ("RecurrentModel", "RecurrentSequential", "Learned", "cells")},
    Input=keras.Input,
    ops=keras.ops,
    Conv=keras.layers.Conv1D,
    LayerNormalization=keras.layers.LayerNormalization,
    shifted=lambda name: Shifted(name=name),
)


def parameter_key(path):
    """Return the end of a weight's path, by which the two libraries' weights are paired."""
    parts = path.split("/")
    return parts[-1] if parts[-1].startswith("initial_state") else "/".join(parts[-2:])
