"""Keras steps said with rsref's ops: whole layers opened, values compared; what has no counterpart is named."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_bridge
from keras_bridge.rules import RULES
from keras_bridge.trace import trace
from keras_bridge.trace_error import TraceError
from rsref import ops as rsref_ops
from rsref.engine import ReferenceEngine
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from tests.bridge.autodiff import KERAS_KIND
from tests.tolerances import assert_close

pytestmark = pytest.mark.usefixtures("float64")


class Twice(keras.layers.Layer):
    """A subclassed layer built of another and an op."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return 2 * ops.tanh(self.dense(x))


class Sliced(keras.layers.Layer):
    """A layer that slices its weights and inputs by a slice alone, by three dots, and by an array."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(2 * shape[-1],))

    def call(self, x):
        y = x * self.scale[: x.shape[-1]] + self.scale[...][None][:, -x.shape[-1] :] * x[...]
        return y if keras.backend.backend() == "tensorflow" else y + +x[:, np.array([5, 3, 2, 1, 0, -1])]


class Sized(keras.layers.Layer):
    """A layer with constants as long as the batch."""

    def call(self, x):
        count = ops.shape(x)[0]
        table = ops.broadcast_to(np.arange(3.0), (count, 3)) * ops.full(shape=[count, 1], fill_value=2.0)
        chosen = ops.where(ops.zeros((count,), "bool")[:, None], x, ops.full((count, 6), 3, dtype="int32"))
        return ops.concatenate([x, ops.ones((count, 1), x.dtype), ops.cast(table, x.dtype), chosen * x], -1)


class SizedAsTokens(keras.layers.Layer):
    def call(self, tokens):
        return ops.zeros(ops.shape(tokens)) + ops.cast(tokens, self.compute_dtype)


class Repeated(keras.layers.Layer):
    """A layer that repeats a weight and constants for each sample, by their numbers of rows and of samples."""

    def build(self, shape):
        self.initial = self.add_weight(shape=(1, 3), initializer="random_normal")

    def call(self, x):
        count = ops.shape(x)[0]
        rows = np.arange(3, dtype=self.compute_dtype)[None]
        return ops.concatenate(
            [
                x * ops.tile(self.initial, (count, 2)) + ops.repeat(self.initial, 2, axis=-1),
                ops.tile(rows, [count, 1]) * ops.repeat(self.initial, count, axis=0),
                x[:, :3] - ops.repeat(rows, count, axis=0),
                ops.tile(x[:, :2], (1, 2)),
            ],
            -1,
        )


class ArraysFirst(keras.layers.Layer):
    """A layer with arrays of NumPy and of the backend at the left of signs."""

    def call(self, x):
        own, numpy = ops.arange(6, dtype=x.dtype), np.linspace(0.1, 1, 6)
        if keras.backend.backend() == "torch":  # which takes no array of NumPy there
            numpy = ops.convert_to_tensor(numpy)
        y = own - x + own * x - own / (x * x + 1) + (own + 1) ** x + ops.where(numpy > x, numpy * x, np.float64(2) - x)
        return y + ops.transpose(ops.convert_to_tensor(np.eye(6) + 0.5, x.dtype) @ ops.transpose(x))


def around_a_layer(x):
    """A function that calls a layer which nothing holds."""
    dense = keras.layers.Dense(3)
    dense.build((None, 6))
    return keras.layers.Lambda(lambda v: dense(v) * 2)(x)


def adapted():
    layer = keras.layers.Normalization()
    layer.adapt(np.random.default_rng(1).normal(2, 3, (50, 6)))
    return layer


STEPS = {
    "a layer from outside": around_a_layer,
    "lone slices": lambda x: Sliced()(x),
    "as long as the batch": lambda x: Sized()(x),
    "as long as a batch of tokens": lambda x: SizedAsTokens()(ops.argmax(x, -1)),
    "repeated for each sample": lambda x: Repeated()(x),
    "arrays first": lambda x: ArraysFirst()(x),
    "dense silu": lambda x: keras.layers.Dense(3, activation="silu")(x),
    "layer norm": lambda x: keras.layers.LayerNormalization()(x * x),
    "batch norm": lambda x: keras.layers.BatchNormalization()(x),
    "dropout at inference": lambda x: keras.layers.Dropout(0.5)(x),
    "lambda": lambda x: keras.layers.Lambda(lambda v: ops.relu(v) - 1.0)(x),
    "subclassed": lambda x: Twice()(x),
    "nested": lambda x: keras.Sequential([keras.layers.Dense(4), keras.layers.Activation("swish")])(x),
    "cell": lambda x: keras.layers.GRUCell(6)(x, [x])[0],
    "cell gate by gate": lambda x: keras.layers.GRUCell(6, recurrent_dropout=0.5)(x, [x])[0],
    "embedding": lambda x: keras.layers.Embedding(5, 3)(ops.argmax(x[:, :5], axis=-1)),
    "einsum": lambda x: ops.einsum("bi,bj->bij", x, x[:, :2]),
    "where": lambda x: ops.where(x > 0.1, x, ops.softmax(x, axis=-1)),
    "reshape and mean": lambda x: ops.mean(ops.reshape(x, (-1, 2, 3)), axis=1),
    "softmax of two axes": lambda x: keras.layers.Softmax(axis=(1, 2))(ops.reshape(x, (-1, 2, 3))),
    "masked softmax": lambda x: keras.layers.Softmax()(x, mask=x > 0),
    "softmax masked by numbers, nothing left": lambda x: keras.layers.Softmax()(x, mask=ops.relu(x) * 0.4),
    "attention with a mask": lambda x: keras.layers.MultiHeadAttention(2, 3, dropout=0.2)(
        *[ops.reshape(x, (-1, 2, 3))] * 2, attention_mask=np.array([[[True, False], [True, True]]])
    ),
    "split and stack": lambda x: ops.stack(ops.split(x, 2, axis=-1), axis=1),
    "conv": lambda x: keras.layers.Conv1D(2, 2, padding="same")(ops.reshape(x, (-1, 3, 2))),
    "conv of groups": lambda x: keras.layers.Conv1D(4, 2, groups=2)(ops.reshape(x, (-1, 3, 2))),
    "normalization": lambda x: adapted()(x),
    "rescaling": lambda x: keras.layers.Rescaling([0.5, -1.0, 2.0], 0.1)(ops.reshape(x, (-1, 2, 3))),
    "intervals as words": lambda x: keras.layers.CategoryEncoding(4, output_mode="count")(
        keras.layers.Discretization([-1.0, 0.0, 0.5])(x)
    ),
    "intervals, one hot": lambda x: keras.layers.Discretization([-1.0, 0.2], output_mode="one_hot")(x),
    "words that are there": lambda x: keras.layers.CategoryEncoding(3)(ops.argmax(ops.reshape(x, (-1, 2, 3)), -1)),
    "dropout of every place": lambda x: keras.layers.TimeDistributed(keras.layers.Dropout(0.5))(
        ops.reshape(x, (-1, 2, 3))
    ),
    "max pool": lambda x: keras.layers.MaxPooling1D(2)(ops.reshape(x, (-1, 3, 2))),
    "norms and clips": lambda x: ops.clip(ops.logsumexp(x, axis=-1, keepdims=True) + ops.abs(x), 0.5, 2.0),
    "power and log": lambda x: ops.log1p(x**2) + ops.power(ops.exp(x), 1.5) - ops.rsqrt(1.0 + ops.square(x)),
}


IN_STEP = {
    "lstm": lambda: keras.layers.LSTM(4),
    "gru, backwards": lambda: keras.layers.GRU(4, return_sequences=True, go_backwards=True),
    "stack": lambda: keras.layers.RNN([keras.layers.LSTMCell(3), keras.layers.GRUCell(2)]),
    "both ways": lambda: keras.layers.Bidirectional(keras.layers.LSTM(3)),
    "both ways, sums": lambda: keras.layers.Bidirectional(
        keras.layers.GRU(3, return_sequences=True),
        merge_mode="sum",
        backward_layer=keras.layers.GRU(3, return_sequences=True, go_backwards=True, reset_after=False),
    ),
    "at every place": lambda: keras.Sequential(
        [keras.layers.Reshape((2, 3, 1)), keras.layers.TimeDistributed(keras.layers.Bidirectional(keras.layers.GRU(2)))]
    ),
    "ours": lambda: keras_bridge.RecurrentSequential([keras_bridge.LSTMCell(4), keras.layers.Dense(3)], readout="add"),
    "ours, learned": lambda: keras_bridge.GRUCell(4).get_layer(state_initializer=["learned"], return_sequences=True),
}


@pytest.mark.parametrize("name", IN_STEP)
def test_a_recurrent_layer_inside_a_step(name):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, IN_STEP[name]()(ops.reshape(inputs, (-1, 2, 3))))
    traced = trace(model)
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.2, 1, w.shape) for w in model.get_weights()])
    x = np.random.default_rng(0).standard_normal((4, 6))
    assert_close(values_of(traced, x), ops.convert_to_numpy(model(x)), KERAS_KIND)


def with_states_and_readout():
    """A layer whose state and readout are read differently, so that they cannot be exchanged unnoticed."""
    x, h, r = (keras.Input((2,)) for _ in range(3))
    new = ops.tanh(x + 2 * h + 3 * r)
    return keras_bridge.RecurrentModel(x, new, h, new / 2, readout_input=r)


STARTS = {
    "state and readout": lambda x, layer: layer(x, initial_state=x[:, 0], initial_readout=x[:, 1]),
    "state, by place": lambda x, layer: layer(x, x[:, 0]),
    "readout": lambda x, layer: layer(x, initial_readout=x[:, 1]),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_recurrent_layer_inside_a_step_that_is_told_where_to_start(name):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, STARTS[name](ops.reshape(inputs, (-1, 3, 2)), with_states_and_readout()))
    check(model, np.random.default_rng(0).standard_normal((4, 6)))


class Around(keras.layers.Layer):
    """A layer that does not speak of masks; Keras hands them to the layer inside all the same."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.GRU(3)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


