"""A penalty on gradients needs second derivatives: engine "keras" has them, and the others say that they do not."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_bridge as kb
from tests.tolerances import assert_close

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).standard_normal((3, 4, 5)).astype("float32")


def penalty_of_gradients(layer, x):
    """Return the gradient by x of the squared gradient of what a critic says: a sum, whose gradient is a constant."""
    if BACKEND == "torch":
        import torch

        x = torch.tensor(x, requires_grad=True)
        (d,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        return torch.autograd.grad((d**2).sum(), x)[0].numpy()
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(layer(x))
            loss = tf.reduce_sum(inner.gradient(y, x) ** 2)
        return outer.gradient(loss, x).numpy()
    import jax

    def loss(x):
        return (jax.grad(lambda x: layer(x).sum())(x) ** 2).sum()

    return np.asarray(jax.grad(loss)(x))


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_penalty_is_refused_or_right(engine):
    layers = [kb.GRUCell(3).get_layer(engine=name) for name in ("keras", engine)]
    for layer in layers:
        layer(X)
    layers[1].set_weights(layers[0].get_weights())
    step = 1e-2 * np.random.default_rng(1).standard_normal(X.shape).astype("float32")
    found = penalty_of_gradients(layers[0], X)
    ahead, behind = (squared_gradient(layers[0], X + sign * step) for sign in (1, -1))
    assert abs(2 * (found * step).sum() - (ahead - behind)) < 0.05 * abs(ahead - behind)
    for layer in layers:
        assert_close(first_derivative(layer, X), first_derivative(layers[0], X), "float32")
    with pytest.raises(Exception, match=r'first derivatives only; engine="keras" has'):
        penalty_of_gradients(layers[1], X)


def first_derivative(layer, x):
    """Return the gradient of the sum; on PyTorch one that could be differentiated again, and is not."""
    if BACKEND == "torch":
        import torch

        x = torch.tensor(x, requires_grad=True)
        return torch.autograd.grad(layer(x).sum(), x, create_graph=True)[0].detach().numpy()
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer(x))
        return tape.gradient(y, x).numpy()
    import jax

    return np.asarray(jax.grad(lambda x: ops.sum(layer(x)))(x))


def squared_gradient(layer, x):
    return float((first_derivative(layer, x).astype("float64") ** 2).sum())
