"""Subclasses whose `call` does more than what is known of their kind: they are opened, or refused, never mistaken."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
from keras_bridge.trace_error import TraceError
from tests.tolerances import assert_close

COPIES = {"activation": "linear", "use_bias": False, "kernel_initializer": "identity", "recurrent_initializer": "zeros"}
X = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype("float32")


class Dropout(layers.Layer):
    """Of the name of Keras's, and nothing like it."""

    rate, seed, noise_shape = 0.5, None, None

    def call(self, x):
        return 3 * x


class Add(keras.Operation):
    """Of the name of Keras's, and nothing like it."""

    def call(self, x, y):
        return x + 3 * y

    def compute_output_spec(self, x, y):
        return keras.KerasTensor(x.shape, x.dtype)


class TwiceRNN(layers.SimpleRNN):
    def call(self, sequences, initial_state=None, mask=None, training=False):
        return 2 * super().call(sequences, initial_state=initial_state, mask=mask, training=training)


class TwiceOurs(kb.RecurrentSequential):
    def call(self, sequences, training=None, **options):
        return 2 * super().call(sequences, training=training, **options)


class TwiceCell(layers.SimpleRNNCell):
    def call(self, sequence, states, training=False):
        y, new = super().call(sequence, states, training=training)
        return 2 * y, new


class TwiceOurCell(kb.SimpleRNNCell):
    def call(self, *arguments, **options):
        y, *new = super().call(*arguments, **options)
        return 2 * y, *new


class TwiceFunctional(keras.Model):
    def __init__(self, **options):
        x = keras.Input((5, 4))
        super().__init__(x, layers.LSTM(4, return_sequences=True)(x) if options.pop("deep", True) else x + 1, **options)

    def call(self, x, **options):
        return 2 * super().call(x, **options)

    def get_config(self):
        return {}


class TwiceSequential(keras.Sequential):
    def call(self, x, **options):
        return 2 * super().call(x, **options)


class TwiceBothWays(layers.Bidirectional):
    def call(self, sequences, initial_state=None, mask=None, training=None):
        return 2 * super().call(sequences, initial_state=initial_state, mask=mask, training=training)


def answered(layer, x, **options):
    return ops.convert_to_numpy(layer(x, **options))


OPENED = {
    "a layer": (lambda x: Dropout()(x), lambda x: 3 * x),
    "a model": (lambda x: TwiceFunctional(deep=False)(x), lambda x: 2 * (x + 1)),
    "a stack": (lambda x: TwiceSequential([layers.Dense(4, kernel_initializer="identity")])(x), lambda x: 2 * x),
    "a cell": (lambda x: layers.RNN(TwiceCell(4, **COPIES), return_sequences=True)(x), lambda x: 2 * x),
    "a cell of ours": (
        lambda x: kb.RecurrentSequential([TwiceOurCell(4, **COPIES)], return_sequences=True)(x),
        lambda x: 2 * x,
    ),
}


@pytest.mark.parametrize("engine", ["keras", "reference"])
@pytest.mark.parametrize("kind", OPENED)
def test_what_a_subclass_does_is_traced(kind, engine):
    draw, expected = OPENED[kind]
    x = keras.Input((5, 4))
    layer = kb.RecurrentModel(x, draw(x), return_sequences=True, engine=engine)
    assert_close(answered(layer, X), expected(X), "float32")
    assert_close(answered(layer, X, training=True), expected(X), "float32")


REFUSED = {
    "an operation": (lambda x: Add(name="own")(x, x), lambda x: 4 * x, "own: the operation Add has no counterpart"),
    "a recurrent layer": (
        lambda x: TwiceRNN(4, **COPIES, return_sequences=True, name="own")(x),
        lambda x: 2 * x,
        "own: a recurrent layer with a call of its own inside a step is not traced",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_opened_is_named_and_computed_by_keras(kind):
    draw, expected, words = REFUSED[kind]
    x = keras.Input((5, 4))
    layer = kb.RecurrentModel(x, draw(x), return_sequences=True)
    assert_close(answered(layer, X), expected(X), "float32")
    assert words in layer.explain()
    with pytest.raises(TraceError, match=words):
        answered(kb.RecurrentModel(x, draw(x), return_sequences=True, engine="reference"), X)


def test_a_recurrent_layer_of_ours_with_a_call_of_its_own_is_not_unrolled():
    x = keras.Input((5, 4))
    inner = TwiceOurs([kb.SimpleRNNCell(4, **COPIES)], return_sequences=True)
    inner.build((None, 5, 4))
    layer = kb.RecurrentModel(x, inner(x), return_sequences=True)
    assert_close(answered(layer, X), 2 * X, "float32")
    assert "a recurrent layer with a call of its own" in layer.explain()


@pytest.mark.parametrize(
    "make",
    [
        TwiceFunctional,
        lambda: TwiceSequential([keras.Input((5, 4)), layers.LSTM(3)]),
        lambda: TwiceBothWays(layers.LSTM(3)),
    ],
)
def test_accelerate_leaves_what_it_does_not_know_within_a_model(make):
    own = {kind.__name__: kind for kind in (TwiceFunctional, TwiceSequential, TwiceBothWays)}
    with keras.saving.custom_object_scope(own):
        x = keras.Input((5, 4))
        model = keras.Model(x, layers.LSTM(2)(make()(x)) if make is TwiceFunctional else make()(x))
        fast = kb.accelerate(model, engine="reference")
    assert_close(answered(fast, X[:, 0]), answered(model, X[:, 0]), "float32")


@pytest.mark.parametrize("make", [TwiceFunctional, lambda: TwiceSequential([keras.Input((5, 4)), layers.LSTM(3)])])
def test_accelerate_refuses_a_model_with_a_call_of_its_own(make):
    with pytest.raises(
        ValueError, match=r"accelerate takes Functional and Sequential models; Twice.* has a call of its"
    ):
        kb.accelerate(make())


def test_from_keras_refuses_a_subclass():
    with pytest.raises(TypeError, match=r"from_keras takes .*; got TwiceBothWays"):
        kb.from_keras(TwiceBothWays(layers.LSTM(3)))
