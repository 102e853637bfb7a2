"""rsref's full cells against Keras's own layers, weights copied: values and all gradients, with masks, both ways."""

import keras
import numpy as np
import pytest
from keras import ops

from rsref import cells
from tests.bridge.autodiff import BACKEND, KERAS_KIND, values_and_gradients
from tests.tolerances import assert_close

MASKS = {
    "none": None,
    "right": np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]], bool),
    "left and middle": np.array([[0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1]], bool),
}
KERAS = {
    "simple": (keras.layers.SimpleRNN, cells.SimpleRNNCell, {}),
    "simple relu": (keras.layers.SimpleRNN, cells.SimpleRNNCell, {"activation": "relu"}),
    "simple without bias": (keras.layers.SimpleRNN, cells.SimpleRNNCell, {"use_bias": False}),
    "gru": (keras.layers.GRU, cells.GRUCell, {}),
    "gru, reset before": (keras.layers.GRU, cells.GRUCell, {"reset_after": False}),
    "gru without bias": (keras.layers.GRU, cells.GRUCell, {"use_bias": False}),
    "lstm": (keras.layers.LSTM, cells.LSTMCell, {}),
    "lstm, hard gates": (keras.layers.LSTM, cells.LSTMCell, {"recurrent_activation": "hard_sigmoid"}),
    "lstm without bias": (keras.layers.LSTM, cells.LSTMCell, {"use_bias": False}),
}


@pytest.fixture(autouse=True)
def precision(request):
    """float64 where Keras's recurrent layers run in it; float32 throughout on JAX, where a mixture is refused."""
    if BACKEND == "tensorflow":
        request.getfixturevalue("float64")
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", False)
    yield
    if BACKEND == "jax":
        jax.config.update("jax_enable_x64", True)


def compared(mask, steps, backwards):
    """Return 1 for the outputs that are compared, (batch, time, 1).

    On JAX Keras's layers repeat the initial state, instead of zeros, before the first valid step: left out there.
    """
    if mask is None or BACKEND != "jax":
        return np.ones((3, steps, 1))
    order = mask[:, ::-1] if backwards else mask
    return np.logical_or.accumulate(order, axis=1)[..., None].astype(float)


def sample():
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, 6, 5)), [rng.standard_normal((3, 4)) for _ in range(2)]


def pair(name, go_backwards):
    """Return a Keras layer and ours with the same random weights."""
    keras_class, cell_class, options = KERAS[name]
    rng = np.random.default_rng(1)
    loop = {"return_sequences": True, "return_state": True, "go_backwards": go_backwards}
    peer = keras_class(4, **loop, **options)
    peer.build((3, 6, 5))
    peer.set_weights([rng.standard_normal(w.shape).astype(keras.config.floatx()) for w in peer.get_weights()])
    ours = cell_class(4, **options).get_layer(**loop)
    ours.build((3, 6, 5))
    ours.set_weights(peer.get_weights())
    return peer, ours


def check(peer, ours, mask):
    x, states = sample()
    x, states = x.astype(keras.config.floatx()), [s.astype(keras.config.floatx()) for s in states[: ours.num_states]]

    kept = compared(mask, x.shape[1], ours.go_backwards)

    def square_sum(answers):
        y, *final = answers
        return ops.sum(ops.cast(kept, y.dtype) * y * y) + sum(ops.sum(v * v) for v in final)

    given = None if mask is None else ops.convert_to_tensor(mask)
    expected = values_and_gradients(peer, x, states, given, square_sum)
    answer, tape = ours.forward(x, initial_state=states, mask=mask)
    gradients = ours.backward(tape, [2 * kept * answer[0], *(2 * v for v in answer[1:])])
    answer[0], expected[0] = kept * answer[0], kept * expected[0]
    found = [*answer, gradients.x, *gradients.initial_state, *gradients.weights]
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, KERAS_KIND)


@pytest.mark.covering("pairs")
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", KERAS)
def test_cells_agree_with_keras(name, mask, go_backwards):
    check(*pair(name, go_backwards), MASKS[mask])


CONVOLUTIONS = {
    "one axis": (keras.layers.ConvLSTM1D, (6,), {"kernel_size": 2, "dilation_rate": 2}),
    "two axes": (keras.layers.ConvLSTM2D, (4, 5), {"kernel_size": (3, 2), "padding": "same"}),
    "two axes, strides": (keras.layers.ConvLSTM2D, (5, 6), {"kernel_size": 3, "strides": 2, "use_bias": False}),
    "three axes": (keras.layers.ConvLSTM3D, (3, 2, 3), {"kernel_size": 2, "activation": "relu"}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutional_cells_agree_with_keras(name):
    """Without a mask: Keras's own layer refuses one where states have several axes."""
    keras_class, spatial, options = CONVOLUTIONS[name]
    loop = {"return_sequences": True, "return_state": True}
    rng = np.random.default_rng(1)
    peer = keras_class(2, **loop, **options)
    peer.build((2, 3, *spatial, 3))
    weights = [0.5 * rng.standard_normal(w.shape).astype(keras.config.floatx()) for w in peer.get_weights()]
    peer.set_weights(weights)
    ours = cells.ConvLSTMCell(2, **options).get_layer(**loop)
    ours.build((2, 3, *spatial, 3))
    ours.set_weights(weights)
    x = rng.standard_normal((2, 3, *spatial, 3)).astype(keras.config.floatx())
    shape = ours.forward(x)[0][1].shape
    states = [rng.standard_normal(shape).astype(keras.config.floatx()) for _ in range(2)]
    expected = values_and_gradients(peer, x, states, None, lambda answers: sum(ops.sum(v * v) for v in answers))
    answer, tape = ours.forward(x, initial_state=states)
    gradients = ours.backward(tape, [2 * v for v in answer])
    found = [*answer, gradients.x, *gradients.initial_state, *gradients.weights]
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, KERAS_KIND)


@pytest.mark.parametrize("name", ["simple", "gru", "lstm"])
def test_the_check_sees_a_transposed_weight(name):
    peer, ours = pair(name, False)
    weights = ours.get_weights()
    weights[1][:, :4] = weights[1][:, :4].T.copy()
    ours.set_weights(weights)
    with pytest.raises(AssertionError, match="relative error"):
        check(peer, ours, None)


def test_the_check_sees_a_dropped_mask():
    peer, ours = pair("lstm", False)
    forward = ours.forward
    ours.forward = lambda x, mask=None, **others: forward(x, **others)
    with pytest.raises(AssertionError, match="relative error"):
        check(peer, ours, MASKS["right"])
