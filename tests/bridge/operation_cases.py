"""For every operation that the tracer knows, steps that use it with each of its attributes: (x, y), both (batch, 6)."""

import keras
import numpy as np
from keras import layers, ops


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
    """The function within a layer: in a model alone Keras's Norm cannot run on JAX."""
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


CASES = {
    # arithmetic
    "Add": [
        *binary(ops.add),
        lambda x, y: ops.add(x > 0, y > 0),
        lambda x, y: whole(x, "int8") + 110,
        lambda x, y: whole(x, "uint8") + 240,
    ],
    "Subtract": [*binary(ops.subtract), *(lambda x, y, d=d: whole(x, d) - 20 for d in UNSIGNED)],
    "Multiply": [
        *binary(ops.multiply),
        lambda x, y: ops.multiply(x > 0, y > 0),
        lambda x, y: whole(x, "int8") * whole(y, "int8"),
        lambda x, y: whole(x, "int16") * 9999,
        lambda x, y: whole(x, "int32") * 1_000_000_007,
    ],
    "Divide": binary(ops.divide),
    "TrueDivide": binary(ops.true_divide),
    "DivideNoNan": [ops.divide_no_nan, lambda x, y: ops.divide_no_nan(x, ops.relu(y))],
    "FloorDivide": binary(
        lambda a, b: ops.stop_gradient(ops.floor_divide(a, b))
    ),  # PyTorch has no gradient, not even 0
    "Mod": [ops.mod, lambda x, y: ops.mod(x, 0.7), lambda x, y: ops.mod(ops.cast(9 * x, "int32"), 4)],
    "Power": [*binary(ops.power), lambda x, y: ops.cast(5 * x, "int32") ** 3],
    "Negative": unary(ops.negative),
    "Absolute": unary(ops.absolute),
    "Fabs": unary(ops.fabs),
    "Sign": unary(ops.sign),
    "Square": [*unary(ops.square), lambda x, y: ops.square(whole(x, "int8"))],
    "Sqrt": unary(ops.sqrt),
    "Rsqrt": unary(ops.rsqrt),
    "Reciprocal": unary(ops.reciprocal),
    "Maximum": binary(ops.maximum),
    "Minimum": binary(ops.minimum),
    "Clip": [lambda x, y: ops.clip(x, -0.5, 1.0)],
    "Floor": unary(ops.floor),
    "Ceil": unary(ops.ceil),
    "Round": unary(ops.round),
    "Trunc": [lambda x, y: ops.trunc(2 * x), lambda x, y: ops.trunc(ops.cast(5 * x, "int32"))],
    # exponentials, trigonometric and hyperbolic functions
    "Exp": unary(ops.exp),
    "Exp2": unary(ops.exp2),
    "Expm1": unary(ops.expm1),
    "Log": unary(ops.log),
    "Log1p": unary(ops.log1p),
    "Log2": unary(ops.log2),
    "Log10": unary(ops.log10),
    "Logaddexp": [
        *binary(ops.logaddexp),
        lambda x, y: ops.exp(ops.stop_gradient(ops.logaddexp(nothing(x), nothing(x)))),
    ],
    "Sin": unary(ops.sin),
    "Cos": unary(ops.cos),
    "Tan": unary(ops.tan),
    "Arcsin": [lambda x, y: ops.arcsin(0.5 * x)],
    "Arccos": [lambda x, y: ops.arccos(0.5 * x)],
    "Arctan": unary(ops.arctan),
    "Sinh": unary(ops.sinh),
    "Cosh": unary(ops.cosh),
    "Tanh": unary(ops.tanh),
    "Arcsinh": unary(ops.arcsinh, lambda x: ops.arcsinh(0 * x), lambda x: ops.arcsinh(1e4 * x)),
    "Arccosh": [lambda x, y: ops.arccosh(1.01 + ops.abs(x))],
    "Arctanh": [lambda x, y: ops.arctanh(0.5 * x)],
    "Deg2rad": unary(ops.deg2rad),
    "Rad2deg": unary(ops.rad2deg),
    "Erf": unary(ops.erf),
    "Erfc": [*unary(ops.erfc), lambda x, y: ops.log(ops.erfc(4 * x))],
    # activations
    "Relu": unary(ops.relu),
    "ReLU": [
        lambda x, y: keras.activations.relu(x),
        lambda x, y: keras.activations.relu(3 * x, max_value=2.0),
        lambda x, y: keras.activations.relu(x, negative_slope=0.3, threshold=0.4, max_value=1.5),
        lambda x, y: keras.activations.relu(x, threshold=0.4),
    ],
    "Relu6": [lambda x, y: ops.relu6(5 * x)],
    "Sigmoid": unary(ops.sigmoid),
    "SparseSigmoid": unary(ops.sparse_sigmoid),
    "Softplus": unary(ops.softplus),
    "Softsign": unary(ops.softsign),
    "SoftShrink": unary(ops.soft_shrink, lambda x: ops.soft_shrink(x, 0.8)),
    "SparsePlus": unary(ops.sparse_plus),
    "Silu": unary(ops.silu),
    "Squareplus": unary(ops.squareplus, lambda x: ops.squareplus(x, 2)),
    "LogSigmoid": unary(ops.log_sigmoid),
    "LeakyRelu": unary(ops.leaky_relu, lambda x: ops.leaky_relu(x, 0.4)),
    "HardSigmoid": [lambda x, y: ops.hard_sigmoid(3 * x)],
    "HardSilu": [lambda x, y: ops.hard_silu(3 * x)],
    "Elu": unary(ops.elu, lambda x: ops.elu(x, 0.4)),
    "Selu": unary(ops.selu),
    "Celu": unary(ops.celu, lambda x: ops.celu(x, 0.4)),
    "Gelu": unary(ops.gelu, lambda x: ops.gelu(x, approximate=False)),
    "Glu": [lambda x, y: ops.glu(x), lambda x, y: ops.glu(table(x), axis=1)],
    "TanhShrink": unary(ops.tanh_shrink),
    "HardTanh": unary(ops.hard_tanh),
    "HardShrink": unary(ops.hard_shrink, lambda x: ops.hard_shrink(x, 0.8)),
    "Threshold": [lambda x, y: ops.threshold(x, 0.3, -2.0)],
    "Softmax": [lambda x, y: ops.softmax(x), lambda x, y: ops.softmax(table(x), axis=1)],
    "LogSoftmax": [lambda x, y: ops.log_softmax(x), lambda x, y: ops.log_softmax(table(x), axis=1)],
    # comparisons, logic, selection
    "Equal": [lambda x, y: ops.equal(ops.round(x), ops.round(y))],
    "NotEqual": [lambda x, y: ops.not_equal(ops.round(x), ops.round(y))],
    "Less": binary(ops.less),
    "LessEqual": [lambda x, y: ops.less_equal(ops.round(x), ops.round(y))],
    "Greater": binary(ops.greater),
    "GreaterEqual": [lambda x, y: ops.greater_equal(ops.round(x), ops.round(y))],
    "LogicalAnd": [lambda x, y: ops.logical_and(x > 0, y > 0)],
    "LogicalOr": [lambda x, y: ops.logical_or(x > 0, y > 0)],
    "LogicalXor": [lambda x, y: ops.logical_xor(x > 0, y > 0)],
    "LogicalNot": [lambda x, y: ops.logical_not(x > 0)],
    "Isnan": [lambda x, y: ops.isnan(ops.log(x))],
    "Isfinite": [lambda x, y: ops.isfinite(ops.log(x))],
    "Isinf": [lambda x, y: ops.isinf(ops.where(x > 0, x, nothing(x))), lambda x, y: ops.isinf(-nothing(x))],
    "Where": [lambda x, y: ops.where(x > y, x, 2 * y), lambda x, y: ops.where(x > 0, x, 0.5)],
    "Select": [
        lambda x, y: ops.select([x > 1, y > 0], [x, x * y], default=y),
        lambda x, y: ops.select([x > 1, x > 0, y > 0], [x, 2 * y, x * y]),
    ],
    "NanToNum": [
        lambda x, y: ops.log(1 + ops.absolute(ops.nan_to_num(unknown(x, y)))) * y,
        lambda x, y: ops.nan_to_num(unknown(x, y), nan=0.5, posinf=2.0, neginf=-3.0) * y,
        lambda x, y: ops.nan_to_num(ops.cast(3 * x, "int32")),
    ],
    "CountNonzero": [
        lambda x, y: ops.count_nonzero(ops.round(table(x)), axis=1),
        lambda x, y: x * ops.cast(ops.count_nonzero(ops.relu(y)), "float64"),
        lambda x, y: ops.count_nonzero(ops.relu(table(x)), axis=(1, 2)),
    ],
    "Any": [
        lambda x, y: ops.any(table(x) > 0.5, axis=1),
        lambda x, y: ops.any(x > 1.0, axis=-1, keepdims=True),
        lambda x, y: ops.any(ops.relu(x - 1.0), axis=-1),
    ],
    "All": [
        lambda x, y: ops.all(table(x) > -0.5, axis=1),
        lambda x, y: ops.all(x > -1.0, axis=-1, keepdims=True),
        lambda x, y: ops.all(ops.relu(table(x) + 1.0), axis=1),
    ],
    # reductions and norms
    "Sum": folds(ops.sum),
    "Mean": folds(ops.mean),
    "Var": folds(ops.var),
    "Std": folds(ops.std),
    "Max": [*folds(ops.max), lambda x, y: ops.max(x, axis=-1, initial=0.9), lambda x, y: ops.max(x > 0, axis=-1)],
    "Amax": folds(ops.amax),
    "Min": [*folds(ops.min), lambda x, y: ops.min(x, axis=-1, initial=-0.9), lambda x, y: ops.min(x > 0, axis=-1)],
    "Amin": folds(ops.amin),
    "Logsumexp": folds(ops.logsumexp),
    "Argmax": [
        lambda x, y: ops.argmax(x, axis=-1),
        lambda x, y: ops.argmax(table(x), axis=1, keepdims=True),
        lambda x, y: x * ops.cast(ops.argmax(x) + ops.argmax(x, keepdims=True), "float64"),
    ],
    "Argmin": [
        lambda x, y: ops.argmin(x, axis=-1),
        lambda x, y: ops.argmin(table(x), axis=1, keepdims=True),
        lambda x, y: x * ops.cast(ops.argmin(x), "float64"),
    ],
    "Cumsum": [
        lambda x, y: ops.cumsum(table(x), axis=1),
        lambda x, y: ops.reshape(ops.cumsum(x), (-1, 6)),
        lambda x, y: ops.cumsum(ops.stop_gradient(3 * x), axis=1, dtype="int32"),
    ],
    "Prod": [
        *folds(ops.prod)[:3],
        lambda x, y: ops.prod(ops.relu(x), axis=-1),
        lambda x, y: ops.prod(ops.cast(3 * x, "int32"), axis=-1),
    ],
    "Average": [
        lambda x, y: ops.average(x, axis=-1),
        lambda x, y: ops.average(table(x), axis=1, weights=ops.square(table(y))),
        lambda x, y: ops.average(table(x), axis=-1, weights=np.array([0.5, 1.0, 2.0])),
    ],
    "Norm": [
        within(lambda x: ops.norm(x, axis=-1)),
        within(lambda x: ops.norm(table(x), axis=(1, 2), keepdims=True)),
        within(lambda x: x * ops.norm(x)),
        within(lambda x: ops.norm(x, ord=2, axis=-1)),
        within(lambda x: ops.norm(x, ord=1, axis=-1, keepdims=True)),
        within(lambda x: ops.norm(table(x), ord=3, axis=1)),
        within(lambda x: ops.norm(x, ord=np.inf, axis=-1)),
        within(lambda x: ops.norm(x, ord=-np.inf, axis=-1)),
        within(lambda x: ops.norm(table(x), ord="fro", axis=(1, 2))),
        within(lambda x: ops.cast(ops.norm(ops.cast(5 * x, "int32"), ord=1, axis=-1), "float64")),
    ],
    "Normalize": [
        lambda x, y: ops.normalize(x),
        lambda x, y: ops.normalize(1e-9 * x),
        lambda x, y: ops.normalize(table(x), axis=1, order=1),
        lambda x, y: ops.normalize(table(x), axis=(1, 2), epsilon=10.0),
        lambda x, y: layers.UnitNormalization()(x),
    ],
    "Moments": [lambda x, y: ops.moments(x, axes=[1]), lambda x, y: ops.moments(table(x), axes=[1], keepdims=True)],
    "LayerNorm": [
        lambda x, y: layers.LayerNormalization()(x),
        lambda x, y: layers.LayerNormalization(epsilon=0.1)(table(x)),
        lambda x, y: layers.LayerNormalization(axis=1)(ops.reshape(x, (-1, 2, 3, 1))[:, :, :2, 0]),
        lambda x, y: layers.LayerNormalization(axis=(1, 3))(ops.reshape(x, (-1, 2, 1, 3))),
        lambda x, y: ops.layer_normalization(0.01 * x),
    ],
    "RMSNorm": [
        lambda x, y: layers.RMSNormalization()(x),
        lambda x, y: ops.rms_normalization(table(x), axis=1, epsilon=0.1),
        lambda x, y: ops.rms_normalization(1e-3 * x),
    ],
    "BatchNorm": [
        lambda x, y: layers.BatchNormalization()(x),
        lambda x, y: layers.BatchNormalization(axis=1, center=False, scale=False)(table(x)),
    ],
    # products
    "Matmul": [
        lambda x, y: layers.Dense(3)(x),
        lambda x, y: ops.matmul(table(x), ops.transpose(table(y), (0, 2, 1))),
        lambda x, y: ops.matmul(table(x), np.linspace(0.0, 1.0, 9).reshape(3, 3)),
    ],
    "Dot": [lambda x, y: ops.dot(x, np.linspace(0.0, 1.0, 12).reshape(6, 2))],
    "Tensordot": [
        lambda x, y: ops.tensordot(table(x), np.linspace(0.0, 1.0, 12).reshape(2, 3, 2), axes=2),
        lambda x, y: ops.tensordot(table(x), np.linspace(0.0, 1.0, 8).reshape(4, 2), axes=[[1], [1]]),
    ],
    "Einsum": [
        lambda x, y: ops.einsum("bi,bj->bij", x, y),
        lambda x, y: ops.einsum("bij,bkj->bik", table(x), table(y)),
        lambda x, y: ops.einsum("bij->bji", table(x)),
    ],
    "Outer": [lambda x, y: x @ ops.outer(ops.sum(y, axis=0), np.linspace(0.0, 1.0, 3))],
    "DotProductAttention": [
        lambda x, y: attention(x, y, 2, 2),
        lambda x, y: attention(x, y, 2, 2, is_causal=True),
        lambda x, y: attention(x, y, 4, 2, scale=0.25, bias=ops.reshape(x, (-1, 1, 2, 3))),
        lambda x, y: attention(x, y, 2, 2, mask=ops.expand_dims(ops.logical_or(table(x > 0.5), FIRST), 1)),
        lambda x, y: attention(
            x, y, 2, 2, mask=ops.logical_or(ops.reshape(x > 0, (-1, 1, 2, 3)), FIRST), is_causal=True
        ),
        lambda x, y: layers.MultiHeadAttention(2, 4, value_dim=3)(table(x), table(y)),
        lambda x, y: layers.MultiHeadAttention(2, 4)(table(x), table(x), use_causal_mask=True),
    ],
    "Conv": [
        lambda x, y: layers.Conv2D(3, 2, padding="same")(image(x)),
        lambda x, y: layers.Conv2D(3, (3, 2), strides=2)(image(x)),
        lambda x, y: layers.Conv1D(2, 2, dilation_rate=2)(ops.reshape(x, (-1, 6, 1))),
    ],
    "MaxPool": [
        lambda x, y: ops.max_pool(image(x), 2, 2),
        lambda x, y: ops.max_pool(image(x), (3, 2), (2, 1), padding="same"),
    ],
    "DepthwiseConv": [
        lambda x, y: layers.DepthwiseConv1D(2, depth_multiplier=3)(table(x)),
        lambda x, y: layers.DepthwiseConv2D((3, 2), strides=2, padding="same", depth_multiplier=2)(image(x)),
        lambda x, y: layers.DepthwiseConv1D(2, dilation_rate=2)(ops.reshape(x, (-1, 6, 1))),
    ],
    "SeparableConv": [
        lambda x, y: layers.SeparableConv1D(4, 2, depth_multiplier=2)(table(x)),
        lambda x, y: layers.SeparableConv2D(4, 2, padding="same")(image(x)),
    ],
    "AveragePool": [
        lambda x, y: ops.average_pool(image(x), 2, 2),
        lambda x, y: ops.average_pool(image(x), 3, 1, padding="same"),
        lambda x, y: ops.average_pool(image(x), (3, 2), (2, 1), padding="same"),
    ],
    # structure and places
    "Reshape": [lambda x, y: ops.reshape(x, (-1, 3, 2)), lambda x, y: layers.Reshape((3, 2))(x)],
    "Ravel": [lambda x, y: ops.reshape(ops.ravel(x), (-1, 6))],
    "Transpose": [lambda x, y: ops.transpose(table(x), (0, 2, 1))],
    "Swapaxes": [lambda x, y: ops.swapaxes(table(x), 1, -1)],
    "Moveaxis": [lambda x, y: ops.moveaxis(image(x), (1, -2), (-2, 1))],
    "ExpandDims": [lambda x, y: ops.expand_dims(x, 1), lambda x, y: ops.expand_dims(x, (1, -1))],
    "Squeeze": [lambda x, y: ops.squeeze(ops.reshape(x, (-1, 1, 6)), axis=1)],
    "BroadcastTo": [lambda x, y: x + ops.broadcast_to(ops.sum(y), (4, 6))],
    "Concatenate": [lambda x, y: ops.concatenate([x, y], axis=-1), lambda x, y: layers.Concatenate()([x, y, x])],
    "Hstack": [
        lambda x, y: ops.hstack([x, y]),
        lambda x, y: ops.hstack([table(x), table(y)]),
    ],
    "Append": [
        lambda x, y: ops.append(x, y, axis=-1),
        lambda x, y: x @ ops.diag(ops.append(ops.sum(y, axis=0)[..., :4], np.ones(2))),
        lambda x, y: x * ops.sum(ops.append(ops.sum(y, axis=0), np.ones((2, 2)))),
    ],
    "Stack": [lambda x, y: ops.stack([x, y], axis=1), lambda x, y: ops.stack([x, y], axis=-1)],
    "Unstack": [lambda x, y: ops.unstack(table(x), axis=1)[1], lambda x, y: ops.unstack(table(x), 3, axis=-1)],
    "Split": [lambda x, y: ops.split(x, 3, axis=-1), lambda x, y: ops.split(x, [1, 4], axis=1)[::-1]],
    "Repeat": [lambda x, y: ops.repeat(x, 2, axis=-1)],
    "Tile": [lambda x, y: ops.tile(x, (1, 2)), lambda x, y: ops.tile(table(x), 2)],
    "Pad": [lambda x, y: ops.pad(x, ((0, 0), (1, 2))), lambda x, y: ops.pad(x, ((0, 0), (1, 2)), constant_values=3.0)],
    "Flip": [lambda x, y: ops.flip(x, axis=1), lambda x, y: ops.flip(table(x), axis=(1, 2)), lambda x, y: ops.flip(x)],
    "Roll": [
        lambda x, y: ops.roll(x, 2, axis=-1),
        lambda x, y: ops.roll(x, -7, axis=1),
        lambda x, y: ops.roll(x, 6, axis=1),
        lambda x, y: ops.roll(table(x), (1, 2), axis=(1, 2)),
        lambda x, y: x @ ops.roll(ops.sum(y) * np.linspace(0.0, 1.0, 18).reshape(6, 3), 4),
    ],
    "Tril": [lambda x, y: ops.tril(table(x)), lambda x, y: ops.tril(table(x), 1), lambda x, y: ops.tril(table(x), -1)],
    "Triu": [lambda x, y: ops.triu(table(x)), lambda x, y: ops.triu(table(x), 1), lambda x, y: ops.triu(table(x), -1)],
    "Diag": [
        lambda x, y: x @ ops.diag(ops.sum(y, axis=0)),
        lambda x, y: x @ ops.diag(ops.sum(y, axis=0)[..., :4], k=2),
        lambda x, y: x @ ops.diag(ops.sum(y, axis=0)[..., :4], k=-2),
        lambda x, y: x * ops.sum(ops.diag(ops.sum(image(y), axis=0)[..., 0], k=2)),
        lambda x, y: x[:, :5] * ops.diag(ops.sum(image(y), axis=0)[..., 0], k=-1),
        lambda x, y: x[:, :4] * ops.diag(ops.sum(image(y), axis=0)[:4, :, 1]),
    ],
    "Diff": [lambda x, y: ops.diff(x), lambda x, y: ops.diff(table(x), n=2, axis=2)],
    "GetItem": [
        lambda x, y: x[:, 1],
        lambda x, y: x[:, 1:-1:2],
        lambda x, y: x[..., None, ::3],
        lambda x, y: table(x)[:, -1, :2],
    ],
    "Take": [
        lambda x, y: ops.take(x, [4, 0, 0], axis=-1),
        lambda x, y: layers.Embedding(6, 3)(ops.argmax(x, axis=-1)),
        lambda x, y: ops.take(x, ops.argmax(y, axis=-1)),
    ],
    "OneHot": [
        lambda x, y: x * ops.one_hot(ops.argmax(y, axis=-1), 6, dtype="float64"),
        lambda x, y: ops.one_hot(ops.argmax(y, axis=-1), 6, dtype="int32"),
    ],
    "MultiHot": [
        lambda x, y: x * ops.multi_hot(ops.cast(ops.abs(y) * 2, "int32"), 6, dtype="float64"),
        lambda x, y: ops.multi_hot(ops.cast(y > 0, "int32"), 3, dtype="int32"),
    ],
    "Digitize": [
        lambda x, y: ops.digitize(x, np.array([-1.0, 0.0, 0.3])),
        lambda x, y: x * ops.cast(ops.digitize(y, np.array([0.5])), "float64"),
    ],
    "ZerosLike": [lambda x, y: x + ops.zeros_like(y), lambda x, y: ops.zeros_like(x, dtype="int32")],
    "OnesLike": [lambda x, y: x * ops.ones_like(y)],
    "FullLike": [lambda x, y: x * ops.full_like(y, 3.0), lambda x, y: ops.full_like(x, 3, dtype="int32")],
    "Cast": [
        lambda x, y: x * ops.cast(y > 0, "float64"),
        lambda x, y: ops.cast(3 * x, "int32"),
        *(lambda x, y, d=d: ops.cast(whole(x, "int32") * 2001, d) for d in ("int8", "int16", *UNSIGNED)),
    ],
    "ConvertToTensor": [lambda x, y: ops.convert_to_tensor(x > 0, dtype="float64") * y],
    "StopGradient": [lambda x, y: x * ops.stop_gradient(x)],
    "Copy": unary(ops.copy),
}
# Operations whose values or derivatives exist for positive numbers only.
POSITIVE = {"Sqrt", "Rsqrt", "Log", "Log1p", "Log2", "Log10", "Power"}
# Operations that Keras computes with constants in float32, even in a float64 step.
SINGLE = {"Mod", "LeakyRelu", "Gelu"}
# Cases that a backend gets wrong: on PyTorch, Keras's average pooling counts the padding of one side, and its layer
# normalization of an inner axis normalises the last one, and count_nonzero answers transposed; TensorFlow does not add
# or multiply bools. The largest number is another where Keras computes in float32.
FAULTS = {
    "jax": {("DotProductAttention", 5), ("NanToNum", 0)},
    "torch": {
        ("AveragePool", 2),
        ("LayerNorm", 2),
        ("RMSNorm", 1),
        ("Average", 1),
        ("CountNonzero", 0),
        ("NanToNum", 0),
    },
    "tensorflow": {("Add", 4), ("Multiply", 4)},
}
