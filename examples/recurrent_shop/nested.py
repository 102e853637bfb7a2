"""Nested recurrent layers: a stack is turned into a cell and put into another stack, with a readout of its own.

The task: the running sum of the first feature, and whether it is above zero.
"""

import keras
import numpy as np
from keras import Input, layers

from keras_bridge import GRUCell, LSTMCell, RecurrentSequential


def main(epochs=15):
    keras.utils.set_random_seed(0)
    inner = RecurrentSequential([GRUCell(3), layers.Dense(3)], readout="add")  # its readout is one more state
    middle = RecurrentSequential([inner.get_cell(), GRUCell(8)])
    outer = RecurrentSequential(return_sequences=True)
    outer.add(middle.get_cell())
    outer.add(LSTMCell(12))
    outer.add(layers.Dense(1, activation="sigmoid"))

    x = np.random.default_rng(0).standard_normal((400, 10, 3)).astype("float32")
    positive = (np.cumsum(x[..., :1], axis=1) > 0).astype("float32")
    inputs = Input((None, 3))
    model = keras.Model(inputs, outer(inputs))
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    model.fit(x[:300], positive[:300], epochs=epochs, verbose=0)
    accuracy = model.evaluate(x[300:], positive[300:], verbose=0)[1]
    print(f"{outer.num_states} states in three layers; accuracy on unseen sequences {accuracy:.3f}")
    return outer.num_states, accuracy


if __name__ == "__main__":
    states, found = main()
    assert states == 5  # two GRU, one readout, two of the LSTM
    assert found > 0.85, found
