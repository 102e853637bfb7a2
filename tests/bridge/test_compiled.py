"""What is refused in compiled code, since it would be decided once and for ever; PyTorch does not compile."""

import keras
import pytest
from keras import layers, ops

from tests.bridge.autodiff import BACKEND
from tests.bridge.test_states import TRUTH, ZEROS, X, counting, fed_back
from tests.tolerances import assert_close


def test_stateful_models_of_unknown_batch_are_refused_in_compiled_code():
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, counting(stateful=True)(inputs))
    with pytest.raises(ValueError, match="needs the batch size"):
        model.predict(X, verbose=0)


def test_a_batch_of_another_size_is_refused_in_compiled_code():
    """A single sample too, which fits the states of many; TensorFlow knows how many there are when it runs."""
    layer, inputs = counting(stateful=True, engine="keras"), keras.Input((None, 3))
    layer(X)
    model = keras.Model(inputs, layer(inputs))
    assert_close(model.predict(X, verbose=0)[:, 0], [12.0] * 4, "float32")
    with pytest.raises(Exception, match=r"holds the states of 4 samples.*\n?.*call reset_states\(\)"):
        model.predict(X[:1], verbose=0)


@pytest.mark.parametrize("chance", [lambda: 0.5, lambda: 0.5 * ops.ones(())])
def test_a_callable_probability_that_would_be_kept_is_refused(chance):
    with pytest.raises(ValueError, match=r"would keep what it answers.*give a keras\.Variable"):
        forced_model(chance).train_on_batch(*BATCH)
    forced_model(chance, run_eagerly=True).train_on_batch(*BATCH)


def test_a_callable_probability_is_checked_in_compiled_code():
    with pytest.raises(ValueError, match=r"probability in \[0, 1\]; got 1.5"):
        forced_model(lambda: 1.5).train_on_batch(*BATCH)


def test_a_callable_that_computes_from_a_variable():
    """Compiled code reads it again, or it is refused: JAX knows only the variables that layers hold."""
    moving = keras.Variable(2.0, trainable=False)
    if BACKEND == "jax":
        with pytest.raises(ValueError, match="would keep"):
            forced_model(lambda: 0.5 * moving).train_on_batch(*BATCH)
    follows(forced_model(lambda: 0.5 * moving, held=moving), moving, 2.0)


def test_a_variable_probability_moves_between_calls_of_compiled_code():
    moving = keras.Variable(1.0)
    follows(forced_model(moving), moving, 1.0)


BATCH = [ZEROS, TRUTH], TRUTH


def forced_model(chance, held=None, **options):
    """What the output misses of the truth is the first step's if the truth is always read, everything if never.

    held: what a layer of the model holds.
    """
    x, truth, dense = keras.Input((None, 1)), keras.Input((None, 1)), layers.Dense(1)
    dense.held = held
    model = keras.Model([x, truth], fed_back(teacher_force=chance)(dense(x), ground_truth=truth))
    model.compile(keras.optimizers.SGD(0.0), "mse", **options)
    return model


def follows(model, moving, always):
    """Check that compiled training reads a variable's value of the time: its probability is 1, then 0, then 1."""
    for value, loss in ((always, 0.2), (0.0, 1.0), (always, 0.2)):
        moving.assign(value)
        found = model.fit(*BATCH, batch_size=len(TRUTH), verbose=0).history["loss"][0]
        assert_close(found, loss, "float32")
