"""Teacher forcing: in training the step reads the true previous output, at prediction its own; no dummy input.

The layer continues a sine wave: it is given nothing but the first value, as the initial readout.
"""

import keras
import numpy as np
from keras import Input, layers

from keras_bridge import GRUCell, RecurrentSequential

STEPS = 24


def waves(count, seed):
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, (count, 1))
    t = np.arange(STEPS + 1) * (2 * np.pi / 12)
    return np.sin(phase + t)[..., None].astype("float32")


def main(epochs=60):
    keras.utils.set_random_seed(0)
    rnn = RecurrentSequential(
        [GRUCell(24), layers.Dense(1)], readout="readout_only", teacher_force=True, return_sequences=True
    )
    nothing, first, truth = Input((STEPS, 1)), Input((1,)), Input((STEPS, 1))
    trained = keras.Model([nothing, first, truth], rnn(nothing, initial_readout=first, ground_truth=truth))
    predicting = keras.Model([nothing, first], rnn(nothing, initial_readout=first))

    wave = waves(256, seed=0)
    trained.compile(keras.optimizers.Adam(0.01), "mse")
    trained.fit([np.zeros_like(wave[:, 1:]), wave[:, 0], wave[:, 1:]], wave[:, 1:], epochs=epochs, verbose=0)

    unseen = waves(64, seed=1)
    one_step = trained([np.zeros_like(unseen[:, 1:]), unseen[:, 0], unseen[:, 1:]], training=True)
    forced = float(np.mean((keras.ops.convert_to_numpy(one_step) - unseen[:, 1:]) ** 2))
    alone = predicting.predict([np.zeros_like(unseen[:, 1:]), unseen[:, 0]], verbose=0)
    print(f"mean squared error: {forced:.4f} reading the truth, {np.mean((alone - unseen[:, 1:]) ** 2):.4f} on its own")
    return forced, alone.shape


if __name__ == "__main__":
    error, shape = main()
    assert error < 0.05, error
    assert shape == (64, STEPS, 1)
