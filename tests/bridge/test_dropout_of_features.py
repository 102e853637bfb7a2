"""Seeded dropout in every feature: all engines draw the same masks, so their answers and gradients are the same."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bridge as kb
from tests.bridge.autodiff import gradients_of_layer
from tests.bridge.test_training import ENGINES
from tests.cross.compared import weigh
from tests.tolerances import assert_close

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6, 3)).astype("float32")
MASK = np.array([[1] * 6, [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 1, 1]], bool)


def dropped(cell, units, seed):
    return cell(units, dropout=0.4, recurrent_dropout=0.3, seed=seed)


def inner():
    return kb.RecurrentSequential([dropped(kb.GRUCell, 4, 3), dropped(kb.SimpleRNNCell, 3, 5)])


def alone(cell, **options):
    return [dropped(cell, 4, 7)], options, {}


FEATURES = {
    "masked": lambda: ([dropped(kb.LSTMCell, 4, 7)], {"return_state": True}, {"mask": MASK}),
    "zeros where masked": lambda: ([dropped(kb.LSTMCell, 4, 7)], {"zero_output_for_mask": True}, {"mask": MASK}),
    "backwards": lambda: ([dropped(kb.LSTMCell, 4, 7)], {"go_backwards": True}, {"mask": MASK}),
    "truncated": lambda: alone(kb.LSTMCell, truncate=2),
    "stateful": lambda: alone(kb.GRUCell, stateful=True),
    "stacked": lambda: ([dropped(kb.GRUCell, 4, 3), layers.Dense(3), dropped(kb.LSTMCell, 4, 5)], {}, {"mask": MASK}),
    "synchronised": lambda: (
        [dropped(kb.GRUCell, 4, 3), dropped(kb.GRUCell, 4, 5)],
        {"state_sync": True},
        {"mask": MASK},
    ),
    "readout": lambda: ([dropped(kb.GRUCell, 4, 3), layers.Dense(3)], {"readout": True}, {"mask": MASK}),
    "forced": lambda: (
        [dropped(kb.GRUCell, 4, 3), layers.Dense(3)],
        {"readout": True, "teacher_force": True},
        {"ground_truth": X},
    ),
    "nested": lambda: ([inner().get_cell(), dropped(kb.LSTMCell, 4, 9)], {}, {"mask": MASK}),
    "attending": lambda: (
        [dropped(kb.AttentionDecoderCell, 4, 2)],
        {"decode": True, "output_length": 5},
        {"mask": MASK},
    ),
    "cells of Keras": lambda: (
        [dropped(layers.LSTMCell, 4, 3), layers.StackedRNNCells([dropped(layers.GRUCell, 3, 1)])],
        {},
        {"mask": MASK},
    ),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_seeded_dropout_is_alike_on_every_engine(feature):
    found, weights = [], None
    for engine in ENGINES:
        keras.utils.set_random_seed(0)
        cells, options, call = FEATURES[feature]()
        layer = kb.RecurrentSequential(cells, engine=engine, return_sequences=True, **options)
        layer.build(X.shape)
        weights = weights or layer.get_weights()
        layer.set_weights(weights)
        call["training"] = True
        answers, gradients = gradients_of_layer(layer, [X], 1, call, layer.trainable_variables, weigh)
        found.append([*answers, *gradients])
    call["training"] = False
    (rested, *_), _ = gradients_of_layer(layer, [X], 1, call, layer.trainable_variables, weigh)
    assert np.abs(rested - found[0][0]).max() > 0.01
    for one in found[1:]:
        for value, expected in zip(one, found[0], strict=True):
            assert_close(value, expected, "float32")
