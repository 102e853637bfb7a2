"""Regularizers and constraints of rsref's cells give Keras's numbers."""

import keras
import numpy as np
import pytest

from rsref import cells, constraints, regularizers
from tests.tolerances import assert_close

REGULARIZERS = {
    "l1": ("l1", "l1"),
    "l2": ("l2", "l2"),
    "both": (regularizers.L1L2(0.1, 0.2), keras.regularizers.L1L2(0.1, 0.2)),
}
CONSTRAINTS = {
    "max": (constraints.MaxNorm(0.5), keras.constraints.MaxNorm(0.5)),
    "min and max": (constraints.MinMaxNorm(0.2, 0.5, 0.7), keras.constraints.MinMaxNorm(0.2, 0.5, 0.7)),
    "unit": ("unit_norm", "unit_norm"),
    "not negative": ("non_neg", "non_neg"),
}


def layers(ours, keras_own):
    layer = cells.LSTMCell(3, **ours).get_layer()
    layer.build((None, None, 2))
    peer = keras.layers.LSTM(3, **keras_own)
    peer.build((None, None, 2))
    peer.set_weights(layer.get_weights())
    return layer, peer


@pytest.mark.parametrize("name", REGULARIZERS)
def test_regularization(name):
    ours, keras_own = REGULARIZERS[name]
    layer, peer = layers({"kernel_regularizer": ours}, {"kernel_regularizer": keras_own})
    loss, gradients = layer.regularization()
    assert_close(loss, float(sum(peer.losses)), "float32")
    kernel, moved = layer.weights[0].value, np.cos(np.arange(layer.weights[0].value.size)).reshape(2, 12)
    regularizer = layer.weights[0].regularizer
    slope = (regularizer(kernel + 1e-6 * moved) - regularizer(kernel - 1e-6 * moved)) / 2e-6
    assert_close((gradients[0] * moved).sum(), slope, "differences")
    assert not gradients[1].any()


def test_the_peer_sees_another_regularizer():
    layer, peer = layers({"kernel_regularizer": "l1"}, {"kernel_regularizer": "l2"})
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(layer.regularization()[0], float(sum(peer.losses)), "float32")


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints(name):
    ours, keras_own = CONSTRAINTS[name]
    layer, peer = layers({"recurrent_constraint": ours}, {"recurrent_constraint": keras_own})
    before = layer.get_weights()
    layer.apply_constraints()
    weight = peer.trainable_weights[1]
    expected = keras.ops.convert_to_numpy(weight.constraint(weight.value))
    assert_close(layer.get_weights()[1], expected, "float32")
    assert np.abs(layer.get_weights()[1] - before[1]).max() > 1e-3
    assert (layer.get_weights()[0] == before[0]).all()


@pytest.mark.parametrize("scale", [0.01, 1, 10])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("MaxNorm", "MinMaxNorm", "UnitNorm", "NonNeg", "L1", "L2", "L1L2")),
        *((name, {"axis": 1}) for name in ("MaxNorm", "MinMaxNorm", "UnitNorm")),
        ("MinMaxNorm", {"min_value": 0.5, "rate": 0.25, "axis": -1}),
    ],
)
def test_defaults_and_axes(name, options, scale):
    values = (scale * np.random.default_rng(0).normal(size=(4, 3, 5))).astype(np.float32)
    ours = getattr(regularizers if name[0] == "L" else constraints, name)(**options)
    peer = getattr(keras.regularizers if name[0] == "L" else keras.constraints, name)(**options)
    assert_close(ours(values), keras.ops.convert_to_numpy(peer(values)), "float32")


@pytest.mark.parametrize("option", ["kernel_regularizer", "bias_constraint"])
def test_unknown_names_are_answered(option):
    with pytest.raises(ValueError, match=r"l3.*unknown"):
        cells.GRUCell(3, **{option: "l3"}).get_layer().build((None, None, 2))
