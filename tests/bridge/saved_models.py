"""A model saved under each backend, with its answers; written by `python -m tests.bridge.saved_models`.

test_saved_models.py loads all of them under the backend at hand.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

import keras_bridge as kb

FOLDER = Path(__file__).parent / "saved"
X = np.random.default_rng(0).standard_normal((3, 6, 4)).astype("float32")


def model():
    """A model with cells of all kinds, learned states, a readout, masks, dropout and a drawn step."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((None, 4))
    stack = kb.RecurrentSequential(
        [
            kb.LSTMCell(4, dropout=0.2, kernel_regularizer="l2"),
            layers.Dense(4),
            layers.GRUCell(4),
            kb.cells.basic.GRUCell(4),
        ],
        readout="add",
        state_initializer=["learned", kb.Learned("ones")],
        return_sequences=True,
    )
    x_t, h = keras.Input((4,)), keras.Input((3,))
    new = ops.tanh(layers.Dense(3)(x_t) + h * 0.5)
    drawn = kb.RecurrentModel(x_t, new, h, new, state_initializer="learned")
    y = stack(layers.Masking()(inputs))
    return keras.Model(inputs, [layers.Bidirectional(kb.RWACell(3).get_layer())(y), drawn(y)])


def main():
    FOLDER.mkdir(exist_ok=True)
    made = model()
    rng = np.random.default_rng(1)
    made.set_weights([rng.standard_normal(w.shape) for w in made.get_weights()])
    made.save(FOLDER / f"{keras.backend.backend()}.keras")
    first, second = made.predict(X, verbose=0)
    np.savez(FOLDER / f"{keras.backend.backend()}.npz", first=first, second=second)


if __name__ == "__main__":
    main()
