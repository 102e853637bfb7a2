"""Functional use of two cells in one drawn step: both read the input, their outputs are mixed by a gate."""

import keras
import numpy as np
from keras import Input, layers

from keras_bridge import GRUCell, LSTMCell, RecurrentModel


def main(epochs=25):
    keras.utils.set_random_seed(0)
    x_t = Input((2,))
    h1_tm1, h2_tm1, c2_tm1 = Input((12,)), Input((12,)), Input((12,))
    first, h1_t = GRUCell(12)([x_t, h1_tm1])
    second, h2_t, c2_t = LSTMCell(12)([x_t, h2_tm1, c2_tm1])
    gate = layers.Dense(12, activation="sigmoid")(layers.concatenate([first, second]))
    y_t = gate * first + (1 - gate) * second
    rnn = RecurrentModel(x_t, y_t, [h1_tm1, h2_tm1, c2_tm1], [h1_t, h2_t, c2_t])

    x = np.random.default_rng(0).standard_normal((400, 8, 2)).astype("float32")
    target = x[:, :, 0].sum(axis=1, keepdims=True) - x[:, -1, 1:]
    inputs = Input((None, 2))
    model = keras.Model(inputs, layers.Dense(1)(rnn(inputs)))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x[:300], target[:300], epochs=epochs, verbose=0)
    error = model.evaluate(x[300:], target[300:], verbose=0)
    print(f"mean squared error {error:.3f}; of the target's mean {target[300:].var():.3f}")
    return error / float(target[300:].var())


if __name__ == "__main__":
    assert main() < 0.3
