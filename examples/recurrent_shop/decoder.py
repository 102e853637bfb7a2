"""Encoder and decoder: a sequence of digits is read into states, from which a decoder writes it backwards."""

import keras
import numpy as np
from keras import Input, layers

from keras_bridge import LSTMCell, RecurrentSequential

DIGITS, LENGTH = 6, 4


def batch(count, seed):
    digits = np.random.default_rng(seed).integers(0, DIGITS, (count, LENGTH))
    return np.eye(DIGITS, dtype="float32")[digits], digits[:, ::-1].copy()


def main(epochs=40):
    keras.utils.set_random_seed(0)
    inputs = Input((LENGTH, DIGITS))
    y, h, c = LSTMCell(48).get_layer(return_state=True)(inputs)
    cells = [LSTMCell(48), layers.Dense(DIGITS, activation="softmax")]
    decoder = RecurrentSequential(cells, decode=True, output_length=LENGTH)
    model = keras.Model(inputs, decoder(y, initial_state=[h, c]))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*batch(1000, seed=0), epochs=epochs, batch_size=50, verbose=0)
    accuracy = model.evaluate(*batch(300, seed=1), verbose=0)[1]
    print(f"digits written backwards rightly: {accuracy:.3f} (chance {1 / DIGITS:.3f})")
    return accuracy


if __name__ == "__main__":
    found = main()
    assert found > 0.8, found
