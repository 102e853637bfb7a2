"""The time loop on TensorFlow: one `tf.while_loop` that reads and writes tensor arrays."""

from typing import Any

import tensorflow as tf


def scan(
    step: Any, carry: list[Any], sequences: list[Any], length: Any, like: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Run `step` over the leading axis; see `keras_bridge.loops`."""
    length = tf.convert_to_tensor(length)
    inputs = [tf.TensorArray(s.dtype, length, element_shape=s.shape[1:]).unstack(s) for s in sequences]
    carry = [tf.convert_to_tensor(value) for value in carry]
    outputs = [tf.TensorArray(y.dtype, length, element_shape=y.shape) for y in like]

    def body(t: Any, values: list[Any], arrays: list[Any]) -> Any:
        values, new = step(values, [array.read(t) for array in inputs])
        return t + 1, values, [array.write(t, y) for array, y in zip(arrays, new)]

    _, final, outputs = tf.while_loop(lambda t, *_: t < length, body, (0, carry, outputs), maximum_iterations=length)
    return final, [array.stack() for array in outputs]
