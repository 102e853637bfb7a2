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


def test_states_are_carried_over(tmp_path):
    """In a SavedModel; in an ONNX graph they could not be."""
    model = keras.Sequential([keras.Input((5, 4), batch_size=len(X)), LSTMCell(3).get_layer(stateful=True)])
    signature = [keras.InputSpec("float32", X.shape)]
    export(model, str(tmp_path / "saved"), verbose=False, input_signature=signature)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    for _ in range(2):
        assert_close(np.asarray(loaded.serve(X)), ops.convert_to_numpy(model(X)), "float32")
    with pytest.raises(ValueError, match=r"stateful.*initial_state"):
        export(model, str(tmp_path / "model.onnx"), format="onnx", input_signature=signature)
