"""For every product, and every operation that moves numbers, steps that use it; see `operation_cases`."""

import numpy as np
from keras import layers, ops

from tests.bridge.operation_inputs import FIRST, attention, image, missing, positive, square, table, within

CASES = {
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
    "Inner": [
        lambda x, y: ops.inner(x, np.linspace(0.0, 1.0, 18).reshape(3, 6)),
        lambda x, y: ops.inner(np.linspace(0.0, 1.0, 6), table(x)[:, 0] @ np.ones((3, 6))),
    ],
    "Vdot": [lambda x, y: x * ops.vdot(ops.sum(y, axis=0), ops.sum(x, axis=0))],
    "Cross": [
        lambda x, y: ops.cross(table(x), table(y), axis=-1),
        lambda x, y: ops.cross(ops.reshape(x, (-1, 3, 2)), ops.reshape(y, (-1, 3, 2)), axis=1),
        lambda x, y: ops.cross(x[:, :3], np.array([[1.0, -2.0, 0.5]]), axis=-1),
    ],
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
    "Dstack": [lambda x, y: ops.dstack([table(x), table(y)]), lambda x, y: ops.dstack([x, y])],
    "Append": [
        lambda x, y: ops.append(x, y, axis=-1),
        lambda x, y: x @ ops.diag(ops.append(ops.sum(y, axis=0)[..., :4], np.ones(2))),
        lambda x, y: x * ops.sum(ops.append(ops.sum(y, axis=0), np.ones((2, 2)))),
    ],
    "Stack": [lambda x, y: ops.stack([x, y], axis=1), lambda x, y: ops.stack([x, y], axis=-1)],
    "Unstack": [lambda x, y: ops.unstack(table(x), axis=1)[1], lambda x, y: ops.unstack(table(x), 3, axis=-1)],
    "Split": [lambda x, y: ops.split(x, 3, axis=-1), lambda x, y: ops.split(x, [1, 4], axis=1)[::-1]],
    "ArraySplit": [lambda x, y: ops.array_split(x, 4, axis=-1), lambda x, y: ops.array_split(table(x), 2, axis=2)],
    "Hsplit": [lambda x, y: ops.hsplit(x, 3), lambda x, y: ops.hsplit(x, [1, 4])],
    "Dsplit": [lambda x, y: ops.dsplit(table(x), 3)],
    "Repeat": [lambda x, y: ops.repeat(x, 2, axis=-1)],
    "Tile": [lambda x, y: ops.tile(x, (1, 2)), lambda x, y: ops.tile(table(x), 2)],
    "Pad": [lambda x, y: ops.pad(x, ((0, 0), (1, 2))), lambda x, y: ops.pad(x, ((0, 0), (1, 2)), constant_values=3.0)],
    "Flip": [lambda x, y: ops.flip(x, axis=1), lambda x, y: ops.flip(table(x), axis=(1, 2)), lambda x, y: ops.flip(x)],
    "Fliplr": [lambda x, y: ops.fliplr(x)],
    "Flipud": [lambda x, y: x * ops.flipud(y)],
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
    "Diagonal": [
        lambda x, y: ops.diagonal(image(x), axis1=1, axis2=2),
        lambda x, y: ops.diagonal(image(x), 2, 2, 1),
        lambda x, y: ops.diagonal(image(x), offset=-1, axis1=-2, axis2=-1),
        lambda x, y: ops.diagonal(table(x) > 0, axis1=1, axis2=2),
    ],
    "Trace": [
        lambda x, y: ops.trace(image(x), axis1=1, axis2=2),
        lambda x, y: ops.trace(ops.cast(3 * table(x), "int32"), 1, 1, 2),
    ],
    "Diff": [lambda x, y: ops.diff(x), lambda x, y: ops.diff(table(x), n=2, axis=2)],
    "GetItem": [
        lambda x, y: x[:, 1],
        lambda x, y: x[:, 1:-1:2],
        lambda x, y: x[..., None, ::3],
        lambda x, y: table(x)[:, -1, :2],
    ],
    "Slice": [
        lambda x, y: x[:, :3] * ops.slice(ops.sum(y, axis=0), (2,), (3,)),
        lambda x, y: ops.slice(x, (0, 2), (-1, 3)),
        lambda x, y: ops.slice(table(x), (0, 1, 0), (-1, 1, 2)),
    ],
    "SliceUpdate": [
        lambda x, y: ops.slice_update(x, (0, 2), 3 * y[:, :3]),
        lambda x, y: ops.slice_update(image(x), [0, 1, 0, 1], image(y)[:, :2, :, 1:]),
    ],
    "TakeAlongAxis": [
        lambda x, y: ops.take_along_axis(x, ops.argmax(table(y), axis=-1), axis=1),
        lambda x, y: ops.take_along_axis(table(x), ops.argmax(table(y), axis=1, keepdims=True), axis=1),
        lambda x, y: ops.nan_to_num(ops.take_along_axis(missing(x, y), np.array([[5, 0, -1]]), axis=-1)),
        lambda x, y: ops.take_along_axis(x > 0, ops.cast(y > 0, "int32"), axis=-1),
        lambda x, y: x * ops.take_along_axis(ops.sum(y, axis=0), np.array([1, 0, 2, 2, 5, 4]), axis=None),
    ],
    "TopK": [
        lambda x, y: ops.top_k(x, 3),
        lambda x, y: ops.top_k(table(x), 2)[0] * ops.cast(ops.top_k(table(y), 2)[1], "float64"),
        lambda x, y: ops.top_k(ops.where(y > 0, x, -np.inf), 5)[0] > 0,
    ],
    "Sort": [
        lambda x, y: ops.sort(x),
        lambda x, y: ops.sort(table(x), axis=1),
        lambda x, y: ops.sort(ops.cast(3 * x, "int32"), axis=-1),
        lambda x, y: x * ops.sort(ops.sum(y, axis=0), axis=None),
    ],
    "Argsort": [lambda x, y: ops.argsort(x), lambda x, y: ops.argsort(table(x), axis=1)],
    "Quantile": [
        within(lambda x: ops.quantile(x, 0.3, axis=-1)),
        within(lambda x: x[:, :2] * ops.transpose(ops.quantile(x, [0.15, 1.0], axis=1))),
        within(lambda x: ops.quantile(table(x), 0.77, axis=(1, 2), keepdims=True) + ops.quantile(table(x), 0, axis=2)),
    ],
    "Median": [
        lambda x, y: ops.median(x, axis=-1),
        lambda x, y: ops.isnan(ops.median(missing(x[:, :2], y[:, :2]), axis=-1)),
        lambda x, y: ops.median(table(x), axis=2, keepdims=True),
        lambda x, y: ops.median(table(x), axis=(1, 2)),
    ],
    "Solve": [
        lambda x, y: ops.solve(square(x), ops.reshape(y, (-1, 3, 2))),
        lambda x, y: ops.solve(square(x), y[:, :3]),
    ],
    "SolveTriangular": [
        lambda x, y: ops.solve_triangular(square(x), ops.reshape(y, (-1, 3, 2)), lower=True),
        lambda x, y: ops.solve_triangular(square(x), y[:, :3, None]),
    ],
    "Inv": [lambda x, y: ops.inv(square(x))],
    "Det": [lambda x, y: y * ops.det(square(x))[:, None]],
    "Cholesky": [
        lambda x, y: ops.cholesky(positive(x)),
        lambda x, y: ops.cholesky(positive(x), upper=True),
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
}
