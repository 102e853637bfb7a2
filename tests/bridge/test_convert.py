"""Keras's own layers and models against what they are converted to: same weights, same outputs, and back."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_bridge import ConvLSTMCell, LSTMCell, RecurrentSequential, SimpleRNNCell, accelerate, from_keras, to_keras
from tests.tolerances import assert_close

ENGINES = ("keras", "reference", "fast")
X = np.random.default_rng(0).standard_normal((3, 5, 4)).astype("float32")
IMAGES = np.random.default_rng(0).standard_normal((2, 3, 5, 6, 2)).astype("float32")
LAYERS = {
    "simple": lambda: layers.SimpleRNN(3, activation="relu", kernel_regularizer="l2"),
    "gru": lambda: layers.GRU(3, return_sequences=True, return_state=True),
    "gru, reset before": lambda: layers.GRU(3, reset_after=False, go_backwards=True, return_sequences=True),
    "lstm": lambda: layers.LSTM(3, return_state=True, dropout=0.3, recurrent_activation="hard_sigmoid"),
    "lstm without bias": lambda: layers.LSTM(3, use_bias=False, kernel_initializer="he_normal"),
    "rnn": lambda: layers.RNN(layers.LSTMCell(3), return_sequences=True),
    "rnn of a stack": lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_state=True),
    "bidirectional": lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum"),
    "bidirectional last": lambda: layers.Bidirectional(layers.LSTM(3)),
}


def values(answer):
    return [ops.convert_to_numpy(v) for v in keras.tree.flatten(answer)]


def check_equal(first, second, x):
    for one, other in zip(values(first(x)), values(second(x)), strict=True):
        assert_close(one, other, "float32")


def randomized(layer, x):
    layer(x)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.standard_normal(w.shape) * 0.5 for w in layer.get_weights()])
    return layer


@pytest.mark.covering("values")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", LAYERS)
def test_from_keras_and_back(name, engine):
    layer = randomized(LAYERS[name](), X)
    ours = from_keras(layer, engine=engine)
    check_equal(ours, layer, X)
    check_equal(to_keras(ours), layer, X)
    weights = ours.get_weights()
    weights[0] = weights[0] + 0.1
    ours.set_weights(weights)
    with pytest.raises(AssertionError, match="relative error"):
        check_equal(ours, layer, X)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_convolutional_from_keras_and_back(padding):
    layer = randomized(layers.ConvLSTM2D(2, 3, padding=padding, return_sequences=True), IMAGES)
    ours = from_keras(layer)
    check_equal(ours, layer, IMAGES)
    check_equal(to_keras(ours), layer, IMAGES)
    zeros = from_keras(layers.ConvLSTM2D(2, 3, padding=padding, return_sequences=True, zero_output_for_mask=True))
    assert to_keras(zeros).zero_output_for_mask


def test_a_convolutional_cell_of_defaults_and_of_the_old_name_of_its_length_goes_to_keras():
    ours = randomized(ConvLSTMCell(output_dim=2).get_layer(return_sequences=True), IMAGES)
    check_equal(to_keras(ours), ours, IMAGES)


@keras.saving.register_keras_serializable("test_convert")
class SumCell(layers.Layer):
    """h' = h + x, from a start that is trained."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = self.state_size = units
        self.start = self.add_weight(shape=(units,), initializer="ones", name="start")

    def call(self, x, states):
        return states[0] + x, [states[0] + x]

    def get_initial_state(self, batch_size=None):
        return ops.tile(ops.expand_dims(self.start, 0), (batch_size, 1))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize("engine", ["keras", "reference"])
@pytest.mark.parametrize("cells", [lambda: SumCell(4), lambda: [layers.GRUCell(4), SumCell(4)]], ids=["one", "stack"])
def test_a_cell_that_starts_its_states_itself(cells, engine):
    layer = randomized(layers.RNN(cells(), return_state=True), X)
    check_equal(from_keras(layer, engine=engine), layer, X)
    zeros = from_keras(layer, engine=engine, state_initializer="zeros")
    assert max(np.abs(a - b).max() for a, b in zip(values(zeros(X)), values(layer(X)))) > 0.1


@pytest.mark.parametrize("readout", [False, "add"])
def test_a_cell_of_a_layer_starts_its_states_as_its_own_cells_do(readout):
    cell = SumCell(4)
    cell.build(None)
    cell.start.assign([0.5, -1.0, 2.0, 0.0])
    inner = RecurrentSequential([layers.GRUCell(4), cell], readout=readout, engine="keras")
    outer = RecurrentSequential([inner.get_cell()], engine="keras")
    check_equal(outer, inner, X)
    assert any(weight is cell.start for weight in outer.trainable_weights)


