"""Gaussian noise in a step: given, it is what a plain loop computes; drawn, it has the moments that are asked for."""

import json
import pickle

import numpy as np
import pytest

from rsref import Dense, GaussianDropout, GaussianNoise, Input, RecurrentModel, RecurrentSequential, ops
from rsref.engine import ReferenceEngine
from rsref.plain_data import from_data, to_data
from rsref.tensor import noise
from tests.rsref.features.plain import check
from tests.tolerances import assert_close

KINDS = {
    "added": (lambda **options: GaussianNoise(0.3, **options), np.add, 0.0),
    "multiplied": (lambda **options: GaussianDropout(0.2, **options), np.multiply, 1.0),
}


@pytest.mark.parametrize("per", ["step", "sequence"])
@pytest.mark.parametrize("kind", KINDS)
def test_given_noise_is_what_a_plain_loop_reads(kind, per):
    make, combine, rest = KINDS[kind]
    x, h = Input((2,)), Input((2,))
    new = ops.tanh(Dense(2)(make(per=per)(x)) + h)
    layer = RecurrentModel(x, new, h, new, return_sequences=True)
    rng = np.random.default_rng(0)
    values, drawn = rng.standard_normal((2, 4, 2)), rng.standard_normal((2, 4, 2) if per == "step" else (2, 2))
    assert layer.noise_shapes == [(per, (None, 2))]

    def looped(x, w, b, noise=drawn):
        h, outputs = np.zeros((2, 2)), []
        for t in range(4):
            h = np.tanh(combine(x[:, t], noise[:, t] if per == "step" else noise) @ w + b + h)
            outputs.append(h)
        return [np.stack(outputs, 1)]

    check(layer, looped, x=values, arguments={"dropout_masks": [drawn], "training": True})
    assert_close(layer(values), looped(values, *layer.get_weights(), np.full_like(drawn, rest))[0])


@pytest.mark.parametrize(("make", "deviation"), [(GaussianNoise, 0.3), (GaussianDropout, (0.3 / 0.7) ** 0.5)])
def test_drawn_noise_has_its_mean_and_deviation(make, deviation):
    """The mean of 2,000 numbers is off by 0.06 of their deviation in one of 140 draws; these are seeded."""
    x = np.ones((100, 10, 20))
    stepwise = RecurrentSequential([make(0.3)], return_sequences=True, seed=1)(x, training=True)
    once = RecurrentSequential([make(0.3, per="sequence")], return_sequences=True, seed=1)(x, training=True)
    for drawn in (stepwise, once):
        assert abs(drawn.mean() - 1) < 0.06 * deviation
        assert abs(drawn.std() / deviation - 1) < 0.06
    assert len(np.unique(stepwise)) == stepwise.size
    assert len(np.unique(once)) == 100 * 20


@pytest.mark.parametrize("kind", KINDS)
def test_noise_of_an_axis_of_unknown_length(kind):
    make, combine, _ = KINDS[kind]
    x = Input((None, 2))
    layer = RecurrentModel(x, ops.sum(make()(x), 1), return_sequences=True)
    rng = np.random.default_rng(0)
    values, drawn = rng.standard_normal((2, 3, 5, 2)), rng.standard_normal((2, 3, 5, 2))
    assert_close(layer(values, dropout_masks=[drawn]), combine(values, drawn).sum(2))
    assert_close(layer(values), values.sum(2))


def test_no_noise_is_drawn_where_there_is_none():
    layer = RecurrentSequential([GaussianNoise(0), GaussianDropout(0)], return_sequences=True)
    values = np.random.default_rng(0).standard_normal((2, 3, 4))
    np.testing.assert_array_equal(layer(values, training=True), values)
    assert layer.noise_shapes == []


def test_noise_survives_json_and_pickles():
    layer = RecurrentSequential([GaussianNoise(0.5), GaussianDropout(0.5, per="sequence")], seed=3)
    values = np.random.default_rng(0).standard_normal((2, 3, 4))
    layer(values)
    assert_close(pickle.loads(pickle.dumps(layer))(values, training=True), layer(values, training=True))
    data = json.loads(json.dumps(to_data(layer.recurrence)))
    assert to_data(from_data(data)) == data
    sources = [leaf.source for leaf in from_data(data).graph.sequences[1:]]
    assert [(s.stddev, s.mean, s.per) for s in sources] == [(0.5, 0.0, "step")]


def test_evenly_distributed_noise():
    """Drawn in a step by itself: as the bridge says keras.random.uniform."""
    x = Input((50,))
    layer = RecurrentModel(x, x + noise(x.shape, width=0.5, mean=3.0), return_sequences=True, seed=1)
    y = layer(np.zeros((40, 3, 50)), training=True)
    assert (y.min(), y.max()) == pytest.approx((2.75, 3.25), abs=2e-3)
    assert (y.mean(), y.std()) == pytest.approx((3.0, 0.5 / 12**0.5), abs=4e-3)
    assert (layer(np.zeros((2, 3, 50))) == 3.0).all()
    data = json.loads(json.dumps(to_data(layer.recurrence)))
    assert [leaf.source.width for leaf in from_data(data).graph.sequences[1:]] == [0.5]


def test_data_of_masks_that_say_nothing_else_are_read():
    """As they were written before there was other noise."""
    layer = RecurrentSequential([GaussianDropout(0.5)])
    layer.build((None, None, 4))
    data = to_data(layer.recurrence)
    for tensor in data["tensors"]:
        if "noise" in tensor:
            tensor["noise"] = {"rate": 0.25, "per": "step"}
    (mask,) = from_data(data).graph.sequences[1:]
    assert (mask.source.rate, mask.source.stddev, mask.source.mean) == (0.25, None, 1.0)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([GaussianNoise(0.5)], "zeros, unless in training, for noise"),
        ([GaussianDropout(0.5)], "ones, unless in training, for noise"),
        ([GaussianNoise(0.5), GaussianDropout(0.5)], "zeros or ones, unless in training, for noise"),
    ],
)
def test_noise_is_asked_for_by_name(made, words):
    layer = RecurrentSequential(made)
    layer.build((None, None, 4))
    with pytest.raises(ValueError, match=words):
        ReferenceEngine(layer.recurrence).forward([np.ones((2, 3, 4))], [], [], [])
