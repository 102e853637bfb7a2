"""Keras's random layers and cells in a step, in training: drawn as Keras draws, differentiated with what was drawn."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
import rsref
from keras_bridge.trace import trace
from keras_bridge.trace_error import TraceError
from tests.bridge.test_training import ENGINES
from tests.tolerances import assert_close

TRACED = ("reference", "fast")
NOISY = {
    "noise": lambda **options: layers.GaussianNoise(0.3, **options),
    "gaussian dropout": lambda **options: layers.GaussianDropout(0.2, **options),
    "alpha dropout": lambda **options: layers.AlphaDropout(0.25, **options),
}


def answered(layer, x, **options):
    return ops.convert_to_numpy(layer(x, **options))


@pytest.mark.parametrize("engine", ["keras", *TRACED])
@pytest.mark.parametrize("kind", NOISY)
def test_random_layers_have_the_moments_of_keras(kind, engine):
    """Keras's layer, called on all steps at once, is the judge."""
    x = keras.Input((30,))
    layer = kb.RecurrentModel(x, NOISY[kind](seed=5)(x), return_sequences=True, engine=engine)
    values = np.full((100, 20, 30), 1.5, "float32")
    found, expected = answered(layer, values, training=True), answered(NOISY[kind](seed=6), values, training=True)
    assert abs(found.mean() - expected.mean()) < 0.02 * expected.std()
    assert abs(found.std() / expected.std() - 1) < 0.02
    for axis in range(3):
        assert np.abs(np.diff(found, axis=axis)).max() > expected.std()
    np.testing.assert_array_equal(answered(layer, values), values)
    if kind == "alpha dropout":
        assert_close(np.unique(found), np.unique(expected), "float32")


@pytest.mark.parametrize("engine", TRACED)
def test_gradients_are_those_of_the_noise_that_was_drawn(engine):
    """All steps are drawn at once by the layer's own generator, so Keras can be asked for the same numbers."""
    x = keras.Input((4,))
    noisy = layers.GaussianDropout(0.2, seed=8)(layers.GaussianNoise(0.3, seed=7)(x))
    dense = layers.Dense(3, use_bias=False)
    layer = kb.RecurrentModel(x, dense(noisy), return_sequences=True, engine=engine)
    model = keras.Sequential([keras.Input((5, 4)), layer])
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y_true, y: ops.sum(y * y_true))
    rng = np.random.default_rng(0)
    values, dy = (rng.standard_normal((2, 5, n)).astype("float32") for n in (4, 3))
    before = model.get_weights()[0]
    loss = model.train_on_batch(values, dy)
    shape, drawn = values.shape, keras.random.SeedGenerator
    added = keras.random.normal(shape, 0.0, 0.3, seed=drawn(7))
    scales = keras.random.normal(shape, 1.0, 0.5, seed=drawn(8))
    read = (values + ops.convert_to_numpy(added)) * ops.convert_to_numpy(scales)
    assert_close(loss, (read @ before * dy).sum(), "float32")
    assert_close(before - model.get_weights()[0], np.einsum("btf,btu->fu", read, dy), "float32")


@pytest.mark.parametrize("options", [{"dropout": 0.4, "recurrent_dropout": 0.3}, {"dropout": 0.4}], ids=str)
@pytest.mark.parametrize("cell", [layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell])
def test_cells_of_keras_draw_the_masks_of_keras(cell, options):
    """Keras's own recurrent layer, with the same seed and weights, is the judge."""
    values = np.random.default_rng(0).standard_normal((2, 5, 3)).astype("float32")
    judge = layers.RNN(cell(4, seed=7, **options), return_sequences=True)
    expected = [answered(judge, values, training=True) for _ in range(2)]
    for engine in ("keras", *TRACED):
        layer = kb.RecurrentSequential([cell(4, seed=7, **options)], engine=engine, return_sequences=True)
        layer.build((None, None, 3))
        layer.set_weights(judge.get_weights())
        for one in expected:  # masks are drawn anew for each call
            assert_close(answered(layer, values, training=True), one, "float32")
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    assert_close(answered(layer, values), answered(judge, values), "float32")


