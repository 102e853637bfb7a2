"""The pieces that random steps are put together from: each takes a drawing and adds a tensor of a few ops to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rsref import activations, ops
from rsref.tensor import Parameter, Tensor

Piece = Callable[["Drawing"], None]
PIECES: list[Piece] = []
MIXING: list[Piece] = []
"""Pieces after which what one sample computes depends on the others, or on its number."""


class Drawing:
    """A step in the making: float tensors to go on from, integers, bools, and the parameters made so far."""

    def __init__(self, rng: np.random.Generator, leaves: list[Tensor]):
        self.rng = rng
        self.open = [t for t in leaves if None in t.shape[1:]]
        self.integers = [t for t in leaves if t.dtype == "int"]
        self.bools = [t for t in leaves if t.dtype == "bool"]
        self.pool = [t for t in leaves if t.dtype == "float" and t not in self.open]
        self.pool += [ops.one_hot(t, 3) for t in self.integers] + [ops.cast(t, "float") for t in self.bools]
        self.pool += [ops.sum(t, 1) for t in self.open]
        self.parameters: list[Parameter] = []

    def choose(self, *values: Any) -> Any:
        """Return one of the values, all equally likely: hypothesis's own choices leave rare ones out for long."""
        return values[self.rng.integers(len(values))]

    def any(self) -> Tensor:
        """Return one of the tensors drawn so far, of shape (batch, ...); the later ones come more often."""
        recent = self.pool[-4:]
        tensor: Tensor = self.choose(*recent, *self.pool)
        return tensor

    def matrix(self) -> Tensor:
        """Return a tensor of shape (batch, n)."""
        x = self.any()
        return x if x.ndim == 2 else ops.reshape(x, (-1, size(x)))

    def ranked(self) -> Tensor:
        """Return a tensor of shape (batch, m, n)."""
        x = self.any()
        return x if x.ndim == 3 else ops.reshape(x, (-1, 1, size(x)))

    def parameter(self, *shape: int) -> Tensor:
        """Return a parameter of a shape: an earlier one (shared) or a new one."""
        same = [p for p in self.parameters if p.shape == shape]
        if same and self.choose(True, False):
            return same[0].tensor
        width = shape[0] if shape else 1
        parameter = Parameter(f"w{len(self.parameters)}", self.rng.normal(0, 1 / math.sqrt(width or 1), shape))
        self.parameters.append(parameter)
        return parameter.tensor

    def fitted(self, x: Tensor, shape: tuple[int | None, ...]) -> Tensor:
        """Return a tensor of shape (batch, *shape), made from x by a dense layer where it has another shape."""
        if x.shape[1:] == shape:
            return x
        width = math.prod(n or 1 for n in shape)
        x = ops.reshape(x, (-1, size(x)))
        return ops.reshape(ops.tanh(x @ self.parameter(size(x), width)), (-1, *shape))

    def add(self, x: Tensor) -> None:
        self.pool.append(x)


def size(x: Tensor) -> int:
    return math.prod(n or 1 for n in x.shape[1:])


def piece(function: Piece) -> Piece:
    PIECES.append(function)
    return function


def bounded(x: Any) -> Any:
    return ops.tanh(x)


SMOOTH: tuple[Callable[[Any], Any], ...] = (
    lambda x: ops.exp(bounded(x)),
    lambda x: ops.expm1(bounded(x)),
    lambda x: ops.log(1 + x * x),
    lambda x: ops.log1p(ops.square(x)),
    lambda x: ops.sqrt(1 + x * x),
    lambda x: ops.rsqrt(1 + x * x),
    lambda x: ops.reciprocal(1 + x * x),
    lambda x: (1 + x * x) ** 0.3,
    lambda x: bounded(x) ** 3,
    lambda x: 1.3 ** bounded(x),
    lambda x: x / ops.sqrt(2 + x * x),
    ops.sin,
    ops.cos,
    lambda x: ops.tan(bounded(x)),
    ops.arctan,
    lambda x: ops.sinh(bounded(x)),
    lambda x: ops.cosh(bounded(x)),
    ops.erf,
    ops.erfc,
    ops.sigmoid,
    ops.softplus,
    ops.relu,
    ops.negative,
    ops.absolute,
    lambda x: ops.clip(x, -0.6, 0.7),
    lambda x: x * ops.sign(x + 0.3),
    lambda x: x + ops.stop_gradient(ops.sin(x)),
    lambda x: 0.1 * ops.floor(3 * x) + x,
    lambda x: 0.1 * ops.ceil(x) - 0.1 * ops.round(2 * x) + bounded(x),
    activations.elu,
    activations.gelu,
    activations.mish,
    activations.leaky_relu,
    activations.hard_sigmoid,
)


