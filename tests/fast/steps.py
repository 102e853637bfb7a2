"""Steps that together use every op of rsref, forward or backward."""

import numpy as np

from rsref import initializers, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Input, Parameter


def weights(*shape):
    return Parameter(f"w{shape}", 10 * initializers.random_normal(shape)).tensor


def bounded(x):
    return ops.tanh(x)


POINTWISE = {
    "arithmetic": lambda x, m, i, b: [x + m[:, 0], x - 2, bounded(x) * x, x / (2 + x * x), -x, ops.square(x)],
    "powers": lambda x, m, i, b: [
        (1 + x * x) ** bounded(x), bounded(x) ** 3, ops.sqrt(1 + x * x), ops.rsqrt(1 + x * x), ops.reciprocal(2 + x * x)
    ],
    "extremes": lambda x, m, i, b: [
        ops.maximum(x, m[:, 1]), ops.minimum(x, 0.2), ops.absolute(x), ops.clip(x, -0.5, 0.5), ops.relu(x),
        ops.sign(x), ops.clip(x, -ops.square(x), 0.7),
    ],
    "exponentials": lambda x, m, i, b: [
        ops.exp(x), ops.expm1(x), ops.log(1 + x * x), ops.log1p(x * x), ops.sigmoid(x), ops.softplus(x), ops.tanh(x)
    ],
    "trigonometry": lambda x, m, i, b: [
        ops.sin(x), ops.cos(x), ops.tan(bounded(x)), ops.arctan(x), ops.sinh(x), ops.cosh(x), ops.erf(x),
        ops.erfc(4 * x), ops.arctan2(x, m[:, 0] - 0.1),
    ],
    "steps": lambda x, m, i, b: [
        ops.floor(3 * x), ops.ceil(3 * x), ops.round(3 * x), ops.floor_divide(x, 0.3), ops.stop_gradient(x) * x,
        ops.floor_divide(ops.cast(5 * x, "int"), 2), ops.cast(x, "int") + i[:, None],
        ops.remainder(x, 0.3), ops.remainder(ops.cast(5 * x, "int"), 2) + ops.remainder(1 + 0 * i[:, None], 3),
    ],
    "logic": lambda x, m, i, b: [
        ops.where(ops.less(x, m[:, 0]), x, 2 * x), ops.where(ops.less_equal(x, 0.1), x, m[:, 1]), x > 0.1, x >= 0.1,
        ops.equal(i, 1), ops.not_equal(i, 1), ops.logical_and(b, x > 0), ops.logical_or(b, x > 0),
        ops.logical_xor(b, x > 0), ops.logical_not(b), ops.isnan(x), ops.isfinite(x),
    ],
}  # fmt: skip

STRUCTURE = {
    "movement": lambda x, m, i, b: [
        ops.reshape(ops.transpose(m, (0, 2, 1)), (-1, 6)), ops.expand_dims(x, 1), ops.squeeze(x[:, :1], 1),
        ops.broadcast_to(x[:, None], (None, 2, 3)), ops.concatenate([x, m[:, 0], x[:, :1]], -1),
        ops.pad(x, ((0, 0), (1, 2)), 0.5), x[:, ::-1], ops.broadcast_like(x[:, :1], x),
    ],
    "reductions": lambda x, m, i, b: [
        ops.sum(m, 1), ops.mean(m, (1, 2)), ops.max(m, 2), ops.min(m, 1, keepdims=True), ops.logsumexp(m, 2),
        ops.cumsum(m, 1), ops.argmax(m, 2), ops.argmin(m, 1), ops.var(m, 2), ops.sum(b, 1),
        ops.max(b, 1), ops.min(b, 1, keepdims=True), 2 * ops.cast(b, "int")[:, 0] - ops.max(b, 1),
    ],
    "normalisation": lambda x, m, i, b: [
        ops.softmax(m, 2), ops.log_softmax(m, 1), ops.sparsemax(m, 2), ops.softmax(m, (1, 2)),
        ops.layer_normalization(m, weights(3), weights(3), epsilon=1e-3), ops.rms_normalization(m, weights(3)),
    ],
    "places": lambda x, m, i, b: [
        ops.take(m, np.array([[1, 0], [-1, 1]]), 1), ops.embedding(i, weights(3, 2)), ops.one_hot(i, 4),
        ops.take(weights(3, 2), ops.argmax(m, 2), 0),
    ],
    "products": lambda x, m, i, b: [
        x @ weights(3, 5), m @ weights(3, 4), m @ ops.swapaxes(m, 1, 2), ops.einsum("bij,bj->bi", m, x),
        ops.einsum("bij,jk,bik->b", m, weights(3, 3), m), ops.einsum("bij->bj", m),
        ops.tensordot(m, weights(2, 3), ((1,), (0,))),
    ],
    "windows": lambda x, m, i, b: [
        ops.conv(ops.swapaxes(m, 1, 2), weights(2, 2, 3)), ops.max_pool(m, 2),
        ops.average_pool(ops.swapaxes(m, 1, 2), 2, 1), ops.depthwise_conv(ops.swapaxes(m, 1, 2), weights(2, 2, 2)),
    ],
    "across samples": lambda x, m, i, b: [
        x - ops.mean(x, 0, keepdims=True), ops.softmax(x, 0), ops.matmul(ops.matmul(x, ops.transpose(x)), x),
    ],
}  # fmt: skip

STEPS = {**POINTWISE, **STRUCTURE}


def recurrence(name):
    """Return a recurrence whose step uses a group of ops on the input, and a state that all float results feed.

    Its weights are the same each time.
    """
    x, m, i, b = Input((3,)), Input((2, 3)), Input((), dtype="int"), Input((3,), dtype="bool")
    h = Input((3,))
    with initializers.seeded(3):
        results = STEPS[name](ops.tanh(x + h), m, i, b)
    new = h
    for result in results:
        if result.dtype == "float":
            flat = ops.reshape(result, (-1, int(np.prod([n or 1 for n in result.shape[1:]]))))
            new = new + 0.1 * ops.tanh(ops.sum(flat, 1, keepdims=True))
    graph = StepGraph(sequences=[x, m, i, b], states=[h], outputs=[*results, new], new_states=[new])
    return Recurrence(graph)
