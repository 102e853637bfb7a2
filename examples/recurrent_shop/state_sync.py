"""Synchronised states: three cells share one state; each reads what the cell before it wrote in the same step."""

import keras
import numpy as np
from keras import Input

from keras_bridge import LSTMCell, RecurrentModel, RecurrentSequential


def main():
    keras.utils.set_random_seed(0)
    cells = [LSTMCell(8) for _ in range(3)]
    rnn = RecurrentSequential(cells, state_sync=True, return_sequences=True, return_state=True)
    x = np.random.default_rng(0).standard_normal((4, 6, 8)).astype("float32")
    y, h, c = rnn(x)  # one h and one c, though there are three cells

    x_t, h_tm1, c_tm1 = Input((8,)), Input((8,)), Input((8,))
    out, h_t, c_t = x_t, h_tm1, c_tm1
    for cell in cells:  # the same by hand, with the same weights
        out, h_t, c_t = cell([out, h_t, c_t])
    by_hand = RecurrentModel(x_t, out, [h_tm1, c_tm1], [h_t, c_t], return_sequences=True)(x)
    difference = float(np.abs(keras.ops.convert_to_numpy(y) - keras.ops.convert_to_numpy(by_hand)).max())
    print(f"three cells, {rnn.num_states} states of shape {tuple(h.shape)}; by hand the same within {difference:.1e}")
    return rnn.num_states, difference, tuple(c.shape)


if __name__ == "__main__":
    states, error, _ = main()
    assert states == 2
    assert error < 1e-6
