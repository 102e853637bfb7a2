"""Loops and choices of keras.ops in a step, beside what the backend makes of them."""

import threading

import keras
import numpy as np
import pytest
from keras import ops

from keras_bridge.trace import TraceError, trace
from tests.bridge.autodiff import BACKEND, KERAS_KIND
from tests.bridge.test_operations import factor, of_keras, of_rsref
from tests.tolerances import assert_close

pytestmark = pytest.mark.usefixtures("float64")


def kind_of_keras(name):
    """Keras's associative_scan joins its parts in float32 on PyTorch."""
    return "float32" if BACKEND == "torch" and name.startswith("associative_scan") else KERAS_KIND


class Within(keras.layers.Layer):
    """A function of two tensors, as a layer."""

    def __init__(self, function):
        super().__init__(name="within")
        self.function = function

    def call(self, x, y):
        return self.function(x, y)

    def compute_output_shape(self, x_shape, y_shape):
        return x_shape


def columns(x):
    """The six numbers of a row, one after another."""
    return ops.transpose(x)


def bent(x):
    """A curve that Keras computes in float64 on JAX, too, whose loops carry one kind: ops.tanh is float32 there."""
    return x * ops.exp(-x * x)


def decay(carry, now):
    return 0.5 * carry + now[0] * now[1], bent(carry + now[0])


def affine(one, other):
    """What follows from two affine maps, one after the other: the rule of a linear recurrence."""
    return one[0] * other[0], one[1] * other[0] + other[1]


CASES = {
    "fori_loop": lambda x, y: ops.fori_loop(1, 4, lambda i, v: bent(v) + y * ops.cast(i, x.dtype), x),
    "fori_loop of places": lambda x, y: (
        y + ops.fori_loop(0, 6, lambda i, v: v + ops.sum(ops.take(x, i, axis=1)), ops.zeros((6,)))
    ),
    "fori_loop of no turn": lambda x, y: x * ops.fori_loop(0, 0, lambda i, v: v * 3.0, y),
    "fori_loop of several": lambda x, y: ops.fori_loop(0, 3, lambda i, v: (bent(v[1]), v[0] * y), (x, y))[0],
    "scan": lambda x, y: columns(ops.scan(decay, x[:, 0], (columns(x), columns(y)))[1]),
    "scan from the end": lambda x, y: columns(ops.scan(decay, y[:, 2], (columns(x), columns(y)), reverse=True)[1]),
    "scan of what is carried": lambda x, y: ops.scan(lambda c, _: (0.5 * c * y, c), x, length=3)[0],
    "associative_scan": lambda x, y: ops.associative_scan(affine, (x, y), axis=1)[1],
    "associative_scan from the end": lambda x, y: ops.associative_scan(affine, (x, y), reverse=True, axis=1)[1],
    "map": lambda x, y: columns(ops.map(lambda v: bent(v) * y[:, 1], columns(x))),
    "vectorized_map": lambda x, y: columns(ops.vectorized_map(lambda v: bent(v[0]) * v[1], (columns(x), columns(y)))),
    "while_loop": lambda x, y: ops.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, bent(v) + y), (0, x))[1],
    "while_loop of at most": lambda x, y: ops.while_loop(
        lambda i, v: i < 9, lambda i, v: (i + 1, bent(v) * y), (0, x), maximum_iterations=2
    )[1],
    "while_loop of one": lambda x, y: ops.while_loop(lambda v: True, lambda v: bent(v) + y, x, maximum_iterations=2),
    "switch": lambda x, y: ops.switch(1, [lambda v: v, lambda v: ops.exp(v) * y, lambda v: -v], x),
    "switch beyond the last": lambda x, y: ops.switch(7, [lambda v: v, lambda v: ops.exp(v) * y], x),
    "scan that answers nothing": lambda x, y: ops.scan(lambda c, _: (0.5 * c * y, None), x, length=2)[0],
    "many turns of numbers": lambda x, y: (
        x * ops.fori_loop(0, 300, lambda i, v: 0.99 * v, ops.ones(()))
        + ops.while_loop(lambda i, v: i < 300, lambda i, v: (i + 1, 0.99 * v), (ops.zeros((), "int32"), ops.ones(())))[
            1
        ]
    ),
    "cond": lambda x, y: ops.cond(True, lambda: x * y, lambda: y) - ops.cond(1 > 2, lambda: y, lambda: ops.exp(x)),
}
if BACKEND != "tensorflow":  # which takes 1 and 0 alone
    CASES["cond of a number"] = lambda x, y: ops.cond(0.5, lambda: x * y, lambda: y)