def test_nested_initial_states_of_a_stack_of_cells():
    layer = randomized(LAYERS["rnn of a stack"](), X)
    rng = np.random.default_rng(3)
    start = [[rng.standard_normal((3, n)).astype("float32") for n in (3, 3)], rng.standard_normal((3, 2))]
    ours = from_keras(layer, engine="keras")
    check_equal(lambda x: ours(x, initial_state=start), lambda x: layer(x, initial_state=start), X)
    inputs, h, c, s = keras.Input((5, 4)), keras.Input((3,)), keras.Input((3,)), keras.Input((2,))
    model = keras.Model([inputs, h, c, s], layer(inputs, initial_state=[[h, c], s])[0])
    check_equal(accelerate(model, engine="keras"), model, [X, *start[0], start[1]])


def test_unbuilt_layers_are_converted():
    ours = from_keras(layers.LSTM(3, return_sequences=True))
    assert tuple(ours(X).shape) == (3, 5, 3)


def test_stateful_layers_are_converted_without_their_states():
    layer = randomized(layers.LSTM(3, stateful=True), X)
    ours = from_keras(layer)
    ours(X)
    back = to_keras(ours)
    layer.reset_state()
    ours.reset_states()
    for _ in range(2):
        check_equal(ours, layer, X)
    layer.reset_state()
    check_equal(back, layer, X)


def frozen_cell(layer):
    layer.cell.cells[0].trainable = False
    return layer


ALIKE = {
    "frozen": lambda: layers.SimpleRNN(3, trainable=False, return_state=True, activity_regularizer="l2"),
    "frozen partly": lambda: frozen_cell(layers.RNN([layers.SimpleRNNCell(3), layers.SimpleRNNCell(2)])),
    "of a cell": lambda: layers.RNN(layers.LSTMCell(3, dtype="float64"), dtype="float64", activity_regularizer="l2"),
    "both ways": lambda: layers.Bidirectional(
        layers.LSTM(3, dtype="float64"),
        backward_layer=layers.LSTM(3, dtype="float64", go_backwards=True, trainable=False),
        dtype="float64",
        trainable=False,
        activity_regularizer="l2",
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_every_layer_has_is_kept(name):
    """Which weights are trained, what is added to the loss, and the precision: before a build, after it, and back."""
    layer = ALIKE[name]()
    unbuilt = from_keras(layer)
    expected = said_of(layer)
    ours = from_keras(layer)
    built = [ours, to_keras(ours)]
    for other in (unbuilt, *built):
        assert said_of(other)[:-1] == expected[:-1]
        assert other.dtype_policy == layer.dtype_policy
        assert other.trainable == layer.trainable
    for other in built:
        assert_close(said_of(other)[-1], expected[-1], "float32")


def said_of(layer):
    """Return which weights a model trains, how many the layer does, its answer's dtype, how many losses, their sum."""
    answers = keras.tree.flatten(layer(X))
    losses = [ops.convert_to_numpy(loss) for loss in layer.losses]
    model = keras.Sequential([keras.Input((5, 4)), layer])
    trained = {id(variable) for variable in model.trainable_weights}
    own = [id(variable) in trained for variable in layer.weights]
    return own, len(layer.trainable_weights), str(answers[0].dtype), len(losses), sum(losses)


def test_a_frozen_layer_stays_frozen_when_it_is_built_saved_and_accelerated(tmp_path):
    stock, ours = layers.SimpleRNN(3, return_sequences=True), SimpleRNNCell(3).get_layer()
    model = keras.Sequential([keras.Input((5, 4)), stock, ours, layers.Dense(2)])
    for layer in (stock, ours):
        layer.trainable = False
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    for other in (
        keras.models.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
        accelerate(model),
    ):
        assert [len(layer.weights) for layer in other.layers if layer.trainable] == [2]
        assert len(other.trainable_weights) == 2


def test_unbuilt_convolutional_layers_go_back():
    layer = layers.ConvLSTM2D(2, 3)
    assert type(to_keras(from_keras(layer))) is layers.ConvLSTM2D
    with pytest.raises(ValueError, match="how many spatial axes it has: build it first"):
        to_keras(ConvLSTMCell(2, kernel_size=3).get_layer())


def functional():
    inputs = keras.Input((None, 4))
    shared = layers.GRU(4, return_sequences=True, name="shared")
    x = layers.Masking()(inputs)
    x = shared(shared(x))
    inner = keras.Sequential([layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.Dense(5)])
    return keras.Model(inputs, layers.Dense(2)(layers.SimpleRNN(3)(inner(x))))


def sequential():
    return keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, return_sequences=True), layers.GRU(2)])


