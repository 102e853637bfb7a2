"""The attention decoder by hand, with Keras's ops: what depends on no step is computed before the loop, as ours is."""

from typing import Any

import keras
from keras import ops

from benchmarks.problems import Problem
from keras_bridge.loops import scan


def before(encoded: Any, weights: list[Any]) -> list[Any]:
    """Return what every step reads: keys with their bias, the encoded sequence, and which of its places count."""
    keys = ops.matmul(encoded, weights[0]) + weights[2]
    return [keys, encoded, ops.ones(encoded.shape[:2], "bool")]


def step(constants: list[Any], h: Any, weights: list[Any]) -> Any:
    """Return the next state, which is the output too. weights: those of the cell, in its order."""
    keys, encoded, mask = constants
    _, asking, _, vector, kernel, recurrent_kernel, bias = weights
    hidden = ops.tanh(keys + ops.expand_dims(ops.matmul(h, asking), 1))
    scores = ops.where(mask, ops.matmul(hidden, vector), -1e30)
    attention = ops.where(mask, ops.softmax(scores, -1), 0.0)
    context = ops.einsum("bt,btf->bf", attention, encoded)
    z_x, r_x, h_x = ops.split(ops.matmul(context, kernel) + bias[0], 3, -1)
    z_h, r_h, h_h = ops.split(ops.matmul(h, recurrent_kernel) + bias[1], 3, -1)
    z = ops.sigmoid(z_x + z_h)
    return z * h + (1 - z) * ops.tanh(h_x + ops.sigmoid(r_x + r_h) * h_h)


class Decoder(keras.layers.Layer):
    """Runs the step as often as the encoded sequence is long: (batch, time, features) -> (batch, time, units)."""

    def __init__(self, problem: Problem):
        super().__init__()
        self.units = problem.case.units
        for value in problem.weights:
            self.add_weight(shape=value.shape)

    def call(self, encoded: Any) -> Any:
        weights = [variable.value for variable in self.weights]
        constants, h = before(encoded, weights), ops.zeros((encoded.shape[0], self.units))

        def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
            new = step(constants, carry[0], weights)
            return [new], [new]

        _, (stacked,) = scan(body, [h], [], encoded.shape[1], [h])
        return ops.transpose(stacked, (1, 0, 2))
