"""Rules for products: of matrices, over windows, and what is made of them."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_bridge.rules.base import Rule, plain, with_attributes
from rsref import ops


def _einsum(operation: Any, *operands: Any, **_: Any) -> Any:
    return ops.einsum(operation.subscripts, *operands)


def _inner(a: Any, b: Any) -> Any:
    return ops.tensordot(a, b, (-1, -1)) if len(a.shape) and len(b.shape) else a * b


def _cross(operation: Any, a: Any, b: Any) -> Any:
    """The product of vectors of three numbers that is at right angles to both."""
    a, b = ops.moveaxis(a, operation.axisa, -1), ops.moveaxis(b, operation.axisb, -1)
    if (a.shape[-1], b.shape[-1]) != (3, 3):
        raise ValueError(f"cross has a counterpart for vectors of 3 numbers; got {a.shape[-1]} and {b.shape[-1]}")
    turned = [[ops.take(x, places, -1) for places in ([1, 2, 0], [2, 0, 1])] for x in (a, b)]
    return ops.moveaxis(turned[0][0] * turned[1][1] - turned[0][1] * turned[1][0], -1, operation.axisc)


def _channels_last(operation: Any) -> None:
    form = operation.data_format or keras.config.image_data_format()
    if form != "channels_last":
        raise ValueError(f'data_format {form!r} has no counterpart; "channels_last" has')


def _conv(operation: Any, inputs: Any, kernel: Any) -> Any:
    _channels_last(operation)
    return ops.conv(inputs, kernel, operation.strides, operation.padding, operation.dilation_rate)


def _depthwise_conv(operation: Any, inputs: Any, kernel: Any) -> Any:
    _channels_last(operation)
    return ops.depthwise_conv(inputs, kernel, operation.strides, operation.padding, operation.dilation_rate)


def _separable_conv(operation: Any, inputs: Any, kernel: Any, pointwise_kernel: Any) -> Any:
    return ops.conv(_depthwise_conv(operation, inputs, kernel), pointwise_kernel)


def _attention(
    operation: Any, query: Any, key: Any, value: Any, bias: Any = None, mask: Any = None, scale: Any = None
) -> Any:
    """Attention of several heads: query (batch, targets, heads, depth), key and value (batch, sources, heads, depth).

    Fewer heads of key and value are shared by as many of the query each. flash_attention says how it is computed alone.
    """
    if operation.attn_logits_soft_cap is not None:
        raise ValueError("attn_logits_soft_cap has no counterpart; Keras heeds it on a TPU alone")
    (heads, depth), own = query.shape[2:], key.shape[2]
    key, value = (x if own == heads else ops.repeat(x, heads // own, 2) for x in (key, value))
    scores = ops.einsum("btnh,bsnh->bnts", query, key) * (1.0 / math.sqrt(depth) if scale is None else scale)
    scores = scores if bias is None else scores + bias
    if operation.is_causal:
        earlier = np.tri(scores.shape[2], scores.shape[3], dtype=bool)
        mask = earlier if mask is None else ops.logical_and(mask, earlier)
    # finite, as in Keras: where all is left out, all count alike
    scores = scores if mask is None else ops.where(mask, scores, 0.7 * float(np.finfo(np.float32).min))
    return ops.einsum("bnts,bsnh->btnh", ops.softmax(scores, -1), value)


def _pool(function: Rule) -> Rule:
    def rule(operation: Any, inputs: Any) -> Any:
        _channels_last(operation)
        return function(inputs, operation.pool_size, operation.strides, operation.padding)

    return rule


def _solve_triangular(operation: Any, a: Any, b: Any) -> Any:
    return ops.solve((ops.tril if operation.lower else ops.triu)(a), b)


RULES: dict[str, Rule] = {
    # systems of equations
    "Solve": plain(ops.solve),
    "SolveTriangular": _solve_triangular,
    "Inv": plain(ops.inv),
    "Det": plain(ops.det),
    "Cholesky": with_attributes(ops.cholesky, "upper"),
    # products
    "Matmul": plain(ops.matmul),
    "Dot": plain(ops.dot),
    "Tensordot": with_attributes(ops.tensordot, "axes"),
    "Einsum": _einsum,
    "Inner": plain(_inner),
    "Vdot": plain(lambda a, b: ops.sum(ops.reshape(a, (-1,)) * ops.reshape(b, (-1,)))),
    "Cross": _cross,
    "Outer": plain(lambda a, b: ops.reshape(a, (-1, 1)) * ops.reshape(b, (1, -1))),
    "DotProductAttention": _attention,
    "Conv": _conv,
    "DepthwiseConv": _depthwise_conv,
    "SeparableConv": _separable_conv,
    "MaxPool": _pool(ops.max_pool),
    "AveragePool": _pool(ops.average_pool),
}