def test_weights_are_named_by_the_models_around_them():
    """Two models that have layers of the same name: PyTorch's parameters() would have one of both weights."""

    def branch(name):
        return keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, name="lstm")], name=name)

    inputs = keras.Input((5, 4)), keras.Input((5, 4))
    model = keras.Model(inputs, layers.add([branch("left")(inputs[0]), branch("right")(inputs[1])]))
    found = accelerate(model)
    assert len({weight.path for weight in found.trainable_weights}) == len(found.trainable_weights) == 6
    for one, other in zip(found.trainable_weights, model.trainable_weights, strict=True):
        assert one.path.split("/")[:2] == other.path.split("/")[:2]
    assert_close(ops.convert_to_numpy(found([X, X])), ops.convert_to_numpy(model([X, X])), "float32")


def test_accelerate_shares_what_models_share():
    """A model that stands in two others, and twice in one of them, has one copy, and so one set of weights."""
    inputs, others, within = (keras.Input((None, 4)) for _ in range(3))
    shared = keras.Sequential([keras.Input((None, 4)), layers.LSTM(4, return_sequences=True), layers.Dense(4)])
    outer = keras.Model(within, layers.GRU(4)(shared(shared(within))))
    model = randomized(keras.Model([inputs, others], [outer(inputs) + outer(others), shared(others)]), [X, X[:, ::-1]])
    fast = accelerate(model, engine="reference")
    assert [w.shape for w in fast.weights] == [w.shape for w in model.weights]
    for found, expected in zip(fast([X, 2 * X]), model([X, 2 * X]), strict=True):
        assert_close(ops.convert_to_numpy(found), ops.convert_to_numpy(expected), "float32")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [functional, sequential])
def test_accelerate_keeps_a_models_outputs(make, engine):
    model = randomized(make(), X)
    padded = X.copy()
    padded[1, 3:] = 0
    fast = accelerate(model, engine=engine)
    assert not any(isinstance(layer, layers.RNN) for layer in fast._flatten_layers())
    assert any(isinstance(layer, RecurrentSequential) for layer in fast._flatten_layers())
    check_equal(fast, model, padded)


def test_accelerate_reaches_into_time_distributed_layers():
    model = keras.Sequential([keras.Input((2, 3, 4)), layers.TimeDistributed(layers.SimpleRNN(2, trainable=False))])
    x = X[:, :4].reshape(2, 2, 3, 4)
    fast = accelerate(randomized(model, x), engine="reference")
    assert not any(isinstance(layer, layers.RNN) for layer in fast._flatten_layers())
    assert len(fast.weights) == 3
    assert not fast.trainable_weights
    check_equal(fast, model, x)


def decoder(wrap):
    """Return an LSTM that starts from given states and reads a sequence whose mask Keras drops for that."""
    tokens, h, c = keras.Input((None,), dtype="int32"), keras.Input((3,)), keras.Input((3,))
    embedded = layers.Embedding(9, 4, mask_zero=True)(tokens)
    layer, copies = (layers.Bidirectional, 2) if wrap else (lambda layer: layer, 1)
    y = layer(layers.LSTM(3, return_sequences=True))(embedded, initial_state=[h, c] * copies)
    return keras.Model([tokens, h, c], y)


@pytest.mark.parametrize("wrap", [False, True], ids=["alone", "both ways"])
def test_accelerate_reads_the_masks_that_keras_does(wrap, tmp_path):
    model, x = decoder(wrap), [np.array([[0, 2, 3, 0]]), np.ones((1, 3)), np.ones((1, 3))]
    fast = accelerate(model, engine="reference")
    fast.save(tmp_path / "model.keras")
    for other in (fast, keras.models.load_model(tmp_path / "model.keras")):
        check_equal(other, model, x)


def test_accelerate_keeps_what_layers_are_adapted_to():
    """Normalization computes with more than its weights, and the vocabulary of a lookup is none of them."""
    norm = layers.Normalization()
    norm.adapt(10 + 5 * X)
    inputs, words = keras.Input((5, 4)), keras.Input((5,), dtype="int32")
    x = keras.Sequential([norm])(inputs)
    if keras.backend.backend() == "tensorflow":  # whose package lookups need
        lookup = layers.IntegerLookup()
        lookup.adapt(np.array([7, 7, 8]))
        x = layers.concatenate([x, ops.cast(ops.expand_dims(lookup(words), -1), "float32")])
    model = keras.Model([inputs, words], layers.LSTM(3)(x))
    x = [10 + 5 * X, np.full((3, 5), 8, "int32")]
    fast = accelerate(model, engine="keras")
    fast.predict(x, verbose=0)  # which on JAX gives the copy's arrays away
    check_equal(fast, model, x)


