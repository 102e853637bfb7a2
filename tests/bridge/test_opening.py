"""What would be recorded as something else than it is when a layer of a step is opened is named instead."""

import contextlib
import itertools
import threading

import keras
import numpy as np
import pytest
from keras import ops

from keras_bridge.trace import trace
from keras_bridge.trace_error import TraceError

pytestmark = pytest.mark.usefixtures("float64")


class Complex(keras.layers.Layer):
    def build(self, shape):
        self.phase = self.add_weight(shape=shape[1:], dtype="complex64", initializer="zeros", name="phase")

    def call(self, x):
        return ops.real(ops.cast(x, "complex64") * self.phase)


def test_complex_weights_and_inputs_are_named():
    inputs = keras.Input((6,))
    with pytest.raises(TraceError, match=r"phase.*complex64"):
        trace(keras.Model(inputs, Complex()(inputs)))
    inputs = keras.Input((6,), dtype="complex64")
    with pytest.raises(TraceError, match="complex64"):
        trace(keras.Model(inputs, ops.real(inputs)))


def test_a_choice_between_functions_is_named():
    """Keras draws such an operation as what its first function answers, which is nothing new where that is an input."""
    inputs = keras.Input((6,))
    choice = keras.layers.Lambda(lambda x: ops.cond(ops.sum(x) > 0, lambda: x, lambda: -x), output_shape=(6,))
    with pytest.raises(TraceError, match=r"\bCond\b"):
        trace(keras.Model(inputs, choice(inputs)))


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="symbolic tensors go through functions of PyTorch alone")
@pytest.mark.parametrize("outside", ["no_grad", "enable_grad"])
def test_gradients_of_another_kind_are_named(outside):
    import torch

    class Straight(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return ops.round(x)

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    def held(x):
        with torch.no_grad():
            return ops.tanh(x)

    for function, operation in ((Straight.apply, "round"), (held, "tanh"), (doubled_with_another_gradient, "multiply")):
        inputs = keras.Input((6,))
        layer = keras.layers.Lambda(lambda x, function=function: function(x) + x, output_shape=(6,))
        model = keras.Model(inputs, layer(inputs))
        with getattr(torch, outside)(), pytest.raises(TraceError, match=rf"{operation}\w*: .* gradient of its own"):
            trace(model)


def weight_of_the_backend():
    if keras.backend.backend() == "torch":
        import torch

        return torch.nn.Parameter(torch.ones(6, dtype=torch.float64))
    import tensorflow as tf

    return tf.Variable(np.ones(6))


OF_WEIGHTS = {
    "itself": lambda x, w: x * w,
    "on the left": lambda x, w: w * x,
    "computed": lambda x, w: x + ops.tanh(w),
}


@pytest.mark.skipif(keras.backend.backend() not in ("torch", "tensorflow"), reason="JAX has no weights of its own")
@pytest.mark.parametrize("way", OF_WEIGHTS)
def test_weights_that_keras_does_not_know_are_named(way):
    weight, inputs = weight_of_the_backend(), keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: OF_WEIGHTS[way](x, weight), name="around")(inputs))
    with pytest.raises(TraceError, match=r"around.*: a weight that Keras does not know"):
        trace(model)


@ops.custom_gradient
def doubled_with_another_gradient(x):
    return 2.0 * x, lambda *arguments, upstream: 3.0 * upstream


def test_a_value_read_while_tracing_is_refused():
    inputs = keras.Input((6,))
    variable = keras.Variable(np.ones(6), name="outside")
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * ops.exp(variable))(inputs))
    with pytest.raises(TraceError, match=r"outside.*is read while the step is traced"):
        trace(model)


COUNT, SEEDS = itertools.count(1.0), keras.random.SeedGenerator(0)
CHANGING = {
    "an argument": lambda x: x * np.random.default_rng().standard_normal(6),
    "a number": lambda x: x + next(COUNT),
    "an attribute": lambda x: ops.clip(x, 0.0, next(COUNT)),
    "a rate of dropout": lambda x: keras.random.dropout(x, 0.1 + next(COUNT) % 5 / 10, seed=SEEDS),
    "an operation": lambda x: ops.tanh(x) if next(COUNT) % 2 else ops.exp(x),
}