MASKED = {
    "keras": lambda x: keras.layers.GRU(3)(x),
    "both ways": lambda x: keras.layers.Bidirectional(keras.layers.LSTM(3))(x),
    "keras, training": lambda x: keras.layers.GRU(3)(x, training=False),
    "ours": lambda x: keras_bridge.GRUCell(3).get_layer()(x),
    "explicit": lambda x: keras.layers.GRU(3)(x * 1, mask=ops.any(x > 0, -1)),
    "nested": lambda x: keras.Sequential([keras.layers.Dense(2), keras.layers.GRU(3)])(x),
    "subclassed": lambda x: Around()(x),
    "attention": lambda x: keras.layers.Attention()([x[:, :1], x]),
}


@pytest.mark.parametrize("name", MASKED)
def test_a_layer_inside_a_step_that_reads_a_mask_is_named(name):
    inputs = keras.Input((4,), dtype="int32")
    answer = MASKED[name](keras.layers.Embedding(10, 3, mask_zero=True)(inputs))
    with pytest.raises(TraceError, match=r"neither mask|the mask that an input"):
        trace(keras.Model(inputs, answer))


def test_a_mask_that_no_layer_reads_does_no_harm():
    inputs = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(10, 3, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.Sequential([keras.layers.Dense(2), keras.layers.Flatten()])(embedded))
    check(model, np.random.default_rng(0).integers(0, 3, (5, 4)))


