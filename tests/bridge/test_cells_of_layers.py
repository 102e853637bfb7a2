"""Cells taken from layers, ours and Keras's: steps that read a mask or have several inputs, images as states."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_bridge as kb
from tests.tolerances import assert_close


def sample(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


def test_the_cell_of_a_layer_that_reads_a_mask():
    options = {"decode": True, "output_length": 3, "engine": "reference"}
    inner = kb.RecurrentSequential([kb.AttentionDecoderCell(4)], **options)
    outer = kb.RecurrentSequential([inner.get_cell()], **options)
    x, mask = sample(2, 5, 3), np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    found = numbers(outer(x, mask=mask))
    assert_close(found, numbers(inner(x, mask=mask)), "float32")
    assert np.abs(found - numbers(outer(x)))[0].max() > 1e-3
    again = kb.RecurrentSequential.from_config(outer.get_config())
    again.build(x.shape)
    again.set_weights(outer.get_weights())
    assert_close(numbers(again(x, mask=mask)), found, "float32")


def test_the_cell_of_a_layer_with_two_inputs():
    x, y, h = (keras.Input((3,)) for _ in range(3))
    new = ops.tanh(x + 2 * y + h)
    layer = kb.RecurrentModel([x, y], new, h, new, engine="reference")
    one, state = keras.Input((3,)), keras.Input((3,))
    output, new_state = layer.get_cell()([one, ops.sin(one), state])
    values = sample(2, 4, 3)
    found = kb.RecurrentModel(one, output, state, new_state, engine="reference")(values)
    assert_close(numbers(found), numbers(layer([values, np.sin(values)])), "float32")


@pytest.mark.parametrize("built", [False, True])
def test_a_convolutional_layer_of_keras_in_a_stack(built):
    x, peer = sample(2, 3, 6, 2), keras.layers.ConvLSTM1D(4, 3, padding="same")
    if built:
        peer(x)
    layer = kb.RecurrentSequential([peer], engine="reference")
    layer.build(x.shape)
    assert isinstance(layer.layers[0], kb.ConvLSTMCell)
    if not built:
        peer.build(x.shape)
        layer.set_weights(peer.get_weights())
    assert_close(numbers(layer(x)), numbers(peer(x)), "float32")


def test_a_convolutional_cell_of_keras_without_its_layer_is_named():
    with pytest.raises(TypeError, match=r"ConvLSTMCell, have no sizes: give the layer around it"):
        kb.RecurrentSequential([keras.layers.ConvLSTM1D(4, 3).cell])


def test_a_function_after_a_cell_whose_output_alone_is_read():
    layer = kb.RecurrentSequential(
        [kb.GRUCell(3), keras.layers.Lambda(lambda y: 2 * y)], readout="readout_only", engine="reference"
    )
    x, start = sample(2, 1, 4), sample(2, 3)
    plain = kb.GRUCell(3).get_layer(engine="reference")
    found = layer(x, initial_readout=start)
    plain.build((2, 1, 3))
    plain.set_weights(layer.get_weights())
    assert_close(numbers(found), 2 * numbers(plain(start[:, None])), "float32")


def taken_twice():
    """Two cells taken from one layer."""
    inner = kb.RecurrentSequential([kb.GRUCell(3)])
    return [inner.get_cell(), inner.get_cell()]


@pytest.mark.parametrize(
    ("make", "weights"),
    [
        (lambda: [kb.GRUCell(3)] * 2, 3),
        (lambda: [keras.layers.LSTMCell(3)] * 2, 3),
        (lambda: [keras.layers.Dense(3), kb.GRUCell(3)] * 2, 5),
        (taken_twice, 3),
    ],
)
def test_tied_weights_of_a_stack_stay_tied_in_a_copy(make, weights, tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), kb.RecurrentSequential(make(), engine="reference")])
    model.save(tmp_path / "model.keras")
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    x = sample(2, 4, 3)
    for again in (model, keras.models.load_model(tmp_path / "model.keras"), copy):
        assert len(again.weights) == weights
        assert_close(numbers(again(x)), numbers(model(x)), "float32")
