"""Where states start: by an initializer, with a batch size that is not known, or learned."""

import keras
import numpy as np
from keras import Input

from keras_bridge import RecurrentModel


def accumulator(initializer):
    """A step that adds its input to its state."""
    x_t, h_tm1 = Input((1,)), Input((1,))
    h_t = x_t + h_tm1
    rnn = RecurrentModel(x_t, h_t, h_tm1, h_t, state_initializer=initializer)
    inputs = Input((None, 1))
    return rnn, keras.Model(inputs, rnn(inputs))


def main(epochs=60):
    keras.utils.set_random_seed(0)
    _, from_ones = accumulator("ones")
    for batch in (3, 5):  # one model, several batch sizes
        assert np.allclose(from_ones.predict(np.zeros((batch, 4, 1)), verbose=0), 1)
    rnn, learned = accumulator("learned")
    x = np.random.default_rng(0).standard_normal((64, 5, 1)).astype("float32")
    learned.compile(keras.optimizers.SGD(0.1), "mse")
    learned.fit(x, x.sum(axis=1) + 2.5, epochs=epochs, verbose=0)
    start = float(rnn.get_weights()[0][0])
    print(f"the sums were off by 2.5: the learned state starts at {start:.3f}")
    return start


if __name__ == "__main__":
    assert abs(main() - 2.5) < 0.01
