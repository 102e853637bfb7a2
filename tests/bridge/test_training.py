"""Layers in models: fit in every mode, precision policies, masks from other layers, saving, wrappers."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
from keras_bridge.trace_error import TraceError
from tests.bridge.autodiff import BACKEND, PLACE
from tests.covering import examples
from tests.cross.cases import CASES
from tests.cross.compared import rounded
from tests.cross.kits import KERAS
from tests.tolerances import assert_close

ENGINES = ("keras", "reference", *(("fast",) if BACKEND == "torch" else ()))  # for the time it takes, on one
RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 6, 3)).astype("float32")
Y = X.mean(axis=(1, 2))[:, None]


def stack(engine, **options):
    return kb.RecurrentSequential([kb.LSTMCell(5), layers.Dense(4), kb.GRUCell(4)], engine=engine, **options)


def losses(model, x=X, y=Y, **options):
    model.compile(keras.optimizers.Adam(0.02), "mse", **options)
    return model.fit(x, y, epochs=6, batch_size=16, verbose=0, shuffle=False).history["loss"]


@pytest.mark.covering("values")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", ["auto", "eager"])  # auto: compiled, but not on PyTorch
def test_fit_in_every_mode(engine, mode):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layers.Dense(1)(stack(engine)(inputs)))
    found = losses(model, run_eagerly=mode == "eager")
    assert found[-1] < 0.7 * found[0]


def test_a_layer_of_a_step_that_makes_a_constant_is_traced_while_a_model_compiles():
    x = keras.Input((3,))
    scaled = layers.Lambda(lambda v: v * ops.convert_to_tensor([1.0, 2.0, 4.0]))(x)
    layer = kb.RecurrentModel(x, scaled * layers.Dense(1, kernel_initializer="zeros")(x), engine="reference")
    model = keras.Sequential([keras.Input((None, 3)), layer])
    model.compile("sgd", "mse")
    assert_close(model.train_on_batch(X, X[:, -1]), (X[:, -1] ** 2).mean(), "float32")


def test_a_layer_of_a_step_that_calls_layers_of_any_batch_is_traced():
    """This GRUCell takes a slice without columns: as many rows as samples, and nobody knows how many these are."""
    cell = layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2, reset_after=False)])
    layer = kb.RecurrentSequential([cell], engine="reference")
    expected = ops.convert_to_numpy(layers.RNN(cell)(X))
    assert_close(ops.convert_to_numpy(layer(X)), expected, "float32")


class Pruned(layers.Layer):
    """A layer with whole numbers and bools among its weights: a mask, places, and a scale of 8 bits."""

    def __init__(self, places=(2, 0, 3, 1)):
        super().__init__()
        self.order = places

    def build(self, shape):
        self.kernel = self.add_weight(shape=(4, 4), initializer="orthogonal")
        self.mask = self.whole("bool", np.arange(16).reshape(4, 4) % 3 > 0)
        self.places = self.whole("int32", self.order)
        self.scale = self.whole("uint8", [200, 100, 50, 250])

    def whole(self, dtype, values):
        weight = self.add_weight(shape=np.shape(values), dtype=dtype, initializer="zeros", trainable=False)
        weight.assign(np.array(values, dtype))
        return weight

    def call(self, x):
        y = ops.take(x @ (self.kernel * ops.cast(self.mask, "float32")), self.places, axis=-1)
        return y * ops.cast(self.scale + 100, "float32") / 100.0  # 250 and 100 are 94 there


def test_whole_numbers_among_the_weights():
    found = []
    for engine in ENGINES:
        keras.utils.set_random_seed(1)
        layer = kb.RecurrentSequential([kb.GRUCell(4), Pruned(), kb.GRUCell(3)], engine=engine)
        model = keras.Sequential([keras.Input((None, 3)), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        found.append([model.train_on_batch(X, X[:, -1]) for _ in range(3)])
        found[-1] += model.get_weights()
    for other in found[1:]:
        for one, expected in zip(other, found[0], strict=True):
            assert_close(np.asarray(one, "float32"), np.asarray(expected, "float32"), "float32")


def test_whole_numbers_that_no_float_holds_are_named():
    layer = kb.RecurrentSequential([Pruned((2, 0, 3, 2**24 + 1)), kb.GRUCell(3)], engine="reference")
    with pytest.raises(TraceError, match=r"beyond 2\*\*24"):
        layer(np.zeros((1, 2, 4), "float32"))


def test_engines_train_alike():
    histories = []
    for engine in ENGINES:
        keras.utils.set_random_seed(1)
        inputs = keras.Input((None, 3))
        histories.append(losses(keras.Model(inputs, layers.Dense(1)(stack(engine)(layers.Masking()(inputs))))))
    for found in histories[1:]:
        assert_close(found, histories[0], "float32")


@pytest.mark.parametrize("make", [kb.LSTMCell, layers.LSTMCell])
def test_a_layer_in_double_precision_among_others_in_single(make):
    """Input, states and what a stateful layer keeps are float64 too."""
    x = np.random.default_rng(0).standard_normal((3, 5, 2))
    found = []
    for engine in ENGINES:
        layer = kb.RecurrentSequential([make(4, dtype="float64")], dtype="float64", stateful=True, engine=engine)
        layer.build(x.shape)
        layer.set_weights([np.cos(np.arange(w.size)).reshape(w.shape) for w in layer.get_weights()])
        assert {t.dtype for t in (*layer.step.inputs, *layer.states)} == {"float64"}
        layer(x)
        found.append(ops.convert_to_numpy(layer(x)))
    exact = BACKEND == "tensorflow" or (
        BACKEND == "torch" and make is kb.LSTMCell
    )  # Keras's own ops, elsewhere, are not
    for other in found[1:]:
        assert_close(found[0], other, "float64" if exact else "float32")


def test_a_readout_in_double_precision_among_layers_in_single():
    layer = kb.RecurrentSequential([kb.GRUCell(3, dtype="float64")], readout=True, dtype="float64")
    layer.build(X.shape)
    assert {tensor.dtype for tensor in layer.step.inputs} == {"float64"}


def test_mixed_precision_leaves_frozen_weights_as_they_are():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = kb.RecurrentSequential([layers.Dense(4), kb.GRUCell(4)], engine="keras")
        layer.build(X.shape)
        layer.trainable = False
        before = layer.get_weights()
        layer(X)
        after = layer.get_weights()
    finally:
        keras.config.set_dtype_policy("float32")
    assert all((one == other).all() for one, other in zip(after, before, strict=True))


@pytest.mark.covering("values")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(engine, policy):
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((None, 3))
        layer = stack(engine)
        model = keras.Model(inputs, layers.Dense(1, dtype="float32")(layer(inputs)))
        assert keras.backend.standardize_dtype(layer(X).dtype) == policy.removeprefix("mixed_")
        assert all(w.dtype == "float32" for w in layer.weights)
        found = losses(model)
    finally:
        keras.config.set_dtype_policy("float32")
    assert found[-1] < 0.7 * found[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_masks_of_embedding_and_masking(engine):
    tokens = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    embedding = layers.Embedding(6, 3, mask_zero=True)
    layer = kb.LSTMCell(4).get_layer(engine=engine)
    y = ops.convert_to_numpy(layer(embedding(tokens)))
    for row, length in zip(range(3), (3, 1, 5)):
        alone = layer(embedding(tokens[row : row + 1, :length]))
        assert_close(y[row : row + 1], ops.convert_to_numpy(alone), "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_whole_sequences_alone_carry_a_mask_on(engine):
    """Neither last outputs do, nor states, nor a decoder's sequences, which have another length."""
    whole, valid = keras.Input((6, 3)), keras.Input((6,), dtype="bool")
    summed = ops.einsum("btf,bt->bf", whole, ops.cast(valid, "float32"))
    made = [
        kb.RecurrentModel(whole, summed, mask_input=valid, decode=True, output_length=2, engine=engine),
        kb.GRUCell(3).get_layer(engine=engine),
        kb.GRUCell(3).get_layer(return_sequences=True, return_state=True, engine=engine),
    ]
    masked = layers.Masking()(X * (np.arange(6) < 3)[:, None])
    answers = [y for layer in made for y in keras.tree.flatten(layer(masked))]
    assert [getattr(y, "_keras_mask", None) is None for y in answers] == [True, True, False, True]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stack_that_begins_with_an_embedding_reads_indices(engine):
    """Under half precision too, where 4097 is no number."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        embedding = layers.Embedding(5000, 2)
        layer = kb.RecurrentSequential([embedding, kb.SimpleRNNCell(2)], return_sequences=True, engine=engine)
        tokens = np.array([[4097, 4096, 4999]])
        y = ops.convert_to_numpy(layer(tokens))
        table, kernel, recurrent, bias = layer.get_weights()
    finally:
        keras.config.set_dtype_policy("float32")
    h = np.zeros((1, 2))
    for t in range(3):
        h = np.tanh(table[tokens[:, t]] @ kernel + h @ recurrent + bias)
        assert np.abs(y[:, t] - h).max() < 2e-3  # half precision


@pytest.mark.parametrize("engine", ENGINES)
def test_fit_with_dropout(engine):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None, 3))
    cells = [kb.LSTMCell(5, dropout=0.2, recurrent_dropout=0.2), layers.Dropout(0.1), kb.GRUCell(4)]
    layer = kb.RecurrentSequential(cells, engine=engine)
    found = losses(keras.Model(inputs, layers.Dense(1)(layer(inputs))))
    assert found[-1] < found[0]


def test_batch_normalization_moves_inside_a_step():
    layer = kb.RecurrentSequential([layers.BatchNormalization(momentum=0.5), kb.SimpleRNNCell(3)])
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layers.Dense(1)(layer(inputs)))
    before = ops.convert_to_numpy(layer.layers[0].moving_mean)
    losses(model, X + 3)
    after = ops.convert_to_numpy(layer.layers[0].moving_mean)
    assert np.abs(after - before).min() > 1


def test_regularizers_and_constraints():
    cell = kb.LSTMCell(3, kernel_regularizer=keras.regularizers.L2(0.1), recurrent_constraint="non_neg")
    layer = cell.get_layer()
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layers.Dense(1)(layer(inputs)))
    kernel = layer.get_weights()[0]
    assert_close(float(sum(layer.losses)), 0.1 * float((kernel**2).sum()), "float32")
    losses(model)
    assert layer.get_weights()[1].min() >= 0
    assert layer.get_weights()[0].min() < 0


@pytest.mark.covering("values")
@pytest.mark.parametrize("engine", ["keras", "reference", "fast"])
@pytest.mark.parametrize("name", examples([*CASES], [*CASES][PLACE::3]))
def test_saved_and_loaded(name, engine, tmp_path):
    """Every cell and feature in a model file, and back under the other engine: the same answers."""
    case = CASES[name]
    x = rounded(case.x, "float32")
    call = {
        key: value for key, value in case.call.items() if key not in ("ground_truth", "training", "initial_readout")
    }
    fixed = [key for key in call if key in ("initial_state", "constants", "mask")]
    given = x if isinstance(x, list) else [x]
    inputs = [keras.Input(a.shape[1:]) for a in given]
    extra = {key: _inputs_like(call[key]) for key in fixed}
    layer = case.draw(KERAS, engine="keras", **case.options)
    rest = {key: value for key, value in call.items() if key not in fixed}
    answer = layer(inputs if isinstance(x, list) else inputs[0], **extra, **rest)
    model = keras.Model([inputs, extra], answer)
    arrays = [given, {key: rounded(call[key], "float32") for key in fixed}]
    rng = np.random.default_rng(3)
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.get_weights()])
    expected = model(arrays)
    model.save(tmp_path / "model.keras")
    with kb.use_engine(engine):
        found = keras.models.load_model(tmp_path / "model.keras")(arrays)
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        assert_close(ops.convert_to_numpy(one), ops.convert_to_numpy(other), "float32")


def _inputs_like(value):
    if isinstance(value, list):
        return [_inputs_like(v) for v in value]
    return keras.Input(value.shape[1:], dtype="bool" if value.dtype == bool else None)


@pytest.mark.parametrize("engine", ENGINES)
def test_wrappers(engine):
    inputs = keras.Input((4, 6, 3))
    inner = kb.LSTMCell(3).get_layer(engine=engine)
    y = layers.TimeDistributed(inner)(inputs)
    y = layers.Bidirectional(kb.GRUCell(2).get_layer(engine=engine, return_sequences=True))(y)
    model = keras.Model(inputs, y)
    assert model.output_shape == (None, 4, 4)
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype("float32")
    found = ops.convert_to_numpy(model(x))
    steps = np.stack([ops.convert_to_numpy(inner(x[:, t])) for t in range(4)], 1)
    both = model.layers[-1]
    forward = ops.convert_to_numpy(both.forward_layer(steps))
    backward = ops.convert_to_numpy(both.backward_layer(steps))[:, ::-1]
    assert_close(found, np.concatenate([forward, backward], -1), "float32")


def test_both_ways_of_a_drawn_step_are_trained():
    """As two layers of steps drawn apart; of two weights with one path PyTorch added up the first one's gradients."""

    def drawn(**options):
        x, h = keras.Input((4,)), keras.Input((3,))
        new = ops.tanh(layers.Dense(3)(x) + layers.Dense(3, use_bias=False)(h))
        return kb.RecurrentModel(x, new, h, new, engine="reference", **options)

    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 4))
    models = [
        keras.Model(inputs, layers.Dense(1)(y))
        for y in (
            layers.Bidirectional(drawn())(inputs),
            layers.concatenate([drawn()(inputs), drawn(go_backwards=True)(inputs)]),
        )
    ]
    models[1].set_weights(models[0].get_weights())
    x = np.random.default_rng(0).standard_normal((6, 3, 4)).astype("float32")
    for model in models:
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(x, x[:, 0, :1], batch_size=2, epochs=1, shuffle=False, verbose=0)
    for found, expected in zip(*(model.get_weights() for model in models), strict=True):
        assert_close(found, expected, "float32")


class Subclassed(keras.Model):
    def __init__(self, engine):
        super().__init__()
        self.recurrent = stack(engine)
        self.dense = layers.Dense(1)

    def call(self, x, training=None):
        return self.dense(self.recurrent(x, training=training))


@pytest.mark.parametrize("engine", ENGINES)
def test_subclassed_model(engine):
    keras.utils.set_random_seed(1)
    found = losses(Subclassed(engine))
    assert found[-1] < 0.7 * found[0]


def test_a_recurrent_layer_inside_a_step():
    """Each step reads a whole inner sequence: a loop within the loop, on all engines the same."""
    x, h = keras.Input((4, 3)), keras.Input((2,))
    read = layers.GRU(2)(kb.LSTMCell(3).get_layer(return_sequences=True)(x))
    new = ops.tanh(read + h)
    layer = kb.RecurrentModel(x, new, h, new, return_sequences=True)
    given = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype("float32")
    found = []
    for engine in ENGINES:
        with kb.use_engine(engine):
            found.append(ops.convert_to_numpy(layer(given)))
    for other in found[1:]:
        assert_close(other, found[0], "float32")
