"""The compiled kernels inside Keras: what "auto" takes, gradients, training, and what is remembered for backward."""

import keras
import numpy as np
import pytest

import keras_bridge as kb
import rsref
from keras_bridge import fast_engine
from rsref.ops.pointwise import Pointwise
from rsref_fast import phases
from tests.bridge.autodiff import values_and_gradients
from tests.bridge.test_real_data import trained
from tests.sparing import kernel_folder
from tests.tolerances import assert_close


@pytest.fixture(autouse=True)
def compiling(monkeypatch, tmp_path_factory):
    monkeypatch.delenv(fast_engine.TARGET, raising=False)
    monkeypatch.setenv("RSREF_FAST_CACHE", str(kernel_folder(tmp_path_factory)))


def weigh(answers):
    return sum(keras.ops.sum(keras.ops.cos(1.0 + y) * y) for y in answers)


def lstm(engine):
    keras.utils.set_random_seed(1)
    return kb.LSTMCell(9).get_layer(return_sequences=True, return_state=True, engine=engine)


def gru_and_gru(engine):
    keras.utils.set_random_seed(1)
    stack = [kb.GRUCell(9), kb.GRUCell(9)]
    return kb.RecurrentSequential(stack, return_sequences=True, return_state=True, engine=engine)


def test_auto_takes_the_kernels():
    layer = lstm("auto")
    layer(np.zeros((2, 3, 4), "float32"))
    assert 'engine "fast", the fastest that can run this step' in layer.explain()


def test_auto_takes_the_kernels_in_a_model_that_keras_draws_without_values():
    """What PyTorch's "meta" device cannot run is not remembered for the tensors that come."""
    layer = lstm("auto")
    model = keras.Sequential([layer.__class__.from_config({**layer.get_config(), "return_state": False})])
    model.compile("sgd", "mse")
    model.fit(np.zeros((2, 3, 4), "float32"), np.zeros((2, 3, 9), "float32"), verbose=0)
    drawn = keras.Input((3, 4))
    layer(drawn)
    for used in (layer, model.layers[0]):
        assert 'engine "fast", the fastest that can run this step' in used.explain()


def test_a_sample_without_a_step_reaches_no_weights():
    """Its constant is NaN, as a mean of none would be; what is computed of it once is no part of any gradient."""
    steps, found = np.array([0, 3, 5]), {}
    x = np.where((np.arange(5) < steps[:, None])[..., None], np.random.default_rng(0).normal(size=(3, 5, 4)), 0)
    constant = np.where(steps[:, None] > 0, np.ones((3, 4)), np.nan)
    for engine in ("fast", "reference"):
        keras.utils.set_random_seed(1)
        x_t, c, h = keras.Input((4,)), keras.Input((4,)), keras.Input((4,))
        new = keras.ops.tanh(keras.layers.Dense(4)(x_t) + keras.layers.Dense(4)(c) + keras.layers.Dense(4)(h))
        layer = kb.RecurrentModel(x_t, new, h, new, constants=c, engine=engine)
        inputs = keras.Input((5, 4)), keras.Input((4,))
        y = layer(keras.layers.Masking()(inputs[0]), constants=inputs[1])
        model = keras.Model(inputs, y)
        model.compile("sgd", "mse")
        model.train_on_batch([x.astype("float32"), constant.astype("float32")], np.ones((3, 4), "float32"))
        found[engine] = model.get_weights()
    for one, other in zip(*found.values(), strict=True):
        assert_close(one, other, "float32")


def test_auto_falls_back_where_there_is_no_kernel():
    x, h = keras.Input((3,)), keras.Input((3,))
    new = keras.layers.Lambda(lambda v: keras.ops.i0(v))(keras.layers.add([x, h]))
    layer = kb.RecurrentModel(x, new, h, new)
    layer(np.zeros((2, 3, 3), "float32"))
    text = layer.explain()
    assert 'engine "keras"' in text
    assert "fast: " in text
    assert "I0" in text


class CubeRootOfRsref(rsref.SimpleRNNCell):
    """A cell with an op of its own, for which there is neither a kernel nor a counterpart in Keras."""

    def build_model(self, input_shape):
        x, h = self.leaves(input_shape)
        new = Pointwise("cube_root", lambda x: np.cbrt(x), (lambda g, y: g / (3 * y * y),), "float")(4 + x + h)
        return rsref.Model([x, h], [new, new])


class CubeRootCell(kb.cells.FullCell):
    reference = CubeRootOfRsref


