"""A model saved under one backend loads under any other, with any engine, and gives the same numbers."""

import keras
import numpy as np
import pytest

import keras_bridge as kb
from tests.bridge.saved_models import FOLDER, X
from tests.tolerances import assert_close


@pytest.mark.covering("values")
@pytest.mark.parametrize("engine", ["keras", "reference"])
@pytest.mark.parametrize("origin", ["jax", "tensorflow", "torch"])
def test_a_model_of_another_backend(origin, engine):
    with kb.use_engine(engine):
        found = keras.models.load_model(FOLDER / f"{origin}.keras").predict(X, verbose=0)
    expected = np.load(FOLDER / f"{origin}.npz")
    assert_close(found[0], expected["first"], "float32")
    assert_close(found[1], expected["second"], "float32")
    assert min(np.abs(expected[name]).max() for name in expected) > 0.1
