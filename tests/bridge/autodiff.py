"""Values and gradients by the autodiff of whichever backend Keras runs on."""

import keras
import numpy as np

BACKEND = keras.backend.backend()
PLACE = ("jax", "tensorflow", "torch").index(BACKEND)
"""Which of the three it is: tests of which little depends on it are spread over them."""

# Keras 3.15 keeps float64 throughout on TensorFlow alone: on JAX its tanh, on PyTorch its matmul compute in float32.
KERAS_KIND = "float64" if BACKEND == "tensorflow" else "float32"
KIND = {"keras": KERAS_KIND, "reference": "float64", "fast": "float64"}


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
    # one function after the other, as in a notebook; below they are compiled whole, as in training
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


def gradients_of_calls(layer, *arrays):
    """Return the gradients of some calls' summed first answers, asked for after all calls, the first call's first."""
    if BACKEND == "jax":
        import jax

        calls = [jax.vjp(lambda x: layer(x)[0].sum(), jax.numpy.asarray(x)) for x in arrays]
        return [np.asarray(back(jax.numpy.ones_like(y))[0]) for y, back in calls]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        inputs, calls = [tf.Variable(x) for x in arrays], []
        for x in inputs:
            with tf.GradientTape() as tape:
                calls.append((tape, tf.reduce_sum(layer(tf.convert_to_tensor(x), training=True)[0])))
        return [tape.gradient(y, x).numpy() for (tape, y), x in zip(calls, inputs)]
    import torch

    inputs = [torch.tensor(x, requires_grad=True) for x in arrays]
    calls = [layer(x)[0].sum() for x in inputs]
    return [torch.autograd.grad(y, x)[0].numpy() for y, x in zip(calls, inputs)]


def function_and_gradients(function, loss, arrays):
    """Return a function's answers as arrays, and the gradients of loss(answers) by its arguments (zeros if none)."""
    answers, gradients = {"jax": _jax_function, "tensorflow": _tensorflow_function, "torch": _torch_function}[BACKEND](
        function, loss, arrays
    )
    gradients = [np.zeros(a.shape) if g is None else g for a, g in zip(arrays, gradients)]
    return [[np.asarray(keras.ops.convert_to_numpy(v)) for v in values] for values in (answers, gradients)]


def _jax_function(function, loss, arrays):
    import jax

    if not arrays:  # of which JAX takes no gradient
        return function(), []

    def run(*inputs):
        answers = function(*inputs)
        return jax.numpy.asarray(loss(answers), float), answers

    differentiated = jax.value_and_grad(run, argnums=tuple(range(len(arrays))), has_aux=True)
    (_, answers), gradients = jax.jit(differentiated)(*map(jax.numpy.asarray, arrays))
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


def gradients_of_layer(layer, leaves, inputs, options, weights, weigh):
    """Return a layer's answers as arrays, and the gradients of weigh(answers) by its leaves and weights.

    leaves: arrays, the first `inputs` of them the layer's input or inputs, the others initial states.
    options: further arguments of the call. weights: the variables whose gradients are wanted.
    """

    def call(values):
        given = values[:inputs]
        states = {"initial_state": list(values[inputs:])} if len(values) > inputs else {}
        answer = layer(given[0] if inputs == 1 else list(given), **states, **options)
        return list(answer) if isinstance(answer, list | tuple) else [answer]

    if BACKEND == "jax":
        answers, gradients = _jax_layer(layer, call, leaves, weights, weigh)
    elif BACKEND == "tensorflow":
        answers, gradients = _tensorflow_layer(call, leaves, weights, weigh)
    else:
        answers, gradients = _torch_layer(call, leaves, weights, weigh)
    wanted = [*leaves, *(np.asarray(keras.ops.convert_to_numpy(w.value)) for w in weights)]
    filled = [np.zeros(a.shape) if g is None else g for a, g in zip(wanted, gradients, strict=True)]
    return [[np.asarray(keras.ops.convert_to_numpy(v)) for v in values] for values in (answers, filled)]


def _jax_layer(layer, call, leaves, weights, weigh):
    import jax

    others = [v for v in layer.variables if not any(v is w for w in weights)]

    def loss(values, weight_values):
        mapping = [*zip(weights, weight_values), *((v, v.value) for v in others)]
        with keras.StatelessScope(state_mapping=mapping):
            answers = call(values)
        return weigh(answers), answers

    arrays = [jax.numpy.asarray(a) for a in leaves]
    (_, answers), (d_leaves, d_weights) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
        arrays, [w.value for w in weights]
    )
    return answers, [*d_leaves, *d_weights]


def _tensorflow_layer(call, leaves, weights, weigh):
    import tensorflow as tf

    inputs = [tf.Variable(a) for a in leaves]
    with tf.GradientTape() as tape:
        answers = call([tf.convert_to_tensor(v) for v in inputs])
        loss = weigh(answers)
    return answers, tape.gradient(loss, [*inputs, *[w.value for w in weights]])


def _torch_layer(call, leaves, weights, weigh):
    import torch

    inputs = [torch.tensor(a, requires_grad=True) for a in leaves]
    for weight in weights:
        weight.value.grad = None
    answers = call(inputs)
    weigh(answers).backward()
    return answers, [*(v.grad for v in inputs), *(w.value.grad for w in weights)]