@pytest.mark.parametrize("what", CHANGING)
def test_what_changes_from_call_to_call_is_named(what):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Lambda(CHANGING[what], output_shape=(6,), name="drawn")(inputs))
    with pytest.raises(TraceError, match=r"drawn: .* something else at each call"):
        trace(model)


class Keeps(keras.layers.Layer):
    """A layer that keeps what it computes."""

    def __init__(self, compute, reads, **options):
        super().__init__(**options)
        self.compute, self.reads, self.kept, self.seeds = compute, reads, None, keras.random.SeedGenerator(0)

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        if self.kept is None or not self.reads:
            self.kept = self.compute(x, self.seeds)
        return x + self.kept


KEPT = {
    "the first slice": lambda x, seeds: ops.tanh(x),
    "a mask": lambda x, seeds: keras.random.dropout(ops.ones_like(x), 0.5, seed=seeds),
}


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("what", KEPT)
def test_what_a_call_reads_of_the_one_before_is_named(what, reads):
    inputs, layer = keras.Input((6,)), Keeps(KEPT[what], reads, name="keeps")
    model = keras.Model(inputs, layer(inputs))
    layer.kept = None
    with pytest.raises(TraceError, match=r"keeps: .* the last call left") if reads else contextlib.nullcontext():
        trace(model)
    assert layer.kept is None  # nor is anything symbolic left in it


class CountsCalls(keras.layers.Layer):
    """A layer that sets a variable in training."""

    def __init__(self, dtype, add):
        super().__init__()
        self.kind, self.add = dtype, add

    def build(self, shape):
        self.calls = self.add_weight(shape=(), dtype=self.kind, initializer="zeros", trainable=False, name="calls")

    def call(self, x, training=False):
        if training:
            (self.calls.assign_add if self.add else self.calls.assign)(1)
        return x


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_variable_set_while_tracing_is_refused(dtype, add):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, CountsCalls(dtype, add)(inputs))
    trace(model)
    with pytest.raises(TraceError, match="calls' is set while the step is traced"):
        trace(model, training=True)


class Scaled(keras.layers.Layer):
    """A layer that asks for the value of a tensor."""

    def call(self, x):
        return x * float(ops.mean(x))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_call_that_ends_is_named_with_its_line():
    x = keras.Input((3,))
    model = keras.Model(x, Scaled(name="scaled")(x))
    words = r"/scaled: the layer Scaled cannot be traced at 'return x \* float\(ops.mean\(x\)\)' \(ValueError: A K"
    with pytest.raises(TraceError, match=words) as raised:
        trace(model)
    assert not set("\n\x1b") & set(str(raised.value))


class Sliced(keras.layers.Layer):
    """A layer that asks of symbolic tensors what they take while a layer is recorded; at first another thread is up."""

    def __init__(self, meanwhile=None):
        super().__init__()
        self.meanwhile = meanwhile

    def call(self, x):
        start = x[:]
        if self.meanwhile is not None:
            self.meanwhile()
        return start + x[..., :1] + x[:]


def test_a_layer_opened_meanwhile_by_another_thread_waits():
    """Keras's classes are changed while a layer is recorded, and are as before when it was."""
    x = keras.Input((3,))
    other, traced, threads = keras.Model(x, Sliced()(x)), [], []

    def meanwhile():
        if not threads and first is not None:
            threads.append(threading.Thread(target=lambda: traced.append(trace(other))))
            threads[0].start()
            threads[0].join(0.5)

    first = None
    first = keras.Model(x, Sliced(meanwhile)(x))
    trace(first)
    threads[0].join()
    assert len(traced) == 1
    assert not hasattr(x, "__pos__")
