"""What is set anew in the layers of a step, once it was traced, counts from the next call on."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.layers import BatchNormalization, Dense

from keras_bridge import RecurrentModel, RecurrentSequential, TraceError, traced_engine
from tests.bridge.autodiff import KIND, values_and_gradients
from tests.tolerances import assert_close

pytestmark = pytest.mark.usefixtures("float64")

ENGINES = ("reference", "keras")
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((2, 3, 4))


class Own(keras.layers.Layer):
    """Numbers of every kind, as attributes. count, answers: what it sets itself."""

    def __init__(self):
        super().__init__()
        self.function, self.temperature, self.shift, self.mode = np.tanh, 2.0, None, "sum"
        self.table, self.weights_by_place, self.options = np.ones(4), [1.0, 2.0], {"bias": 0.5}
        self.loss = 1.5  # a name of keras.Model's own, which is none for a layer
        self.count, self.answers = 0, []

    def call(self, x):
        self.count += 1
        self.answers.append(x)
        return self.formula(x, ops)

    def formula(self, x, names):
        y = getattr(names, self.function.__name__)(x) / self.temperature
        y = names.multiply(y, self.table) * self.weights_by_place[1] * self.loss
        y = y + self.options["bias"] if self.mode == "sum" else y * self.options["bias"]
        return y if self.shift is None else y - self.shift


CHANGES = {
    "a number": lambda own: setattr(own, "temperature", 0.5),
    "a name of models": lambda own: setattr(own, "loss", -1.0),
    "a function": lambda own: setattr(own, "function", np.sin),
    "a word": lambda own: setattr(own, "mode", "product"),
    "what was None": lambda own: setattr(own, "shift", 3.0),
    "an array": lambda own: setattr(own, "table", np.arange(4.0)),
    "one of a list": lambda own: own.weights_by_place.__setitem__(1, -1.0),
    "one of a dict": lambda own: own.options.update({"bias": 7.0}),
    "a list": lambda own: setattr(own, "weights_by_place", [0.0, 4.0]),
}


def layer_around(own, engine="reference", **options):
    x = keras.Input((4,))
    return RecurrentModel(x, own(x), engine=engine, return_sequences=True, **options)


def values(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.fixture
def traces(monkeypatch):
    """The steps that were traced."""
    found, trace = [], traced_engine.trace
    monkeypatch.setattr(traced_engine, "trace", lambda *step: found.append(step) or trace(*step))
    return found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CHANGES)
def test_an_attribute_that_is_set_later(name, engine):
    own = Own()
    layer = layer_around(own, engine)
    for _ in range(2):
        before = values(layer(X))
        assert_close(before, own.formula(X, np), KIND["keras"])
    CHANGES[name](own)
    after = values(layer(X))
    assert np.abs(after - before).max() > 0.1
    assert_close(after, own.formula(X, np), KIND["keras"])


def test_what_a_layer_sets_itself_is_no_change(traces):
    own = Own()
    layer = layer_around(own)
    for _ in range(4):
        layer(X)
        layer(X, training=True)
    assert len(traces) == 2  # for inference and for training
    own.temperature = 0.5
    assert_close(values(layer(X)), own.formula(X, np), KIND["keras"])


def test_what_a_layer_sets_itself_where_keras_runs_it(traces):
    x, own = keras.Input((4,)), Own()
    layer = RecurrentModel(x, ops.i0(own(x)), engine="auto", return_sequences=True)
    for _ in range(4):
        layer(X)
    count = len(traces)
    for _ in range(3):
        assert_close(values(layer(X)), np.i0(own.formula(X, np)), KIND["keras"])
    assert len(traces) == count


def test_a_number_that_is_set_to_what_it_was(traces):
    own = Own()
    layer = layer_around(own)
    for _ in range(3):
        own.temperature = float("2.5")  # another object each time
        layer(X)
    assert len(traces) == 1


def test_a_layer_of_the_step_that_gets_more_weights_later():
    x, dense = keras.Input((3,)), Dense(4)
    layer = RecurrentModel(x, dense(x), engine="reference", return_sequences=True)
    values = ops.convert_to_tensor(np.random.default_rng(0).standard_normal((2, 3, 3)))
    wrapped = keras.layers.TimeDistributed(layer)  # which goes past the layer's __call__
    wrapped(values[None])
    for _ in range(3):
        before = ops.convert_to_numpy(layer(values))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones((2, 4)))
    assert_close(ops.convert_to_numpy(wrapped(values[None]))[0], ops.convert_to_numpy(dense(values)), KIND["keras"])
    after = ops.convert_to_numpy(layer(values))
    assert np.abs(after - before).max() > 0.1
    assert_close(after, ops.convert_to_numpy(dense(values)), KIND["keras"])


def test_a_layer_of_the_step_that_is_trained_later():
    norm, x = BatchNormalization(trainable=False), keras.Input((4,))
    layer = RecurrentModel(x, norm(x), engine="reference")
    given = np.ones((2, 3, 4), "float32")
    layer(given, training=True)
    norm.trainable = True
    with pytest.raises(TraceError, match=r"batch_normalization.*moving_mean. is set while"):
        layer(given, training=True)


@pytest.mark.parametrize("forced", [False, True])
def test_a_dropout_rate_that_is_changed_later(forced):
    x, r, dropout = keras.Input((3,)), keras.Input((3,)), keras.layers.Dropout(0.5)
    options = {"teacher_force": forced, "engine": "reference", "return_sequences": True}
    layer = RecurrentModel(x, dropout(x), readout_input=r, **options)
    ones = np.ones((2, 3, 3))
    call = {"training": True, "ground_truth": ones if forced else None}
    assert np.ptp(ops.convert_to_numpy(layer(ones, **call))) > 0
    dropout.rate = 0.0
    assert_close(ops.convert_to_numpy(layer(ones, **call)), ones)


@pytest.mark.parametrize("engine", ENGINES)
def test_truncation_that_is_set_later(engine):
    x, h = keras.Input((4,)), keras.Input((4,))
    layer = RecurrentModel(x, ops.tanh(x + h), h, ops.tanh(x + h), engine=engine)
    state = np.full((2, 4), 0.1)

    def gradient():
        return values_and_gradients(layer, X, [state], None, lambda answers: ops.sum(answers[0]))[1]

    assert np.abs(gradient()[:, :-1]).min() > 0
    layer.truncate = 1
    cut = gradient()
    assert np.abs(cut[:, :-1]).max() == 0 < np.abs(cut[:, -1]).min()


@pytest.mark.parametrize("engine", ENGINES)
def test_teacher_forcing_that_is_set_later(engine):
    x, r, dense = keras.Input((4,)), keras.Input((4,)), Dense(4)
    layer = RecurrentModel(x, dense(x + r), readout_input=r, engine=engine, teacher_force=0.0, return_sequences=True)
    truth = RANDOM.uniform(-1, 1, X.shape)

    def answer(**options):
        return ops.convert_to_numpy(layer(X, training=True, **options))

    free, kernel = answer(ground_truth=truth), ops.convert_to_numpy(dense.kernel)
    before = np.concatenate([np.zeros_like(truth[:, :1]), truth[:, :-1]], axis=1)
    layer.teacher_force = True
    assert_close(answer(ground_truth=truth), (X + before) @ kernel, KIND[engine])
    layer.teacher_force = False
    assert_close(answer(), free, KIND[engine])
    with pytest.raises(ValueError, match="ground_truth is given, but teacher_force is False"):
        answer(ground_truth=truth)
    dense.activation = ops.relu
    answer()
    layer.teacher_force = keras.Variable(1.0)
    assert_close(answer(ground_truth=truth), np.maximum((X + before) @ kernel, 0), KIND[engine])
    assert len(layer.trainable_variables) == 2
    with pytest.raises(ValueError, match=r"teacher_force must be a probability.*1\.5"):
        layer.teacher_force = 1.5


def test_a_step_drawn_without_teacher_forcing_cannot_be_forced():
    layer = RecurrentSequential([Dense(4)], readout=True)
    layer.teacher_force = 0.5
    layer.teacher_force = False
    layer.build((None, None, 4))
    layer.teacher_force = False
    with pytest.raises(AttributeError, match=r"recurrent_sequential.*cannot be forced any more: make a new layer"):
        layer.teacher_force = True


@pytest.mark.parametrize(
    ("name", "value"), [("decode", True), ("state_initializer", "ones"), ("readout", True), ("seed", 3)]
)
def test_what_the_step_was_drawn_with_cannot_be_set(name, value):
    layer = RecurrentSequential([Dense(4)])
    setattr(layer, name, getattr(layer, name))
    layer.build((None, None, 4))
    with pytest.raises(
        AttributeError, match=f"recurrent_sequential.*the step was drawn with {name}=.*make a new layer"
    ):
        setattr(layer, name, value)


def test_an_engine_that_is_set_later():
    layer = layer_around(Own(), "keras")
    layer.engine = "reference"
    layer(X)
    assert "as the layer asks" in layer.explain()
    assert '"reference"' in layer.explain()
    layer.engine = "quick"
    with pytest.raises(ValueError, match=r"engine must be one of .*; got 'quick'"):
        layer(X)