@piece
def one_operand(d: Drawing) -> None:
    first, second = d.choose(*SMOOTH), d.choose(*SMOOTH)
    d.add(first(second(d.any())))


@piece
def two_operands(d: Drawing) -> None:
    x = d.any()
    other = d.fitted(d.any(), d.choose(x.shape[1:], tuple(1 for _ in x.shape[1:])))
    function = d.choose(
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: bounded(a) * b,
        lambda a, b: a / (1 + b * b),
        lambda a, b: (0.5 + a * a) ** bounded(b),
        lambda a, b: ops.arctan2(a, b - 4.0),
        ops.maximum,
        ops.minimum,
    )
    d.add(bounded(function(x, other)))


@piece
def parameter_operand(d: Drawing) -> None:
    x = d.any()
    last = x.shape[-1] if x.ndim > 1 else None
    d.add(bounded(x * d.parameter(last) + d.parameter(last) if last else x * d.parameter() + d.parameter(1)))


@piece
def select(d: Drawing) -> None:
    x = d.any()
    y = d.fitted(d.any(), x.shape[1:])
    compare = d.choose(
        lambda a, b: a > b,
        lambda a, b: a <= b,
        lambda a, b: ops.logical_and(a < 0.4, b >= -0.4),
        lambda a, b: ops.logical_xor(a < 0, ops.not_equal(b, 0.0)),
        lambda a, b: ~((a > 0) | (b > 0)),
    )
    condition = compare(x, y)
    if d.bools and x.shape[1:] == (3,) and d.choose(True, False):
        condition = d.bools[0]
    d.add(ops.where(condition, x, y))


@piece
def dense(d: Drawing) -> None:
    x = d.any()
    x = x if x.ndim > 1 else d.matrix()
    width = d.choose(2, 3, 5)
    d.add(bounded(x @ d.parameter(x.shape[-1] or 1, width)))


@piece
def products(d: Drawing) -> None:
    x, y = d.ranked(), d.ranked()
    y = d.fitted(y, x.shape[1:])
    function = d.choose(
        lambda: ops.einsum("bij,bkj->bik", x, y),
        lambda: ops.einsum("bij,bij->bi", x, y),
        lambda: ops.einsum("...i,...i", x, y),
        lambda: ops.einsum("bij->bj", x),
        lambda: x @ ops.swapaxes(y, 1, 2),
        lambda: ops.einsum(
            "bij,jk,bik->bi", x, d.parameter(x.shape[2] or 1, 2), ops.softplus(y[:, :, :1] + np.ones(2))
        ),
        lambda: ops.tensordot(x, d.parameter(x.shape[1] or 1, 2), ((1,), (0,))),
        lambda: ops.dot(x, d.parameter(x.shape[2] or 1)),
    )
    d.add(bounded(function()))


@piece
def reduce(d: Drawing) -> None:
    x = d.ranked()
    axis = d.choose(1, 2, -1, (1, 2))
    function = d.choose(ops.sum, ops.mean, ops.max, ops.min, ops.logsumexp, ops.var)
    d.add(bounded(function(x, axis, d.choose(True, False))))


@piece
def normalize(d: Drawing) -> None:
    x = d.ranked()
    axis, width = d.choose(1, 2), x.shape[2] or 1
    d.add(
        d.choose(
            lambda: ops.softmax(x, axis),
            lambda: 0.2 * ops.log_softmax(x, axis),
            lambda: ops.softmax(x, (1, 2)),
            lambda: ops.sparsemax(x, axis),
            lambda: ops.layer_normalization(x, d.parameter(width), d.parameter(width), epsilon=0.1),
            lambda: ops.rms_normalization(x, d.parameter(width), epsilon=0.1),
            lambda: bounded(ops.cumsum(x, axis)),
            lambda: bounded(x / ops.std(x + np.arange(width), (1, 2), keepdims=True)) if width > 1 else bounded(x),
        )()
    )


@piece
def slices(d: Drawing) -> None:
    x = d.matrix()
    first, second = x[:, :1], x[:, -1]
    d.add(
        d.choose(
            lambda: x[:, ::-1],
            lambda: first,
            lambda: second,
            lambda: x[..., None, ::2],
            lambda: ops.flip(x, 1),
            lambda: ops.split(ops.concatenate([x, ops.sin(x)], 1), 2, axis=1)[1],
            lambda: ops.unstack(x, axis=1)[0],
            lambda: ops.take(x, np.array([[0, -1], [0, 0]]), 1),
        )()
    )