def test_accelerate_hands_on_functions():
    """Of which Keras has no config: an own loss and metric, a Lambda, a regularizer."""
    gru = layers.GRU(2, kernel_regularizer=lambda w: 0.1 * ops.sum(ops.abs(w)), kernel_constraint=lambda w: w)
    model = keras.Sequential([keras.Input((5, 4)), layers.Lambda(lambda x: 2 * x), gru])
    optimizer = keras.optimizers.SGD(0.5)
    model.compile(
        optimizer,
        loss=lambda true, predicted: ops.mean(ops.abs(true - predicted)),
        metrics=["mae", lambda true, predicted: ops.max(predicted), keras.metrics.MeanSquaredError()],
    )
    ours, y = accelerate(model), np.ones((3, 2), "float32")
    assert model.compiled
    assert ours.optimizer is not optimizer
    found, expected = (one.evaluate(X, y, verbose=0) for one in (ours, model))
    assert_close(np.array(found), np.array(expected), "float32")
    for one in (ours, model):
        one.fit(X, y, verbose=0)
    assert_close(ours.get_weights()[0], model.get_weights()[0], "float32")


class OwnCompile(keras.Model):
    """A model that is compiled in a way of its own."""

    def compile(self, rate):
        self.rate = rate
        super().compile(keras.optimizers.SGD(rate), "mse")

    def get_compile_config(self):
        return {"rate": self.rate}

    def compile_from_config(self, config):
        self.compile(**config)


def test_accelerate_compiles_as_the_model_itself_does():
    x = keras.Input((5, 4))
    model = OwnCompile(x, layers.GRU(2)(x))
    model.compile(0.25)
    ours = accelerate(model)
    assert (type(ours), ours.rate) == (OwnCompile, 0.25)


class OwnLoss(keras.Sequential):
    """A model that does something else than its graph says, which a copy by Keras does not."""

    def compute_loss(self, *arguments, **options):
        return 100 * super().compute_loss(*arguments, **options)


@pytest.mark.parametrize("nested", [False, True])
def test_accelerate_refuses_what_a_copy_would_not_be(nested):
    model = OwnLoss([keras.Input((4, 3)), layers.GRU(2)], name="own")
    model = keras.Sequential([keras.Input((4, 3)), model]) if nested else model
    with pytest.raises(ValueError, match="a copy of 'own', of the class OwnLoss, would be a mere Sequential"):
        accelerate(model)


def test_a_converted_layer_is_called_as_the_one_of_keras():
    """By position, too, in calls and in models."""
    x, h, mask = X[:, :4, :3], X[:, 0, :2], np.array([[True, True, False, False]] * len(X))
    gru = layers.GRU(2)
    expected = values(gru(x, h, mask))
    assert_close(values(from_keras(gru)(x, h, mask, False)), expected, "float32")
    inputs = keras.Input((4, 3)), keras.Input((2,)), keras.Input((4,), dtype="bool")
    model = accelerate(keras.Model(inputs, gru(*inputs)))
    assert_close(values(model([x, h, mask])), expected, "float32")
    with pytest.raises(TypeError, match="takes 3 arguments beside sequences; got 4"):
        from_keras(gru)(x, h, mask, False, None)


def test_an_accelerated_model_trains_like_the_original():
    model = randomized(sequential(), X)
    target = np.random.default_rng(2).standard_normal((3, 2)).astype("float32")
    model.compile(keras.optimizers.SGD(0.1), "mse")
    fast = accelerate(model)
    histories = [m.fit(X, target, epochs=4, verbose=0, shuffle=False).history["loss"] for m in (model, fast)]
    assert_close(histories[1], histories[0], "float32")
    assert histories[0][-1] < histories[0][0]


MISUSES = {
    "a dense layer": (lambda: from_keras(layers.Dense(3)), TypeError, "from_keras takes.*Dense"),
    "a readout": (
        lambda: to_keras(RecurrentSequential([LSTMCell(3)], readout=True)),
        ValueError,
        "no readout",
    ),
    "a stack": (lambda: to_keras(RecurrentSequential([LSTMCell(3), LSTMCell(3)])), ValueError, "one cell"),
    "channels first": (
        lambda: from_keras(layers.ConvLSTM2D(2, 3, data_format="channels_first")),
        ValueError,
        "data_format='channels_first'",
    ),
    "a dense layer back": (lambda: to_keras(layers.Dense(3)), TypeError, "to_keras takes"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_answered(name):
    misuse, kind, words = MISUSES[name]
    with pytest.raises(kind, match=words):
        misuse()
