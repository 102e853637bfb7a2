"""How rsref's ops are said with Keras's: one entry a primitive op. The opposite direction of `keras_bridge.rules`.

An entry is called as `emit(*tensors, **attributes)`, with the attributes of the op in rsref.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from rsref.graph import topological_order
from rsref.ops.base import Op
from rsref.tensor import ConstantSource, Tensor

Emit = Callable[..., Any]


def evaluate(outputs: Sequence[Tensor], values: Mapping[Tensor, Any], dtype: str) -> list[Any]:
    """Return the values of rsref tensors, computed with Keras's ops in a floating dtype, given those of the leaves.

    Errors: NotImplementedError if an op has no counterpart; its text names the op.
    """
    known = dict(values)
    for tensor in topological_order(outputs):
        if tensor in known:
            continue
        if isinstance(tensor.source, ConstantSource):
            known[tensor] = ops.convert_to_tensor(tensor.source.value, _dtype(tensor.dtype, dtype))
            continue
        if tensor.op is None:
            raise KeyError(f"{tensor!r} is a leaf whose value is not given")
        emit = _emission_of(tensor.op)
        attrs = dict(tensor.attrs)
        if "dtype" in attrs:
            attrs["dtype"] = _dtype(attrs["dtype"], dtype)
        value = emit(*(known[operand] for operand in tensor.inputs), **attrs)
        wanted = _dtype(tensor.dtype, dtype)  # Keras's own promotion answers float32 for some ops of float64 tensors
        known[tensor] = value if keras.backend.standardize_dtype(value.dtype) == wanted else ops.cast(value, wanted)
    return [known[tensor] for tensor in outputs]


def check_ops(outputs: Sequence[Tensor]) -> None:
    """NotImplementedError, naming it, if an op behind the outputs has no counterpart in Keras."""
    for tensor in topological_order(outputs):
        if tensor.op is not None:
            _emission_of(tensor.op)


def _emission_of(op: Op) -> Emit:
    emit = EMISSIONS.get(op.name)
    if emit is None:
        raise NotImplementedError(f"the op {op.name!r} of rsref has no counterpart in keras.ops")
    return emit


def _dtype(kind: str, dtype: str) -> str:
    return {"float": dtype, "int": "int32", "bool": "bool"}[kind]


def _lengths(x: Any, shape: Sequence[int | None]) -> list[Any]:
    """Return a shape whose None are the lengths of x."""
    own = ops.shape(x)
    lead = len(shape) - len(own)
    return [own[i if lead <= 0 else i - lead] if n is None else n for i, n in enumerate(shape)]


def _reshape(x: Any, shape: Sequence[int | None]) -> Any:
    return ops.reshape(x, [ops.shape(x)[i] if n is None else n for i, n in enumerate(shape)])


def _broadcast_to(x: Any, shape: Sequence[int | None]) -> Any:
    return ops.broadcast_to(x, _lengths(x, shape))


def _expand_dims(x: Any, axes: Sequence[int]) -> Any:
    for axis in axes:
        x = ops.expand_dims(x, axis)
    return x


def _sum_to_like(g: Any, like: Any) -> Any:
    lead = len(g.shape) - len(like.shape)
    if lead:
        g = ops.sum(g, axis=tuple(range(lead)))
    axes = tuple(i for i, n in enumerate(like.shape) if n == 1 and g.shape[i] != 1)
    return ops.sum(g, axis=axes, keepdims=True) if axes else g


def _slice(x: Any, bounds: Sequence[tuple[int | None, int | None, int]]) -> Any:
    for axis, (start, stop, step) in enumerate(bounds):
        if step < 0:  # not every backend slices backwards: the axis is turned and the bounds with it, of any length
            x = ops.flip(x, axis)
            start, stop = (None if bound is None else -bound - 1 for bound in (start, stop))
            step = -step
        if (start, stop, step) != (None, None, 1):
            x = x[(slice(None),) * axis + (slice(start, stop, step),)]
    return x


def _matmul(a: Any, b: Any) -> Any:
    """On PyTorch not by Keras's matmul, which computes that of float64 tensors in float32."""
    return a @ b if keras.backend.backend() == "torch" else ops.matmul(a, b)


def _add(a: Any, b: Any) -> Any:
    """On TensorFlow not by Keras's add, for which a column is a bias where samples are as many as units or places."""
    return a + b if keras.backend.backend() == "tensorflow" else ops.add(a, b)


def _count(x: Any, axes: Sequence[int], dtype: str) -> Any:
    lengths = [ops.shape(x)[a] for a in axes]
    if all(isinstance(n, int) for n in lengths):
        return ops.convert_to_tensor(float(math.prod(lengths)), dtype)
    return ops.prod(ops.cast(ops.stack(lengths), dtype))


def _broadcast_like(x: Any, like: Any) -> Any:
    shape = ops.shape(like)
    if any(n is None for n in shape):  # while a layer is traced, on backends that know no open lengths
        return ops.where(ops.ones_like(like, dtype="bool"), x, x)
    return ops.broadcast_to(x, shape)


def _reduced(function: Emit) -> Emit:
    return lambda x, axes, keepdims: function(x, axis=tuple(axes), keepdims=keepdims) if axes else x


