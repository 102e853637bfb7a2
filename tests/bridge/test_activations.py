"""Activations given as functions: that very function computes, and is saved, whatever its name."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_bridge as kb
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
