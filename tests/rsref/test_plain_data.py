"""A recurrence survives the way through JSON: same data, same numbers."""

import json

import numpy as np
import pytest

from rsref import Dense, Embedding, Input, RecurrentModel, ops
from rsref.engine import ReferenceEngine
from rsref.layers import Dropout
from rsref.plain_data import from_data, to_data
from tests.tolerances import assert_close


def drawn_layer():
    token, image, h = Input((), dtype="int"), Input((4, 4, 2)), Input((6,))
    features = ops.reshape(ops.conv(image, np.ones((3, 3, 2, 1)), padding="same"), (-1, 16))
    z = Dense(6)(ops.concatenate([Embedding(5, 3)(token), Dropout(0.5)(features), h], -1))
    new = ops.where(z > 0.1, ops.tanh(z), z[:, ::-1] * 0.5)
    return RecurrentModel([token, image], new, h, new, zero_output_for_mask=True, truncate=3)


def results_of(recurrence, sequences):
    """Return outputs, final states and gradients of a recurrence under a fixed mask."""
    mask = np.array([[True, True, False, True], [False, True, True, False]])
    engine, weights = ReferenceEngine(recurrence), [p.value for p in recurrence.graph.parameters]
    outputs, states, tape = engine.forward(sequences, [], [np.zeros((2, 6))], weights, mask=mask)
    gradients = engine.backward(tape, [np.ones_like(outputs[0])], [None])
    return [*outputs, *states, gradients.sequences[1], *gradients.parameters]


def test_lengths_and_bounds_of_numpy_are_plain_integers():
    x = Input((np.prod((2, 3)),))
    data = to_data(RecurrentModel(x, x[:, np.int64(1) : np.int64(5) : np.int64(2)]).recurrence)
    assert json.loads(json.dumps(data))["tensors"][0]["shape"] == [None, 6]


def test_data_are_json_and_give_the_same_numbers():
    layer, rng = drawn_layer(), np.random.default_rng(0)
    sequences = [rng.integers(0, 5, (2, 4)), rng.standard_normal((2, 4, 4, 4, 2)), np.ones((2, 4, 16))]
    data = json.loads(json.dumps(to_data(layer.recurrence)))
    again = from_data(data, layer.get_weights())
    assert to_data(again) == data
    for found, expected in zip(results_of(again, sequences), results_of(layer.recurrence, sequences), strict=True):
        assert_close(found, expected)


def test_names_do_not_matter_and_structure_does():
    first, second = to_data(drawn_layer().recurrence), to_data(drawn_layer().recurrence)
    for data in (first, second):
        for tensor in data["tensors"]:
            tensor.pop("parameter", None)
    assert first == second
    second["tensors"][-1]["op"] = "sin"
    assert first != second


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(version=99), "version 99"),
        (lambda data: data["tensors"][-1].update(op="no such op"), "no such op"),
    ],
)
def test_unreadable_data_are_refused(change, words):
    data = to_data(drawn_layer().recurrence)
    change(data)
    with pytest.raises(ValueError, match=words):
        from_data(data)


@pytest.mark.parametrize("data", ["{}", None, []])
def test_what_is_no_data_is_refused(data):
    with pytest.raises(TypeError, match="from_data takes what to_data answered"):
        from_data(data)


def test_wrong_weights_are_refused():
    layer = drawn_layer()
    data, weights = to_data(layer.recurrence), layer.get_weights()
    with pytest.raises(ValueError, match="no weight is given"):
        from_data(data, weights[:-1])
    with pytest.raises(ValueError, match="more weights"):
        from_data(data, [*weights, np.zeros(1)])
    with pytest.raises(ValueError, match="shape"):
        from_data(data, [np.zeros((2, 2)), *weights[1:]])