def _standardize(x: Any, axes: Sequence[int], epsilon: float) -> Any:
    centred = x - ops.mean(x, axis=tuple(axes), keepdims=True)
    return centred * ops.rsqrt(ops.mean(centred * centred, axis=tuple(axes), keepdims=True) + epsilon)


def _rms_normalize(x: Any, axes: Sequence[int], epsilon: float) -> Any:
    return x * ops.rsqrt(ops.mean(x * x, axis=tuple(axes), keepdims=True) + epsilon)


def _softmax(x: Any, axes: Sequence[int]) -> Any:
    e = ops.exp(x - ops.stop_gradient(ops.max(x, axis=tuple(axes), keepdims=True)))
    return e / ops.sum(e, axis=tuple(axes), keepdims=True)


def _log_softmax(x: Any, axes: Sequence[int]) -> Any:
    shifted = x - ops.stop_gradient(ops.max(x, axis=tuple(axes), keepdims=True))
    return shifted - ops.log(ops.sum(ops.exp(shifted), axis=tuple(axes), keepdims=True))


def _sparsemax(x: Any, axes: Sequence[int]) -> Any:
    """Martins 2016, along one axis; the threshold's gradient is that of the mean over the support."""
    last = len(x.shape) - 1  # PyTorch writes moveaxis to -1 into an ONNX graph as it stands, where it is no axis
    z = ops.moveaxis(x - ops.stop_gradient(ops.max(x, axis=axes[0], keepdims=True)), axes[0], last)
    falling = ops.flip(ops.sort(z, axis=-1), -1)
    counts = ops.cast(ops.arange(1, z.shape[-1] + 1), z.dtype)
    inside = falling * counts > ops.cumsum(falling, axis=-1) - 1
    total = ops.sum(ops.where(inside, falling, 0), axis=-1, keepdims=True)  # one outside may be -inf
    threshold = (total - 1) / ops.sum(ops.cast(inside, z.dtype), axis=-1, keepdims=True)
    return ops.moveaxis(ops.relu(z - threshold), last, axes[0])


def _windows(x: Any, size: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Any:
    n = len(size)
    positions = [(x.shape[1 + i] - (size[i] - 1) * dilation[i] - 1) // strides[i] + 1 for i in range(n)]
    parts = []
    for offset in np.ndindex(*size):
        cut = [slice(o * d, o * d + (p - 1) * s + 1, s) for o, d, p, s in zip(offset, dilation, positions, strides)]
        parts.append(x[(slice(None), *cut)])
    stacked = ops.stack(parts, axis=n + 1)  # (batch, *positions, window places, channels)
    return ops.reshape(stacked, (-1, *positions, *size, x.shape[-1]))


SAME_NAME = (
    *("subtract", "multiply", "divide", "floor_divide", "power", "negative", "absolute", "sign", "reciprocal"),
    *("square", "sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "maximum", "minimum", "floor", "ceil", "round"),
    *("sin", "cos", "tan", "arctan", "arctan2", "sinh", "cosh", "tanh", "erf", "erfc", "sigmoid", "softplus", "relu"),
    *("less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "isfinite", "isnan", "where"),
    *("logical_and", "logical_or", "logical_xor", "logical_not", "stop_gradient"),
)

EMISSIONS: dict[str, Emit] = {
    **{name: getattr(ops, name) for name in SAME_NAME},
    "add": _add,
    "remainder": ops.mod,
    "matmul": _matmul,
    "clip": lambda x, low, high: ops.minimum(ops.maximum(x, low), high),
    "cast": lambda x, dtype: ops.cast(x, dtype),
    "einsum": lambda *operands, equation: ops.einsum(equation, *operands),
    # structure
    "reshape": _reshape,
    "reshape_like": lambda x, like: ops.reshape(x, ops.shape(like)),
    "transpose": lambda x, axes: ops.transpose(x, axes),
    "expand_dims": _expand_dims,
    "squeeze": lambda x, axes: ops.squeeze(x, axis=tuple(axes)),
    "broadcast_to": _broadcast_to,
    "broadcast_like": _broadcast_like,
    "sum_to_like": _sum_to_like,
    "concatenate": lambda *xs, axis: ops.concatenate(xs, axis=axis),
    "pad": lambda x, pads, value: ops.pad(x, pads, constant_values=value),
    # places
    "slice": _slice,
    "take": lambda x, indices, axis: ops.take(x, indices, axis=axis),
    "one_hot": lambda x, num_classes, dtype: ops.one_hot(x, num_classes, dtype=dtype),
    "argmax": lambda x, axis: ops.argmax(x, axis=axis),
    "argmin": lambda x, axis: ops.argmin(x, axis=axis),
    "windows": _windows,
    # reductions
    "sum": _reduced(ops.sum),
    "max": _reduced(ops.max),
    "min": _reduced(ops.min),
    "logsumexp": _reduced(ops.logsumexp),
    "cumsum": lambda x, axis: ops.cumsum(x, axis=axis),
    "count": _count,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "sparsemax": _sparsemax,
    "standardize": _standardize,
    "rms_normalize": _rms_normalize,
}


def standard_dtype(dtype: Any) -> str:
    """Return the floating dtype in which rsref's graphs are computed for a policy: at least float32."""
    name = keras.backend.standardize_dtype(dtype)
    return "float32" if name in ("float16", "bfloat16") else name
