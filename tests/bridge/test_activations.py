"""Activations given as functions: that very function computes, and is saved, whatever its name."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_bridge as kb
from keras_bridge.trace_error import TraceError
from tests.tolerances import assert_close

X = 2 * np.random.default_rng(0).standard_normal((2, 3, 4)).astype("float32")


def tanh(x):
    """LeCun's, under the name of Keras's."""
    return 1.7159 * ops.tanh(2 * x / 3)


@keras.saving.register_keras_serializable()
def cubed(x):
    return x * x * x


FUNCTIONS = {
    "an op that approximates": ops.gelu,
    "the name of another": tanh,
    "a partial": functools.partial(ops.leaky_relu, negative_slope=0.4),
    "a layer": keras.layers.LeakyReLU(0.3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_not_taken_for_another_of_its_name(name):
    layer = kb.LSTMCell(3, activation=FUNCTIONS[name]).get_layer(engine="reference")
    peer = keras.layers.LSTM(3, activation=FUNCTIONS[name])
    expected = peer(X)
    layer.build(X.shape)
    layer.set_weights(peer.get_weights())
    assert_close(ops.convert_to_numpy(layer(X)), ops.convert_to_numpy(expected), "float32")
    if name != "a partial":  # of which Keras's layer has no config
        converted = kb.from_keras(peer, engine="reference")(X)
        assert_close(ops.convert_to_numpy(converted), ops.convert_to_numpy(expected), "float32")


def test_the_layers_of_a_traced_step_have_any_activation_of_keras():
    others = ("get", "serialize", "deserialize", "glu", "threshold", "sparsemax")  # for the last see below
    names = sorted(name for name in vars(keras.activations) if name[0] != "_" and name not in others)
    assert {"mish", "hard_silu", "gelu", "softmax"} < {*names}
    x = keras.Input((4,))
    answers = [keras.layers.Dense(3, activation=name)(x) for name in names]
    layer = kb.RecurrentModel(x, answers, engine="reference", return_sequences=True)
    for found, expected in zip(layer(X), keras.Model(x, answers)(X.reshape(-1, 4)), strict=True):
        assert_close(ops.convert_to_numpy(found).reshape(-1, 3), ops.convert_to_numpy(expected), "float32")


def test_what_keras_calls_sparsemax_is_not_traced():
    """Its answers need not add up to 1; if one day they do, it can have a rule."""
    assert abs(float(ops.sum(ops.sparsemax(ops.array([[1.2, 0.3]])))) - 1) > 0.1
    x = keras.Input((4,))
    with pytest.raises(TraceError, match=r"operation Sparsemax has no counterpart in rsref"):
        kb.RecurrentModel(x, keras.layers.Dense(3, activation="sparsemax")(x), engine="reference")(X)


def test_an_activation_has_no_weights():
    with pytest.raises(ValueError, match=r"PReLU.* has weights: put it behind the cell"):
        kb.GRUCell(3, activation=keras.layers.PReLU()).get_layer().build(X.shape)


@pytest.mark.parametrize("function", [ops.gelu, ops.tanh, keras.activations.gelu, cubed])
def test_a_function_is_loaded_as_itself(function):
    again = kb.GRUCell.from_config(kb.GRUCell(3, activation=function).get_config())
    assert keras.activations.get(again.options["activation"]) is function


def test_a_function_that_would_be_loaded_as_another_is_not_saved():
    cell = kb.GRUCell(3, activation=tanh)
    with pytest.raises(ValueError, match="Keras has another one named 'tanh'"):
        cell.get_config()
