"""What is refused in compiled code, since it would be decided once and for ever; PyTorch does not compile."""

import keras
import pytest
from keras import layers

from tests.bridge.test_states import TRUTH, ZEROS, X, counting, fed_back


def test_stateful_models_of_unknown_batch_are_refused_in_compiled_code():
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, counting(stateful=True)(inputs))
    with pytest.raises(ValueError, match="needs the batch size"):
        model.predict(X, verbose=0)


def test_a_callable_probability_in_compiled_code():
    for chance, words in ((lambda: 0.5, "plain number"), (lambda: 1.5, "plain number")):
        layer = fed_back(teacher_force=chance)
        with pytest.raises(ValueError, match=words):
            _train_forced(layer)
    moving = keras.Variable(1.0)
    _train_forced(fed_back(teacher_force=lambda: 0.5 * moving))


def _train_forced(layer):
    x, truth = keras.Input((None, 1)), keras.Input((None, 1))
    model = keras.Model([x, truth], layers.Dense(1)(layer(x, ground_truth=truth)))
    model.compile("sgd", "mse")
    model.fit([ZEROS, TRUTH], TRUTH, verbose=0)
