"""What the steps of `operation_cases` are drawn from: (x, y), both (batch, 6), in other shapes and kinds."""

import numpy as np
from keras import layers, ops


def square(x):
    """Matrices (3, 3) whose rows want another order."""
    return ops.einsum("bi,bj->bij", x[:, :3], x[:, 3:]) + np.eye(3)[[2, 0, 1]]


def positive(x):
    """Symmetric positive definite matrices (3, 3)."""
    return ops.matmul(square(x), ops.transpose(square(x), (0, 2, 1))) + np.eye(3)


def table(x):
    """(batch, 6) as (batch, 2, 3)."""
    return ops.reshape(x, (-1, 2, 3))


def image(x):
    """(batch, 6) as (batch, 6, 6, 2): every entry another number."""
    return ops.stack([ops.einsum("bi,bj->bij", x, x), ops.expand_dims(x, 1) - 2 * ops.expand_dims(x, 2)], axis=-1)


def attention(x, y, heads, shared, **options):
    """Attention of 2 targets on 3 sources, heads of 4 numbers: the root of 4 is exact in TensorFlow's float32, too."""
    numbers = np.cos(np.arange(6 * 24 * heads)).reshape(6, -1)
    query = ops.reshape(x @ numbers[:, : 8 * heads], (-1, 2, heads, 4))
    key, value = (ops.reshape(z @ numbers[:, -12 * shared :], (-1, 3, shared, 4)) for z in (y, x * y))
    return ops.dot_product_attention(query, key, value, **options)


FIRST = np.array([True, False, False])
"""A mask that leaves the first source: where none is left PyTorch has another gradient than JAX and TensorFlow."""


def within(function):
    """The function within a layer: in a model alone Keras's Norm and Quantile cannot run on JAX."""
    return lambda x, y: layers.Lambda(function)(x)


def nothing(x):
    """The logarithm of zero, of x's shape."""
    return ops.log(0 * x)


UNSIGNED = ("uint8", "uint16", "uint32")
"""Dtypes of whole numbers without a sign; Keras computes the latter two with more bits on PyTorch."""


def whole(x, dtype):
    """Whole numbers up to 38, from 0 on if they have no sign."""
    return ops.cast(20 * (ops.absolute(x) if dtype.startswith("u") else x), dtype)


def unknown(x, y):
    """x, but not a number where y is large, and beyond all numbers where x is."""
    return ops.where(y > 1, np.nan, ops.where(x > 1, np.inf, ops.where(x < -1, -np.inf, x)))


def missing(x, y):
    """x, but not a number where y is large."""
    return ops.where(y > 0.5, np.nan, x)


def missing_folds(function):
    """The same reductions where values are missing, and which answers are: of what has none at all."""
    return [
        lambda x, y: function(missing(x, y), axis=-1),
        lambda x, y: function(ops.expand_dims(missing(x, y), -1), axis=1, keepdims=True),
        lambda x, y: function(missing(table(x), table(y)), axis=(1, 2)),
        lambda x, y: ops.isnan(function(ops.where(y > 0, np.nan, x)[:, :2], axis=1)),
    ]


def folds(function):
    """A reduction over one axis, over several, from the end, and with the axes kept."""
    return [
        lambda x, y: function(x, axis=-1),
        lambda x, y: function(table(x), axis=(1, 2)),
        lambda x, y: function(table(x), axis=1, keepdims=True) * table(y),
        lambda x, y: x * function(y),
    ]


def unary(*functions):
    return [lambda x, y, function=function: function(x) for function in functions]


def binary(function):
    """Two tensors, a constant on either side, and broadcasting both ways."""
    return [
        function,
        lambda x, y: function(x, 1.5),
        lambda x, y: function(1.5, y),
        lambda x, y: function(table(x), ops.expand_dims(y, -1)[:, :2]),
    ]
