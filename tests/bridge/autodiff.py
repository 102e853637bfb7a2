"""Values and gradients by the autodiff of whichever backend Keras runs on."""

import keras
import numpy as np

BACKEND = keras.backend.backend()

# Keras 3.15 keeps float64 throughout on TensorFlow alone: on JAX its tanh, on PyTorch its matmul compute in float32.
KERAS_KIND = "float64" if BACKEND == "tensorflow" else "float32"
KIND = {"keras": KERAS_KIND, "reference": "float64"}


def values_and_gradients(layer, x, states, mask, weigh):
    """Return a layer's answers as arrays, and the gradients of their weighted sum by x, states and trainable weights.

    weigh: answers -> scalar tensor, in Keras ops.
    """

    def answers_of(inputs):
        answer = layer(inputs[0], initial_state=inputs[1:], mask=mask)
        return list(answer) if isinstance(answer, list | tuple) else [answer]

    arrays = [x, *states]
    answers, gradients = {"jax": _jax, "tensorflow": _tensorflow, "torch": _torch}[BACKEND](
        layer, answers_of, arrays, weigh, mask
    )
    return [np.asarray(keras.ops.convert_to_numpy(v)) for v in (*answers, *gradients)]


def _jax(layer, answers_of, arrays, weigh, mask):
    import jax

    answers_of([jax.numpy.asarray(a) for a in arrays])
    fixed = [v.value for v in layer.non_trainable_variables]

    def loss(inputs, weights):
        answer, _ = layer.stateless_call(weights, fixed, inputs[0], initial_state=inputs[1:], mask=mask)
        answer = list(answer) if isinstance(answer, list | tuple) else [answer]
        return weigh(answer), answer

    weights = [v.value for v in layer.trainable_variables]
    inputs = [jax.numpy.asarray(a) for a in arrays]
    (_, answers), (d_inputs, d_weights) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(inputs, weights)
    return answers, [*d_inputs, *d_weights]


def _tensorflow(layer, answers_of, arrays, weigh, mask):
    import tensorflow as tf

    inputs = [tf.Variable(a) for a in arrays]
    with tf.GradientTape() as tape:
        answers = answers_of([tf.convert_to_tensor(v) for v in inputs])
        loss = weigh(answers)
    return answers, tape.gradient(loss, [*inputs, *[v.value for v in layer.trainable_variables]])


def _torch(layer, answers_of, arrays, weigh, mask):
    import torch

    inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    answers = answers_of(inputs)
    layer.zero_grad()
    weigh(answers).backward()
    return answers, [v.grad for v in inputs] + [v.value.grad for v in layer.trainable_variables]


def function_and_gradients(function, loss, arrays):
    """Return a function's answers as arrays, and the gradients of loss(answers) by its arguments (zeros if none)."""
    answers, gradients = {"jax": _jax_function, "tensorflow": _tensorflow_function, "torch": _torch_function}[BACKEND](
        function, loss, arrays
    )
    gradients = [np.zeros(a.shape) if g is None else g for a, g in zip(arrays, gradients)]
    return [[np.asarray(keras.ops.convert_to_numpy(v)) for v in values] for values in (answers, gradients)]


def _jax_function(function, loss, arrays):
    import jax

    def run(*inputs):
        answers = function(*inputs)
        return jax.numpy.asarray(loss(answers), float), answers

    (_, answers), gradients = jax.value_and_grad(run, argnums=tuple(range(len(arrays))), has_aux=True)(
        *map(jax.numpy.asarray, arrays)
    )
    return answers, gradients


def _tensorflow_function(function, loss, arrays):
    import tensorflow as tf

    inputs = [tf.Variable(a) for a in arrays]
    with tf.GradientTape() as tape:
        answers = function(*(tf.convert_to_tensor(v) for v in inputs))
        total = loss(answers)
    return answers, tape.gradient(total, inputs) if tf.is_tensor(total) else [None] * len(arrays)


def _torch_function(function, loss, arrays):
    import torch

    inputs = [torch.tensor(a, requires_grad=True) for a in arrays]
    answers = function(*inputs)
    total = loss(answers)
    if torch.is_tensor(total) and total.requires_grad:
        total.backward()
    return answers, [v.grad for v in inputs]