NO_GRADIENT = {"while_loop", "while_loop of at most", "while_loop of one"} if BACKEND == "jax" else ()


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    x, y = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([x, y], Within(CASES[name])(x, y))
    arrays = list(np.random.default_rng(3).uniform(-1.5, 1.5, (2, 4, 6)))
    (value,), gradients = of_rsref(model, arrays)
    if name in NO_GRADIENT:  # JAX has none of a while_loop: a central difference in its place
        assert_close(value, ops.convert_to_numpy(model(arrays)).astype(float), KERAS_KIND)
        direction = np.random.default_rng(4).standard_normal((2, 4, 6))
        ahead, behind = (of_rsref(model, list(arrays + step * direction))[0][0] for step in (1e-5, -1e-5))
        slope = ((ahead - behind) * factor(ahead.shape)).sum() / 2e-5
        np.testing.assert_allclose(np.sum(np.array(gradients) * direction), slope, rtol=1e-7)
        return
    (expected,), expected_gradients = of_keras(model, arrays)
    for one, other in zip([value, *gradients], [expected, *expected_gradients], strict=True):
        assert_close(one, other.astype(float), kind_of_keras(name))


DRAWN = {
    "fori_loop": lambda x: ops.fori_loop(0, 3, lambda i, v: bent(v) + 0.5 * i, x),
    "scan": lambda x: columns(ops.scan(lambda c, v: (0.5 * c + v, bent(c)), x[:, 0], columns(x))[1]),
    "associative_scan": lambda x: ops.associative_scan(lambda a, b: a * b, x, axis=1),
    "map": lambda x: columns(ops.map(bent, columns(x))),
    "vectorized_map": lambda x: columns(ops.vectorized_map(bent, columns(x))),
    "while_loop": lambda x: ops.while_loop(lambda v: True, bent, x, maximum_iterations=3),
    "switch": lambda x: ops.switch(0, [ops.exp, bent], x),
}


@pytest.mark.parametrize("name", DRAWN)
def test_those_drawn_themselves(name):
    """In a model, where no layer is around them."""
    x = keras.Input((6,))
    model = keras.Model(x, DRAWN[name](x))
    array = np.random.default_rng(3).uniform(-1.5, 1.5, (4, 6))
    (value,), _ = of_rsref(model, [array])
    assert_close(value, ops.convert_to_numpy(model(array)).astype(float), kind_of_keras(name))


UNKNOWN = {
    "computed values": lambda x, y: ops.while_loop(lambda v: ops.sum(v) < 4, lambda v: v + y, x),
    "which one, depends": lambda x, y: ops.switch(ops.argmax(x[0]), [lambda v: v, lambda v: v * y], x),
    "how often": lambda x, y: ops.fori_loop(0, ops.argmax(x[0]), lambda i, v: v * y, x),
    "of no turn has no shape": lambda x, y: ops.scan(lambda c, _: (c * y, c), x, length=0)[0],
    "as long as the batch": lambda x, y: ops.map(lambda v: bent(v), x),
    "up to 256 turns are traced; got 257": lambda x, y: ops.fori_loop(0, 257, lambda i, v: v * y, x),
}


@pytest.mark.parametrize("words", UNKNOWN)
def test_what_only_values_decide_is_named(words):
    x, y = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([x, y], Within(UNKNOWN[words])(x, y))
    with pytest.raises(TraceError, match=rf"within: .*ops\..*{words}"):
        trace(model)


def test_other_threads_have_the_backends_own_loops():
    """While a layer is recorded here; ours would refuse so many turns."""
    others = []

    def elsewhere():
        others.append(ops.fori_loop(0, 300, lambda i, v: v + 1.0, ops.zeros(())))
        x = keras.Input((6,))
        others.append(ops.fori_loop(0, 300, lambda i, v: v + 1.0, x))

    def meanwhile(x, y):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return ops.fori_loop(0, 2, lambda i, v: v * y, x)

    x, y = keras.Input((6,)), keras.Input((6,))
    trace(keras.Model([x, y], Within(meanwhile)(x, y)))
    assert [float(value) for value in others[::2]] == [300.0] * (len(others) // 2)
    assert len(others) >= 4


def test_shapes_that_keras_asks_for_meanwhile():
    """A layer within, of which Keras asks the shape by the backend's own loops, over numbers of its own."""

    class Inner(keras.layers.Layer):
        def call(self, x):
            return ops.switch(ops.argmax(ops.zeros((3,))), [lambda v: v * 2.0, lambda v: -v], x)

    inner = Inner()
    x, y = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([x, y], Within(lambda x, y: inner(x) + y)(x, y))
    arrays = list(np.random.default_rng(3).uniform(-1.5, 1.5, (2, 4, 6)))
    (value,), _ = of_rsref(model, arrays)
    np.testing.assert_allclose(value, 2 * arrays[0] + arrays[1], rtol=1e-12)
