"""Weights of a Keras layer in one of rsref: what both compute is the same, whatever order each lists weights in."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
import rsref
from keras_bridge.cells import basic as of_keras
from rsref.cells import basic as of_rsref
from tests.tolerances import assert_close

X = np.random.default_rng(0).standard_normal((3, 4, 5)).astype("float32")


class Names:
    """Keras's names as rsref has them."""

    Input, Dense, Activation, Dropout = keras.Input, layers.Dense, layers.Activation, layers.Dropout
    add, multiply = staticmethod(layers.add), staticmethod(layers.multiply)


def mixed_up(names):
    """Layers that are made in one order, read in another, and stand at several depths; one twice."""
    x, h = names.Input((5,)), names.Input((5,))
    a, b, c = names.Dense(5), names.Dense(5), names.Dense(5)
    new = names.Activation("tanh")(names.add([c(x), a(b(h)), a(x), names.Dropout(0.4)(names.Dense(5)(h))]))
    return x, new, h, new


DRAWN = {
    "a drawn step": (lambda: kb.RecurrentModel(*mixed_up(Names)), lambda: rsref.RecurrentModel(*mixed_up(rsref))),
    "learned states": (
        lambda: of_keras.LSTMCell(5).get_layer(state_initializer=["learned", None]),
        lambda: of_rsref.LSTMCell(5).get_layer(state_initializer=["learned", None]),
    ),
    **{
        name: (
            lambda name=name: getattr(of_keras, name)(5).get_layer(return_sequences=True),
            lambda name=name: getattr(of_rsref, name)(5).get_layer(return_sequences=True),
        )
        for name in ("SimpleRNNCell", "GRUCell", "LSTMCell")
    },
    **{
        f"{name} with dropout": (
            lambda name=name: getattr(kb, name)(5, dropout=0.2).get_layer(),
            lambda name=name: getattr(rsref, name)(5, dropout=0.2).get_layer(),
        )
        for name in ("GRUCell", "PeepholeLSTMCell")
    },
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_copied_computes_the_same(name):
    layer, own = (make() for make in DRAWN[name])
    for one in (layer, own):
        one(X)
    layer.set_weights([np.random.default_rng(i).standard_normal(w.shape) for i, w in enumerate(layer.get_weights())])
    before = own(X)
    kb.copy_weights(layer, own)
    expected = ops.convert_to_numpy(layer(X))
    assert np.abs(before - expected).max() > 0.1
    assert_close(own(X), expected, "float32")
    own.set_weights([0.5 * w for w in own.get_weights()])
    kb.copy_weights(own, layer)
    assert_close(ops.convert_to_numpy(layer(X)), own(X), "float32")


def other(names, function="tanh", swapped=False, tied=False):
    x, h = names.Input((5,)), names.Input((5,))
    a = names.Dense(5)
    sums = [a(h if swapped else x), (a if tied else names.Dense(5))(x if swapped else h)]
    new = names.Activation(function)(names.add(sums))
    return x, new, h, new


def built(layer):
    layer(X)
    return layer


WRONG = {
    "another function": ({"function": "sigmoid"}, "not drawn alike: .* is tanh .*, where .* is sigmoid"),
    "inputs that changed places": (
        {"swapped": True},
        "not drawn alike: .* (state|input) 0 of shape .*, where .* (input|state) 0 of",
    ),
    "weights that are the same": ({"tied": True}, "two weights of one stand where the same weight of the other does"),
}


@pytest.mark.parametrize("what", WRONG)
def test_steps_that_are_drawn_otherwise_are_named(what):
    options, words = WRONG[what]
    layer, own = kb.RecurrentModel(*other(Names)), rsref.RecurrentModel(*other(rsref, **options))
    with pytest.raises(ValueError, match=words):
        kb.copy_weights(built(layer), own)


def test_misuse_is_named():
    own, layer = rsref.RecurrentModel(*other(rsref)), kb.RecurrentModel(*other(Names))
    for pair in ((own, own), (layer, layer), (layer, keras.layers.LSTM(3)), (own, None)):
        with pytest.raises(TypeError, match="takes a recurrent layer of keras_bridge and one of rsref; got"):
            kb.copy_weights(*pair)
    with pytest.raises(ValueError, match="is not built: call it once, or build it"):
        kb.copy_weights(kb.GRUCell(3).get_layer(), own)
    with pytest.raises(ValueError, match="one has more outputs or states"):
        kb.copy_weights(built(of_keras.LSTMCell(5).get_layer()), own)
    learned = rsref.RecurrentModel(*other(rsref), state_initializer="learned")
    with pytest.raises(ValueError, match="have not the same learned initial states"):
        kb.copy_weights(layer, learned)