def test_a_convolutional_recurrent_layer_is_named():
    inputs = keras.Input((2, 4, 3))
    with pytest.raises(TraceError, match=r"inner: states that are no vectors"):
        trace(keras.Model(inputs, keras.layers.ConvLSTM1D(2, 3, name="inner")(inputs)))


def test_a_cell_that_starts_its_states_itself_is_named():
    class FromOnes(keras.layers.SimpleRNNCell):
        def get_initial_state(self, batch_size=None):
            return [ops.ones((batch_size, self.units))]

    inputs = keras.Input((2, 3))
    layer = keras.layers.RNN([keras.layers.GRUCell(2), FromOnes(2)], name="inner")
    with pytest.raises(TraceError, match=r"inner: states that start from get_initial_state"):
        trace(keras.Model(inputs, layer(inputs)))


def test_quantized_weights_are_named():
    inputs, dense = keras.Input((6,)), keras.layers.Dense(3, name="small", dtype="float32")
    model = keras.Model(inputs, dense(inputs))
    dense.quantize("int8")
    with pytest.raises(TraceError, match="small: quantized weights are not traced"):
        trace(model)


def test_a_dropout_mask_shared_by_the_samples_is_named():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dropout(0.5, noise_shape=(1, None), name="shared")(inputs))
    with pytest.raises(TraceError, match="shared: a dropout mask shared by the samples is not traced"):
        trace(model, training=True)


def test_a_recurrent_layer_of_unknown_length_is_named():
    inputs = keras.Input((None, 3))
    with pytest.raises(TraceError, match="number of steps is known"):
        trace(keras.Model(inputs, keras.layers.LSTM(4, name="inner")(inputs)))


@pytest.mark.parametrize("later", [False, True])
def test_gradients_that_an_inner_layer_cuts_are_named(later):
    inputs = keras.Input((5, 3))
    inner = keras_bridge.GRUCell(4).get_layer(truncate=None if later else 2, name="inner", engine="keras")
    model = keras.Model(inputs, inner(inputs))
    inner.truncate = 2
    with pytest.raises(TraceError, match="inner: a recurrent layer of this kind inside a step is not traced"):
        trace(model)


def traced_values(model, x):
    return values_of(trace(model), x)


