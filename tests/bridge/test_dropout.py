"""Dropout in and between cells: one mask for a sequence or for each step, and what seeds say."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
from tests.bridge.test_training import ENGINES
from tests.tolerances import assert_close


@pytest.mark.parametrize("engine", ENGINES)
def test_dropout_of_a_cell_lasts_for_a_sequence(engine):
    layer = kb.SimpleRNNCell(40, activation="linear", use_bias=False, dropout=0.5).get_layer(
        engine=engine, return_sequences=True
    )
    layer.build((None, None, 40))
    layer.set_weights([np.eye(40), np.zeros((40, 40))])
    ones = np.ones((2, 4, 40), "float32")
    first, second = (ops.convert_to_numpy(layer(ones, training=True)) for _ in range(2))
    assert set(np.unique(first.round(5))) == {0.0, 2.0}
    assert np.abs(first - first[:, :1]).max() == 0
    assert np.abs(first - second).max() > 1
    assert_close(ops.convert_to_numpy(layer(ones)), ones)


def test_the_seed_of_a_cell_draws_the_same_masks_on_every_engine():
    found = []
    for engine in ("keras", "reference", "fast", "keras", "reference"):
        cell = kb.SimpleRNNCell(20, activation="linear", use_bias=False, dropout=0.5, recurrent_dropout=0.3, seed=7)
        layer = cell.get_layer(engine=engine, return_sequences=True)
        layer.build((None, None, 20))
        layer.set_weights([np.eye(20), np.eye(20)[::-1]])
        found.append([ops.convert_to_numpy(layer(np.ones((2, 3, 20), "float32"), training=True)) for _ in range(2)])
    for one in found[1:]:
        assert_close(np.stack(one), np.stack(found[0]), "float32")
    assert np.abs(found[0][0] - found[0][1]).max() > 1


@pytest.mark.parametrize("engine", ["keras", "reference", "fast"])
def test_the_seed_of_a_dropout_layer_counts_on_every_engine(engine):
    found = []
    for _ in range(2):
        cells = [layers.Dropout(0.5, seed=3), layers.SpatialDropout1D(0.5, seed=4), layers.Flatten()]
        x = keras.Input((2, 20))
        y = keras.Sequential(cells)(x)
        layer = kb.RecurrentModel(x, y, return_sequences=True, engine=engine)
        found.append(ops.convert_to_numpy(layer(np.ones((2, 3, 2, 20), "float32"), training=True)))
    assert (found[0] == found[1]).all()
    assert len(np.unique(found[0])) == 2


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_the_seed_of_a_recurrent_layer_is_that_of_dropout_without_one(engine):
    found = []
    for _ in range(2):
        cell = kb.SimpleRNNCell(20, activation="linear", use_bias=False, kernel_initializer="identity", dropout=0.5)
        layer = kb.RecurrentSequential([layers.Dropout(0.5), cell], seed=3, engine=engine)
        found.append([ops.convert_to_numpy(layer(np.ones((2, 1, 20), "float32"), training=True)) for _ in range(2)])
    assert (found[0][0] == found[1][0]).all()
    assert (found[0][0] != found[0][1]).any()


@pytest.mark.parametrize("engine", ["keras", "reference", "fast"])
@pytest.mark.parametrize("kind", [layers.Dropout, layers.AlphaDropout])
def test_dropout_of_a_noise_shape(kind, engine):
    x = keras.Input((2, 20))
    dropped = kind(0.5, noise_shape=(None, 1, None))(x)
    layer = kb.RecurrentModel(x, dropped, return_sequences=True, engine=engine)
    y = ops.convert_to_numpy(layer(np.ones((2, 3, 2, 20), "float32"), training=True))
    assert (y == y[:, :, :1]).all()
    expected = ops.convert_to_numpy(kind(0.5)(np.ones((1, 1000), "float32"), training=True))
    assert_close(np.unique(y), np.unique(expected), "float32")


@pytest.mark.parametrize("engine", ["keras", "reference", "fast"])
def test_spatial_dropout_of_channels_that_come_first(engine):
    x = keras.Input((8, 2, 3))
    dropped = layers.SpatialDropout2D(0.5, data_format="channels_first", seed=1)(x)
    layer = kb.RecurrentModel(x, dropped, return_sequences=True, engine=engine)
    y = ops.convert_to_numpy(layer(np.ones((2, 3, 8, 2, 3), "float32"), training=True))
    assert (y == y[..., :1, :1]).all()
    assert set(np.unique(y[0])) == {0.0, 2.0}


@pytest.mark.parametrize("engine", ["keras", "reference", "fast"])
def test_dropout_of_every_place_of_a_slice(engine):
    x = keras.Input((2, 20))
    dropped = layers.TimeDistributed(layers.Dropout(0.5, seed=1))(x)
    layer = kb.RecurrentModel(x, dropped, return_sequences=True, engine=engine)
    y = ops.convert_to_numpy(layer(np.ones((2, 3, 2, 20), "float32"), training=True))
    assert set(np.unique(y)) == {0.0, 2.0}
    assert len({tuple(place) for place in y.reshape(-1, 20)}) == 12


class Noisy(layers.Layer):
    """A layer that draws by keras.random itself."""

    def __init__(self, draw, seed=None):
        super().__init__()
        self.draw, self.generator = draw, keras.random.SeedGenerator(seed)

    def call(self, x, training=None):
        return self.draw(x, training, self.generator)


CHANCES = np.array([1.0, 2.0, 1.0], "float32")
DRAWN = {
    "dropout": (lambda x, training, seed: keras.random.dropout(x, 0.5, seed=seed) if training else x, 0.0, 1.0),
    "dropout at inference": (lambda x, training, seed: keras.random.dropout(x, 0.5, seed=seed), 1.0, 1.0),
    "a sample of a normal": (
        lambda x, training, seed: x + keras.random.normal(ops.shape(x), 1, 2, seed=seed),
        2.0,
        2.0,
    ),
    "one for all features": (
        lambda x, training, seed: x * keras.random.normal((ops.shape(x)[0], 1), 1.0, 0.5, seed=seed),
        0.5,
        0.5,
    ),
    "evenly distributed": (
        lambda x, training, seed: keras.random.uniform(ops.shape(x), 0, 2, seed=seed),
        3**-0.5,
        3**-0.5,
    ),
    "chosen with a probability": (
        lambda x, training, seed: 2 * ops.cast(keras.random.uniform(ops.shape(x), seed=seed) < 0.5 * x, "float32"),
        1.0,
        1.0,
    ),
    "whole numbers": (
        lambda x, training, seed: ops.cast(keras.random.randint(ops.shape(x), -1, 4, seed=seed), "float32"),
        2**0.5,
        2**0.5,
    ),
    "trials": (
        lambda x, training, seed: keras.random.binomial(ops.shape(x), 4, 0.25 * x, seed=seed),
        0.75**0.5,
        0.75**0.5,
    ),
    "one of several": (
        lambda x, training, seed: ops.cast(
            keras.random.categorical(ops.log(x[:, :3] * CHANCES), 20, seed=seed), x.dtype
        ),
        0.5**0.5,
        0.5**0.5,
    ),
}


@pytest.mark.parametrize("engine", ["keras", "reference", "fast"])
@pytest.mark.parametrize("name", DRAWN)
def test_noise_that_a_layer_draws_itself(name, engine):
    draw, resting, training = DRAWN[name]
    x = keras.Input((20,))
    layer = kb.RecurrentModel(x, Noisy(draw, seed=5)(x), return_sequences=True, engine=engine)
    for mode, deviation in ((False, resting), (True, training)):
        first, second = (ops.convert_to_numpy(layer(np.ones((90, 6, 20), "float32"), training=mode)) for _ in range(2))
        assert abs(first.std() - deviation) < 0.12 * deviation + 1e-6
        assert abs(first.mean() - (2 if "sample" in name else 1)) < 0.1
        different = len({tuple(step) for step in first.reshape(-1, 20)})
        assert different > 530 if deviation else different == 1  # of 540
        assert (first != second).any() == (deviation > 0)


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_the_generator_of_a_layer_draws_its_noise(engine):
    found = []
    for _ in range(2):
        x = keras.Input((20,))
        noisy = Noisy(DRAWN["dropout"][0], seed=3)
        model = keras.Sequential([kb.RecurrentModel(x, noisy(x), return_sequences=True, engine=engine)])
        before = ops.convert_to_numpy(noisy.generator.state)
        model.compile("sgd", "mse")
        model.fit(np.ones((4, 3, 20)), np.ones((4, 3, 20)), verbose=0)
        assert (ops.convert_to_numpy(noisy.generator.state) != before).any()
        found.append(ops.convert_to_numpy(model(np.ones((2, 3, 20)), training=True)))
    assert_close(found[0], found[1], "float32")


def test_attention_that_drops_weights_of_its_own():
    x, drops = keras.Input((5, 8)), layers.Attention(dropout=0.5, seed=1)
    layer = kb.RecurrentModel(x, drops([x, x]), return_sequences=True, engine="reference")
    values = np.random.default_rng(0).standard_normal((40, 30, 5, 8))
    resting, first, second = (ops.convert_to_numpy(layer(values, training=mode)) for mode in (False, True, True))
    assert np.abs(first - second).max() > 0.1
    many = np.mean([ops.convert_to_numpy(layer(values, training=True)) for _ in range(60)], axis=0)
    assert np.abs(many - resting).mean() < 0.3 * np.abs(first - resting).mean()


@pytest.mark.parametrize("engine", ENGINES)
def test_dropout_between_cells_changes_every_step(engine):
    layer = kb.RecurrentSequential([layers.Dropout(0.5), kb.SimpleRNNCell(30, activation="linear", use_bias=False)])
    layer = kb.RecurrentSequential.from_config({**layer.get_config(), "engine": engine, "return_sequences": True})
    layer.build((None, None, 30))
    layer.set_weights([np.eye(30), np.zeros((30, 30))])
    y = ops.convert_to_numpy(layer(np.ones((1, 5, 30), "float32"), training=True))
    assert set(np.unique(y.round(5))) == {0.0, 2.0}
    assert len({tuple(step) for step in y[0]}) == 5


@pytest.mark.parametrize("stacked", [False, True])
def test_dropout_of_keras_cells_lasts_for_a_sequence(stacked):
    cell = layers.SimpleRNNCell(40, activation="linear", use_bias=False, dropout=0.5)
    cell = layers.StackedRNNCells([cell]) if stacked else cell
    layer = kb.RecurrentSequential([cell], return_sequences=True)
    layer.build((None, None, 40))
    layer.set_weights([np.eye(40), np.zeros((40, 40))])
    first, second = (ops.convert_to_numpy(layer(np.ones((2, 4, 40), "float32"), training=True)) for _ in range(2))
    assert np.abs(first - first[:, :1]).max() == 0
    assert np.abs(first - second).max() > 1


def test_keras_layers_in_a_step_draw_masks_of_their_own():
    """A ConvLSTM, and an LSTM whose batch is not the step's and which draws its masks anew at each step."""
    images, inputs, h = keras.Input((3, 5, 2)), keras.Input((6, 40)), keras.Input((4,))
    pooled = layers.Flatten()(layers.ConvLSTM1D(4, 3, dropout=0.5)(images))
    identity = layers.SimpleRNN(
        40, "linear", use_bias=False, kernel_initializer="identity", recurrent_initializer="zeros", dropout=0.5,
        return_sequences=True,
    )  # fmt: skip
    read = ops.reshape(identity(ops.reshape(inputs, (-1, 3, 40))), (-1, 6, 40))
    layer = kb.RecurrentModel(
        [images, inputs], [h + layers.Dense(4)(pooled), read], h, h, engine="keras", return_sequences=True
    )
    x = [np.ones((2, 4, 3, 5, 2), "float32"), np.ones((2, 4, 6, 40), "float32")]
    y, z = (ops.convert_to_numpy(one) for one in layer(x, training=True))
    assert np.abs(y - y[:, :1]).max() > 0
    assert set(np.unique(z.round(5))) == {0.0, 2.0}
    assert np.abs(np.diff(z.reshape(2, 4, 2, 3, 40), axis=3)).max() == 0  # one mask in a call
    assert all(np.abs(np.diff(z[i], axis=0)).max(axis=(1, 2)).min() == 2 for i in range(2))  # anew at every step
