"""Ops and activations against PyTorch and JAX in float64: values, and gradients by their own autodiff."""

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as tf

from rsref import Input, RecurrentModel, activations, ops
from tests.tolerances import assert_close

jax.config.update("jax_enable_x64", True)

TORCH = {
    "exp": (ops.exp, torch.exp),
    "tanh": (ops.tanh, torch.tanh),
    "sigmoid": (ops.sigmoid, torch.sigmoid),
    "softplus": (ops.softplus, tf.softplus),
    "erf": (ops.erf, torch.erf),
    "erfc": (ops.erfc, torch.erfc),
    "expm1": (ops.expm1, torch.expm1),
    "arctan": (ops.arctan, torch.arctan),
    "arctan2": (lambda x: ops.arctan2(x, ops.flip(x, 1)), lambda x: torch.arctan2(x, torch.flip(x, [1]))),
    "relu": (ops.relu, torch.relu),
    "absolute": (ops.absolute, torch.abs),
    "power": (lambda x: ops.power(x * x + 1, 1.7), lambda x: (x * x + 1) ** 1.7),
    "maximum with ties": (lambda x: ops.maximum(x, ops.relu(x)), lambda x: torch.maximum(x, torch.relu(x))),
    "clip": (lambda x: ops.clip(x, -0.5, 0.7), lambda x: torch.clamp(x, -0.5, 0.7)),
    "softmax": (lambda x: ops.softmax(x, 1), lambda x: torch.softmax(x, 1)),
    "softmax over two axes": (
        lambda x: ops.softmax(x, (1, 2)),
        lambda x: torch.softmax(x.reshape(x.shape[0], -1), 1).reshape(x.shape),
    ),
    "log_softmax": (ops.log_softmax, lambda x: torch.log_softmax(x, -1)),
    "logsumexp": (lambda x: ops.logsumexp(x, 1), lambda x: torch.logsumexp(x, 1)),
    "greatest": (lambda x: ops.max(x, 1), lambda x: torch.amax(x, 1)),
    "mean": (lambda x: ops.mean(x, (1, 2), keepdims=True), lambda x: x.mean((1, 2), keepdim=True)),
    "variance": (lambda x: ops.var(x, 1), lambda x: x.var(1, correction=0)),
    "layer norm": (lambda x: ops.standardize(x, -1, 1e-5), lambda x: tf.layer_norm(x, x.shape[-1:], eps=1e-5)),
    "rms norm": (lambda x: ops.rms_normalization(x, epsilon=1e-5), lambda x: tf.rms_norm(x, x.shape[-1:], eps=1e-5)),
    "einsum": (lambda x: ops.einsum("bij,bkj->bik", x, x), lambda x: torch.einsum("bij,bkj->bik", x, x)),
    "cumsum": (lambda x: ops.cumsum(x, 1), lambda x: torch.cumsum(x, 1)),
    "gather": (lambda x: ops.take(x, [2, 0, 2], 1), lambda x: x[:, [2, 0, 2]]),
    "flip and slice": (lambda x: ops.flip(x, 1)[:, ::2], lambda x: torch.flip(x, [1])[:, ::2]),
    "average pool": (
        lambda x: ops.average_pool(x, 2, 1),
        lambda x: tf.avg_pool1d(x.transpose(1, 2), 2, 1).transpose(1, 2),
    ),
    "max pool": (lambda x: ops.max_pool(x, 2), lambda x: tf.max_pool1d(x.transpose(1, 2), 2).transpose(1, 2)),
    "pad": (lambda x: ops.pad(x, [(0, 0), (1, 2), (0, 1)], 0.5), lambda x: tf.pad(x, (0, 1, 1, 2), value=0.5)),
    "mish": (activations.mish, tf.mish),
    "gelu": (activations.gelu, tf.gelu),
    "gelu, tanh": (lambda x: activations.gelu(x, True), lambda x: tf.gelu(x, approximate="tanh")),
    "selu": (activations.selu, tf.selu),
    "elu": (activations.elu, tf.elu),
    "celu": (lambda x: activations.celu(x, 0.5), lambda x: tf.celu(x, 0.5)),
    "silu": (activations.silu, tf.silu),
    "softsign": (activations.softsign, tf.softsign),
    "log_sigmoid": (activations.log_sigmoid, tf.logsigmoid),
    "hard_silu": (activations.hard_silu, tf.hardswish),
    "hard_shrink": (activations.hard_shrink, tf.hardshrink),
    "soft_shrink": (activations.soft_shrink, tf.softshrink),
    "tanh_shrink": (activations.tanh_shrink, tf.tanhshrink),
    "glu": (lambda x: activations.glu(x, 1), lambda x: tf.glu(x, 1)),
    "leaky_relu": (activations.leaky_relu, lambda x: tf.leaky_relu(x, 0.2)),
}
JAX = {
    "logistic": (ops.sigmoid, jax.nn.sigmoid),
    "squareplus": (activations.squareplus, jax.nn.squareplus),
    "sparse_plus": (activations.sparse_plus, jax.nn.sparse_plus),
    "sparse_sigmoid": (activations.sparse_sigmoid, jax.nn.sparse_sigmoid),
    "hard_tanh": (activations.hard_tanh, jax.nn.hard_tanh),
    "relu6": (activations.relu6, jax.nn.relu6),
    "hard_sigmoid": (activations.hard_sigmoid, jax.nn.hard_sigmoid),
    "one hot and argmax": (
        lambda x: ops.one_hot(ops.argmax(x, 1), 4) * ops.expand_dims(ops.sum(x, 1), -1),
        lambda x: jax.nn.one_hot(x.argmax(1), 4, dtype=x.dtype) * x.sum(1)[..., None],
    ),
}


