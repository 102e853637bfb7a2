"""An exported graph gives the model's answers, whatever its engine; collected where TensorFlow is installed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_bridge import LSTMCell, RecurrentSequential, export
from tests.bridge.test_convert import X
from tests.tolerances import assert_close


@pytest.mark.parametrize("steps", [5, None])
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_export(engine, steps, tmp_path):
    model = keras.Sequential([keras.Input((steps, 4)), RecurrentSequential([LSTMCell(3)], engine=engine)])
    export(model, str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    assert_close(np.asarray(loaded.serve(X)), ops.convert_to_numpy(model(X)), "float32")
