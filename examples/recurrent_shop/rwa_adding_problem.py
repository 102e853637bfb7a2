"""The recurrent weighted average on the adding problem: the sum of the two marked numbers of a sequence.

Always answering 1 has a mean squared error of 0.167 (arXiv 1703.01253, section 3.4).
"""

import keras
import numpy as np
from keras import Input, layers

from keras_bridge import RWACell

LENGTH = 30


def batch(count, seed):
    rng = np.random.default_rng(seed)
    x = np.zeros((count, LENGTH, 2), "float32")
    x[..., 0] = rng.uniform(0, 1, (count, LENGTH))
    marks = np.stack([rng.integers(0, LENGTH // 2, count), rng.integers(LENGTH // 2, LENGTH, count)], 1)
    for row, places in enumerate(marks):
        x[row, places, 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(axis=1, keepdims=True)


def main(epochs=20):
    keras.utils.set_random_seed(0)
    inputs = Input((None, 2))
    model = keras.Model(inputs, layers.Dense(1)(RWACell(32).get_layer()(inputs)))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(*batch(1500, seed=0), epochs=epochs, batch_size=50, verbose=0)
    error = model.evaluate(*batch(500, seed=1), verbose=0)
    print(f"mean squared error on unseen sequences of {LENGTH}: {error:.4f} (0.167 by always answering 1)")
    return error


if __name__ == "__main__":
    found = main()
    assert found < 0.05, found
