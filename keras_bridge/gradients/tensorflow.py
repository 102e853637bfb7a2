"""The custom-gradient call on TensorFlow: `custom_gradient` around `numpy_function`; works in eager and in graphs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_bridge.gradients.words import FIRST_ONLY

Arrays = list[np.ndarray]
Forward = Callable[[Arrays, bool], tuple[Arrays, int]]
Backward = Callable[[Arrays, Arrays, int], Arrays]


def call(forward: Forward, backward: Backward, tensors: list[Any], specs: Any, training: bool) -> list[Any]:
    """Return forward(tensors), with backward as its gradient; see `keras_bridge.gradients`."""

    @tf.custom_gradient
    def run(*values: Any) -> Any:
        def ahead(*arrays: Any) -> Arrays:
            answers, number = forward(list(arrays), training)
            return [*answers, np.array(number, np.int32)]

        *answers, ticket = _call(
            ahead, values, [*(dtype for _, dtype in specs), tf.int32], [*(s for s, _ in specs), ()]
        )

        def gradient(*given: Any) -> list[Any]:
            # None for answers that are no floats; IndexedSlices where rows were gathered
            gradients = [tf.zeros_like(y) if g is None else tf.convert_to_tensor(g) for g, y in zip(given, answers)]
            count = len(values)
            floating = [v.dtype.is_floating for v in values]

            def host(number: Any, *arrays: Any) -> Arrays:
                found = backward(list(arrays[:count]), list(arrays[count:]), int(number))
                return [g for g, wanted in zip(found, floating) if wanted]

            wanted = [v for v, f in zip(values, floating) if f]
            given_back = [v.dtype for v in wanted], [v.shape for v in wanted]
            found = iter(_once(lambda *arrays: _call(host, arrays, *given_back), (ticket, *values, *gradients)))
            return [next(found) if f else None for f in floating]

        return answers, gradient

    # converted outside: a Variable inside a custom gradient would be asked to be an argument of it
    return list(run(*(tf.convert_to_tensor(tensor) for tensor in tensors)))


def _once(compute: Any, values: Any) -> list[Any]:
    """Return what a function computes, whose own gradient is an error where it is computed, and is not just missing."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError(FIRST_ONLY)

    @tf.custom_gradient
    def run(*values: Any) -> Any:
        def gradient(*_: Any) -> list[Any]:
            like = [v for v in values if v.dtype.is_floating]
            found = iter(_call(refuse, like, [v.dtype for v in like], [v.shape for v in like]))
            return [next(found) if v.dtype.is_floating else None for v in values]

        return tuple(compute(*values)), gradient

    return tf.nest.flatten(run(*values))


def _call(function: Any, values: Any, dtypes: list[Any], shapes: list[Any]) -> list[Any]:
    answers = tf.nest.flatten(tf.numpy_function(function, values, dtypes, stateful=False))  # one answer comes bare
    for answer, shape in zip(answers, shapes):
        answer.set_shape(shape)
    return answers