def test_a_cell_of_keras_that_stands_twice_in_a_step_has_one_mask():
    cell = layers.SimpleRNNCell(
        20, "linear", use_bias=False, kernel_initializer="identity", recurrent_initializer="zeros", dropout=0.5
    )
    x, h = keras.Input((20,)), keras.Input((20,))
    first, new = cell(x, [h])
    second, _ = cell(2 * x, new)
    layer = kb.RecurrentModel(x, ops.stack([first, second], 1), h, new[0], return_sequences=True, engine="reference")
    found = answered(layer, np.ones((3, 4, 20), "float32"), training=True)
    assert set(np.unique(found[:, :, 0])) == {0.0, 2.0}
    assert_close(found[:, :, 1], 2 * found[:, :, 0], "float32")
    assert np.abs(np.diff(found, axis=1)).max() == 0


def test_what_was_drawn_is_kept_out_of_the_cell():
    """Tracing leaves a cell of Keras as it was: with no mask, or one that Keras drew."""
    cell = layers.LSTMCell(4, dropout=0.5)
    x, h, c = (keras.Input((n,)) for n in (3, 4, 4))
    y, _ = cell(x, [h, c])
    model = keras.Model([x, h, c], y)
    for held in (None, "mask"):
        cell._dropout_mask = held
        trace(model, training=True)
        assert cell._dropout_mask is held


COPIES = {"activation": "linear", "use_bias": False, "kernel_initializer": "identity", "recurrent_initializer": "zeros"}
WITHIN = {
    "of Keras": lambda **options: layers.SimpleRNN(20, **COPIES, **options),
    "cells of Keras": lambda **options: layers.RNN(
        [layers.SimpleRNNCell(20, **COPIES, dropout=0.5), layers.SimpleRNNCell(20, **COPIES)], **options
    ),
    "of ours": lambda dropout=0.5, **options: kb.SimpleRNNCell(20, **COPIES, dropout=dropout).get_layer(**options),
}


@pytest.mark.parametrize("engine", ["keras", *TRACED])
@pytest.mark.parametrize("kind", WITHIN)
def test_a_recurrent_layer_in_a_step_keeps_a_mask_for_its_own_sequence(kind, engine):
    """Each step of the outer loop is a call of the inner layer, with masks of its own, for all of the inner steps."""
    x = keras.Input((3, 20))
    options = {"dropout": 0.5} if kind == "of Keras" else {}
    inner = WITHIN[kind](return_sequences=True, **options)
    layer = kb.RecurrentModel(x, inner(x), return_sequences=True, engine=engine)
    ones = np.ones((2, 4, 3, 20), "float32")
    found = answered(layer, ones, training=True)
    assert set(np.unique(found)) == {0.0, 2.0}
    assert np.abs(np.diff(found, axis=2)).max() == 0
    for axis in (0, 1):
        assert np.abs(np.diff(found, axis=axis)).max(axis=(1, 2, 3) if axis == 0 else (0, 2, 3)).min() == 2
    assert_close(answered(layer, ones), ones, "float32")


@pytest.mark.parametrize("engine", TRACED)
def test_the_state_of_a_recurrent_layer_in_a_step_is_dropped_alike(engine):
    """With the kernel zero and one as the first state, what is left is the mask, multiplied once a step."""
    inner = layers.SimpleRNN(
        20, "linear", use_bias=False, kernel_initializer="zeros", recurrent_initializer="identity",
        recurrent_dropout=0.5, return_sequences=True,
    )  # fmt: skip
    x, h = keras.Input((3, 2)), keras.Input((20,))
    layer = kb.RecurrentModel(x, inner(x, initial_state=h), h, h, return_sequences=True, engine=engine)
    found = answered(
        layer, np.ones((2, 4, 3, 2), "float32"), initial_state=[np.ones((2, 20), "float32")], training=True
    )
    assert set(np.unique(found[:, :, 0])) == {0.0, 2.0}
    assert_close(found, found[:, :, :1] ** np.arange(1, 4)[:, None], "float32")
    assert np.abs(np.diff(found[:, :, 0], axis=1)).max(axis=(0, 2)).min() == 2