@piece
def gates(d: Drawing) -> None:
    """Parts side by side to which a product is added, or that are multiplied as one; they may be read on their own."""
    x, y, z = d.matrix(), d.matrix(), d.matrix()
    part = d.choose(bounded, ops.sin)(x)
    joint = ops.concatenate([part, d.choose(ops.sigmoid, lambda y: y)(y)], 1) if size(x) + size(y) < 40 else part
    d.add(part)
    d.add(
        d.choose(
            lambda: joint + z @ d.parameter(size(z), size(joint)),
            lambda: z @ d.parameter(size(z), size(joint)) + joint,
            lambda: bounded(ops.concatenate([joint, part], 1) @ d.parameter(size(joint) + size(x), size(x))) * part,
        )()
    )


@piece
def join(d: Drawing) -> None:
    x, y = d.matrix(), d.matrix()
    y_as_x = d.fitted(y, x.shape[1:])
    d.add(
        d.choose(
            lambda: ops.concatenate([x, y, x[:, :1]], 1),
            lambda: ops.stack([x, y_as_x], axis=1),
            lambda: ops.stack([x, y_as_x], axis=-1),
            lambda: ops.pad(x, ((0, 0), (1, 2)), 0.5),
            lambda: ops.repeat(x, 2, 1),
            lambda: ops.tile(x, (1, 2)),
        )()
        if size(x) + size(y) < 40
        else x
    )


@piece
def rearrange(d: Drawing) -> None:
    x = d.ranked()
    m, n = x.shape[1] or 1, x.shape[2] or 1
    d.add(
        d.choose(
            lambda: ops.transpose(x, (0, 2, 1)),
            lambda: ops.reshape(x, (-1, n, m)),
            lambda: ops.moveaxis(x, 1, -1),
            lambda: ops.squeeze(ops.expand_dims(x, (1, 3)), (1, 3)),
            lambda: ops.broadcast_to(x[:, :1], (None, 2, n)),
            lambda: ops.reshape(x, (None, m * n)),
        )()
    )


@piece
def lookup(d: Drawing) -> None:
    if not d.integers:
        return dense(d)
    i = d.choose(*d.integers)
    table = d.parameter(3, 2)
    largest = ops.argmax(d.matrix(), 1)
    d.add(
        d.choose(
            lambda: ops.embedding(i, table),
            lambda: ops.take(table, ops.expand_dims(i, 1), 0),
            lambda: ops.one_hot(i, 3) * d.fitted(d.any(), (3,)),
            lambda: ops.one_hot(largest, 4) + d.fitted(d.any(), (4,)),
            lambda: bounded(i * d.parameter(1)),
        )()
    )
    return None


@piece
def attend(d: Drawing) -> None:
    if not d.open:
        return normalize(d)
    memory = d.choose(*d.open)
    query = d.fitted(d.any(), (memory.shape[2],))
    scores = ops.softmax(ops.einsum("btd,bd->bt", memory, query), -1)
    d.add(ops.einsum("bt,btd->bd", scores, memory))
    return None


@piece
def window(d: Drawing) -> None:
    x = d.fitted(d.any(), (4, 2))
    padding = d.choose("valid", "same", "causal")
    d.add(
        d.choose(
            lambda: bounded(ops.conv(x, d.parameter(2, 2, 3), padding=padding)),
            lambda: bounded(ops.conv(x, d.parameter(2, 1, 2), strides=2, padding=padding)),
            lambda: bounded(ops.depthwise_conv(x, d.parameter(2, 2, 2), padding=padding)),
            lambda: ops.max_pool(x, 2),
            lambda: ops.average_pool(x, 3, 1, "same"),
        )()
    )


def mixing(function: Piece) -> Piece:
    MIXING.append(function)
    return function


@mixing
def of_all_samples(d: Drawing) -> None:
    x = d.any()
    mean = ops.mean(bounded(x), axis=0, keepdims=True)
    d.add(d.choose(x - mean, ops.broadcast_like(mean, x), ops.softmax(x, axis=0), ops.cumsum(bounded(x), axis=0)))


@mixing
def of_pairs(d: Drawing) -> None:
    x = bounded(d.matrix())
    d.add(x @ ops.transpose(x) @ x)


@mixing
def of_others(d: Drawing) -> None:
    x = d.any()
    rest = [(0, 0)] * (x.ndim - 1)
    d.add(
        d.choose(
            x[::-1],
            ops.concatenate([x[1:], x[:1]], axis=0),
            ops.pad(x, [(1, 0), *rest])[:-1],
            x * ops.sum(bounded(x[:2]), axis=0, keepdims=True),
        )
    )