def sample():
    x = np.random.default_rng(0).standard_normal((3, 4, 6))
    return np.where(np.abs(x) < 0.02, 0.3, x)


def our_results(function):
    """Draw a function as a step without states and return its values and the gradient of their weighed sum."""
    x = Input((4, 6))
    layer = RecurrentModel(x, function(x), return_sequences=True)
    y, tape = layer.forward(sample()[:, None])
    return y[:, 0], layer.backward(tape, np.cos(y)).x[:, 0]


@pytest.mark.parametrize("name", TORCH)
def test_torch_agrees(name):
    ours, theirs = TORCH[name]
    x = torch.tensor(sample(), requires_grad=True)
    y = theirs(x)
    (y * torch.cos(y.detach())).sum().backward()
    for one, other in zip(our_results(ours), (y.detach().numpy(), x.grad.numpy()), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("name", JAX)
def test_jax_agrees(name):
    ours, theirs = JAX[name]
    y, pull_back = jax.vjp(theirs, jax.numpy.asarray(sample()))
    (dx,) = pull_back(jax.numpy.cos(y))
    for one, other in zip(our_results(ours), (y, dx), strict=True):
        assert_close(one, np.asarray(other))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [1, 2])
def test_convolution(stride, dilation, groups, axes):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, *(7,) * axes, 4)), rng.standard_normal((*(3, 2)[:axes], 4 // groups, 6))
    theirs = (tf.conv1d, tf.conv2d)[axes - 1]
    last_first = (0, axes + 1, *range(1, axes + 1))
    wide, weights = torch.tensor(x.transpose(last_first), requires_grad=True), torch.tensor(kernel, requires_grad=True)
    y = theirs(wide, weights.permute(axes + 1, axes, *range(axes)), stride=stride, dilation=dilation, groups=groups)
    y.square().sum().backward()
    image, first_last = Input(x.shape[1:]), (0, *range(2, axes + 2), 1)
    layer = RecurrentModel(image, ops.conv(image, kernel, stride, "valid", dilation), return_sequences=True)
    found, tape = layer.forward(x[:, None])
    assert_close(found[:, 0], y.detach().numpy().transpose(first_last))
    dx = layer.backward(tape, 2 * found).x[:, 0]
    assert_close(dx, wide.grad.numpy().transpose(first_last))


def test_the_judge_sees_another_function():
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(our_results(activations.silu)[1], our_results(activations.mish)[1])