def values_of(traced, x):
    graph = StepGraph(sequences=traced.inputs, outputs=traced.outputs)
    place = {parameter: variable for variable, parameter in traced.variables}
    weights = [np.asarray(ops.convert_to_numpy(place[p].value), dtype=np.float64) for p in graph.parameters]
    outputs, _, _ = ReferenceEngine(Recurrence(graph)).forward([x[:, None]], [], [], weights)
    return outputs[0][:, 0]


def model_of(name):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, STEPS[name](inputs))
    model.set_weights([np.random.default_rng(1).uniform(0.2, 1, w.shape) for w in model.get_weights()])
    return model, np.random.default_rng(0).standard_normal((4, 6))


def check(model, x):
    assert_close(traced_values(model, x), ops.convert_to_numpy(model(x, training=False)), KERAS_KIND)


@pytest.mark.parametrize("name", STEPS)
def test_step_has_the_same_values(name):
    check(*model_of(name))


class OpsOnWeights(keras.layers.Layer):
    """A layer that computes something of its weights alone, and keeps them in a list and a dict too."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(6,), initializer="ones")
        self.listed = [self.add_weight(shape=(2, 3), initializer="ones")]
        self.named = {"b": self.add_weight(shape=(6,), initializer="ones")}

    def call(self, x):
        return x * ops.exp(self.gain) + ops.reshape(self.listed[0], (6,)) * ops.tanh(self.named["b"])


@pytest.mark.parametrize("make", [OpsOnWeights, lambda: keras.layers.GRUCell(6)])
def test_what_is_computed_of_weights_alone_is_traced(make):
    """New weights given after tracing count: none is kept as a number in the graph."""
    inputs, layer = keras.Input((6,)), make()
    model = keras.Model(
        inputs, layer(inputs, [inputs])[0] if isinstance(layer, keras.layers.GRUCell) else layer(inputs)
    )
    traced = trace(model)
    x = np.random.default_rng(0).standard_normal((4, 6))
    before = ops.convert_to_numpy(model(x))
    model.set_weights([np.random.default_rng(1).standard_normal(w.shape) for w in model.get_weights()])
    after = ops.convert_to_numpy(model(x))
    assert np.abs(after - before).max() > 0.1
    assert_close(values_of(traced, x), after, KERAS_KIND)


class DropsHalf(keras.layers.Layer):
    """A layer around dropout; which mode the dropout runs in it says itself, or leaves to its own call."""

    def __init__(self, **options):
        super().__init__()
        self.drop, self.options = keras.layers.Dropout(0.5), options

    def call(self, x, training=None):
        return self.drop(x, **self.options)

    def compute_output_shape(self, shape):  # which Keras does not find out on JAX, where dropout is drawn
        return shape


class InModeOf(keras.layers.Layer):
    """A layer that runs another one in a mode of its choice."""

    def __init__(self, part, training):
        super().__init__()
        self.part, self.mode = part, training

    def call(self, x):
        return self.part(x, training=self.mode)


@pytest.mark.parametrize("engine", ["keras", "reference"])
@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("training", [None, False, True])
def test_a_layer_runs_another_one_in_a_mode_of_its_choice(engine, mode, training):
    """Dropout at inference (Gal 2016), or never; what is drawn with a mode runs in the call's."""
    x = keras.Input((20,))
    half = keras.layers.Dropout(0.5)
    parts = [half, DropsHalf(), keras.Sequential([keras.Input((20,)), half]), DropsHalf(training=mode)]
    within = [InModeOf(part, mode)(x) for part in parts[:3]]
    after = DropsHalf()(0.0 * within[0] + 1.0)
    layer = keras_bridge.RecurrentModel(
        x, [*within, parts[3](x), DropsHalf()(x), half(x, training=mode), after], engine=engine
    )
    answers = layer(np.ones((2, 3, 20), "float32"), training=training)
    dropped = [bool((ops.convert_to_numpy(y) == 0).any()) for y in answers]
    assert dropped == [mode] * 4 + [bool(training)] * 3


MUTATIONS = {
    "a rule of another operation": ("dense silu", "Silu", lambda operation, x: rsref_ops.tanh(x)),
    "a dropped bias": ("nested", "Add", lambda operation, a, b: a),
    "operands exchanged": ("where", "Where", lambda operation, c, a, b: rsref_ops.where(c, b, a)),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_check_sees_a_wrong_rule(name, monkeypatch):
    step, operation, rule = MUTATIONS[name]
    model, x = model_of(step)
    monkeypatch.setitem(RULES, operation, rule)
    with pytest.raises(AssertionError, match="relative error"):
        check(model, x)


def test_an_operation_without_counterpart_is_named():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, ops.i0(inputs))
    with pytest.raises(TraceError, match="I0"):
        trace(model)