def test_auto_falls_back_to_what_knows_an_own_op():
    layer = CubeRootCell(3).get_layer()
    expected = np.cbrt(np.float32(5) + np.cbrt(np.float32(5)))
    assert_close(keras.ops.convert_to_numpy(layer(np.ones((2, 2, 3), "float32"))), np.full((2, 3), expected), "float32")
    text = layer.explain()
    assert 'engine "reference", the fastest that can run this step' in text
    assert "fast: the formula of 'cube_root' has no kernel: numpy.cbrt" in text
    assert "keras: the op 'cube_root' of rsref has no counterpart in keras.ops" in text
    with pytest.raises(NotImplementedError, match="op 'cube_root' of rsref has no counterpart"):
        CubeRootCell(3).get_layer(engine="keras").build((2, 2, 3))


class GammaNoise(keras.layers.Layer):
    """A random layer that the tracer does not know."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        return x + keras.random.gamma(keras.ops.shape(x), 1.0, seed=self.seeds) if training else x


@pytest.mark.parametrize("make", [keras.layers.BatchNormalization, GammaNoise])
def test_auto_takes_an_engine_that_can_train(make):
    """What the kernels run for inference alone is computed with Keras's ops from the first call on."""
    layer = kb.RecurrentSequential([make(), kb.SimpleRNNCell(3)])
    x = np.ones((2, 3, 4), "float32")
    for training in (False, True):
        assert layer(x, training=training).shape == (2, 3)
        text = layer.explain()
        assert 'engine "keras", the fastest that can run this step' in text
        assert "fast: in training, " in text


def test_auto_takes_keras_for_a_dropout_mask_of_unknown_shape():
    whole, h = keras.Input((None, 5)), keras.Input((5,))
    new = keras.ops.mean(keras.layers.Dropout(0.5)(whole), axis=1) + h
    layer = kb.RecurrentModel(whole, new, h, new, decode=True, output_length=3)
    assert layer(np.ones((2, 4, 5), "float32"), training=True).shape == (2, 3, 5)
    assert "dropout mask of unknown shape (None, None, 5)" in layer.explain()


def test_samples_picked_by_their_number():
    x, h = keras.Input((3,)), keras.Input((3,))
    new = keras.ops.flip(x, axis=0) + h
    layer = kb.RecurrentModel(x, new, h, new)
    given = np.arange(18, dtype="float32").reshape(2, 3, 3)
    assert_close(keras.ops.convert_to_numpy(layer(given)), given.sum(1)[::-1], "float32")
    assert 'engine "fast"' in layer.explain()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("draw", [lstm, gru_and_gru])
def test_values_and_gradients(monkeypatch, draw, masked):
    """Of one cell, and of two whose time loop is split into two."""
    monkeypatch.setattr(phases, "WEIGHTS", 1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 7, 4)).astype("float32")
    states = [rng.normal(size=(5, 9)).astype("float32") for _ in range(2)]
    mask = rng.random((5, 7)) < 0.7 if masked else None
    layers = [draw(engine) for engine in ("fast", "reference")]
    for layer in layers:
        layer.build((5, 7, 4))
    layers[1].set_weights(layers[0].get_weights())
    fast, slow = (values_and_gradients(layer, x, states, mask, weigh) for layer in layers)
    for a, b in zip(fast, slow, strict=True):
        assert_close(a, b, "float32")


def test_both_engines_learn_the_recordings_alike():
    (first, loss, accuracy), (second, other_loss, other_accuracy) = trained("fast", 8), trained("reference", 8)
    assert accuracy > 0.93
    assert first[-1] < 0.3 * first[0]
    assert abs(accuracy - other_accuracy) < 0.01
    assert loss == pytest.approx(other_loss, rel=0.02)
    assert first == pytest.approx(second, rel=0.02)


def test_backward_uses_what_forward_kept(monkeypatch):
    layer = lstm("fast")
    layer.build((2, 3, 4))
    calls = []
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, layer(inputs)[0])
    model.compile("sgd", "mse", run_eagerly=keras.backend.backend() != "jax")
    traced = fast_engine.prepare(layer.recurrence, True)
    original = traced.engine.forward
    monkeypatch.setattr(traced.engine, "forward", lambda *a, **k: calls.append(1) or original(*a, **k))
    model.train_on_batch(np.ones((2, 3, 4), "float32"), np.ones((2, 3, 9), "float32"))
    assert len(calls) == (0 if keras.backend.backend() == "jax" else 1)  # short calls on JAX have no Python in them
    assert not traced.tapes