@pytest.mark.parametrize("engine", ["keras", *TRACED])
def test_a_cell_of_ours_that_stands_twice_in_a_step_has_one_mask(engine):
    cell = kb.SimpleRNNCell(20, **COPIES, dropout=0.5)
    x, h = keras.Input((20,)), keras.Input((20,))
    first, new = cell([x, h])
    second, _ = cell([2 * x, new])
    layer = kb.RecurrentModel(x, ops.stack([first, second], 1), h, new, return_sequences=True, engine=engine)
    found = answered(layer, np.ones((3, 4, 20), "float32"), training=True)
    assert set(np.unique(found[:, :, 0])) == {0.0, 2.0}
    assert_close(found[:, :, 1], 2 * found[:, :, 0], "float32")
    assert np.abs(np.diff(found, axis=1)).max() == 0


def test_a_layer_that_draws_other_numbers_itself_is_named():
    inputs, seeds = keras.Input((3,)), keras.random.SeedGenerator(0)

    def drawn(x, training=None):
        return x + keras.random.uniform((3,), seed=seeds) if training else x

    model = keras.Model(inputs, layers.Lambda(drawn, name="draws")(inputs))
    trace(model)
    with pytest.raises(TraceError, match=r"draws: the value of the variable .*seed.* is read"):
        trace(model, training=True)


@pytest.mark.parametrize("make", [layers.GaussianDropout, layers.AlphaDropout])
def test_dropout_that_leaves_nothing_is_named(make):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, make(1, name="all")(inputs))
    with pytest.raises(TraceError, match=r"all: what rate=1 leaves of a number is divided by zero"):
        trace(model, training=True)


class NoisyCellOfRsref(rsref.SimpleRNNCell):
    """x, with noise of its own at every step, times numbers of the whole sequence."""

    def build_model(self, input_shape):
        x, h = self.leaves(input_shape)
        y = rsref.GaussianNoise(0.1)(x) * rsref.GaussianDropout(0.5, per="sequence")(x * 0 + 1)
        return rsref.Model([x, h], [y, h + y])


class NoisyCell(kb.cells.FullCell):
    reference = NoisyCellOfRsref


@pytest.mark.parametrize("engine", ["keras", *TRACED])
def test_cells_of_rsref_have_their_noise_on_every_engine(engine):
    layer = NoisyCell(30).get_layer(engine=engine, return_sequences=True)
    ones = np.ones((200, 20, 30), "float32")
    found = answered(layer, ones, training=True)
    of_sequence = found.mean(axis=1)
    assert abs(of_sequence.mean() - 1) < 0.05
    assert abs(of_sequence.std() - 1) < 0.05
    assert abs((found / of_sequence[:, None] - 1).std(axis=1).mean() - 0.1) < 0.01
    np.testing.assert_array_equal(answered(layer, ones), ones)


@pytest.mark.parametrize(
    ("layer", "amounts"),
    [
        (lambda: layers.GaussianNoise(0.5), ["stddev"]),
        (lambda: layers.GaussianDropout(0.5), ["rate"]),
        (lambda: layers.SimpleRNNCell(3, dropout=0.5, recurrent_dropout=0.5), ["dropout", "recurrent_dropout"]),
    ],
)
def test_noise_that_is_changed_later(layer, amounts):
    noisy = layer()
    recurrent = kb.RecurrentSequential([noisy], engine="reference", return_sequences=True)
    ones = np.ones((2, 3, 3), "float32")
    assert np.abs(answered(recurrent, ones, training=True) - answered(recurrent, ones)).max() > 0.01
    for name in amounts:
        setattr(noisy, name, 0.0)
    assert_close(answered(recurrent, ones, training=True), answered(recurrent, ones), "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_noise_of_unknown_batch_and_time(engine):
    """As `fit` compiles it; what it predicts has no noise."""
    x = np.random.default_rng(0).standard_normal((6, 7, 4)).astype("float32")
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        noisy = [layers.GaussianNoise(0.5), layers.SimpleRNNCell(4, dropout=0.5), layers.AlphaDropout(0.5)]
        layer = kb.RecurrentSequential([*noisy, kb.SimpleRNNCell(1)], engine=engine, seed=3)
        model = keras.Sequential([keras.Input((None, 4)), layer])
        model.compile("sgd", "mse")
        rested = model.predict(x, verbose=0)
        (loss,) = model.fit(x, np.zeros((6, 1)), batch_size=6, verbose=0).history["loss"]
        assert abs(loss - (rested**2).mean()) > 1e-4
        found.append(loss)
    assert_close(found[1], found[0], "float32")
