"""Readout with half of the output fed back into the step, wired by hand in a drawn step.

The task needs the previous output: y_t = 0.5 y_{t-1} + x_t in every feature. The step has no state but the readout.
"""

import keras
import numpy as np
from keras import Input, layers

from keras_bridge import RecurrentModel


def main(epochs=30):
    keras.utils.set_random_seed(0)
    x_t, readout = Input((4,)), Input((4,))
    half = 0.5 * readout
    y_t = layers.Dense(4, use_bias=False)(layers.concatenate([x_t, half]))
    rnn = RecurrentModel(input=x_t, output=y_t, readout_input=readout, return_sequences=True)

    x = np.random.default_rng(0).standard_normal((128, 10, 4)).astype("float32")
    target = np.zeros_like(x)
    for t in range(10):
        target[:, t] = 0.5 * target[:, t - 1] * (t > 0) + x[:, t]
    inputs = Input((None, 4))
    model = keras.Model(inputs, rnn(inputs))
    model.compile(keras.optimizers.Adam(0.03), "mse")
    before = model.evaluate(x, target, verbose=0)
    model.fit(x, target, epochs=epochs, verbose=0)
    after = model.evaluate(x, target, verbose=0)
    print(f"mean squared error: {before:.3f} before, {after:.5f} after training")
    return before, after


if __name__ == "__main__":
    first, last = main()
    assert last < 0.05 * first
