"""Sums, extremes, softmax and normalisation over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsref.ops.base import Op, apply, normal_axes, normal_axis, rank, register
from rsref.ops.pointwise import broadcast_like, cast, equal, exp, greater, rsqrt, sqrt, square
from rsref.ops.structure import expand_dims
from rsref.tensor import Shape, Spec, Tensor

Axis = int | Sequence[int] | None

EPSILON = 1e-7
"""What the normalisations of keras.ops add below the root unless told: keras.config.epsilon() unless set."""


def reduced(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    return tuple(1 if i in axes else n for i, n in enumerate(shape) if keepdims or i not in axes)


def restored(y: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Return a reduction's result with the reduced axes put back with length 1."""
    return y if keepdims or not axes else expand_dims(y, axes)


def _greatest(x: Any, axes: tuple[int, ...]) -> Any:
    """Return the greatest value over axes, which stay with length 1; zeros for no values at all."""
    if x.size:
        return np.max(x, axis=axes, keepdims=True)
    return np.zeros(reduced(x.shape, axes, True), x.dtype)


def _mean(x: Any, axes: tuple[int, ...]) -> Any:
    """Return the mean over axes, which stay with length 1; 0 for no values at all, and no warning."""
    return np.sum(x, axis=axes, keepdims=True) / (math.prod(x.shape[a] for a in axes) or 1)


class Reduction(Op):
    """An op that folds axes into one value each."""

    def infer(self, x: Spec, *, axes: tuple[int, ...], keepdims: bool) -> Spec:
        return Spec(reduced(x.shape, axes, keepdims), x.dtype)


class Sum(Reduction):
    """The sum over axes; of bools, how many are true."""

    name = "sum"

    def infer(self, x: Spec, *, axes: tuple[int, ...], keepdims: bool) -> Spec:
        return Spec(reduced(x.shape, axes, keepdims), "int" if x.dtype == "bool" else x.dtype)

    def forward(self, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
        return np.sum(x, axis=axes, keepdims=keepdims)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return broadcast_like(restored(g, attrs["axes"], attrs["keepdims"]), operands[0])


class Extreme(Reduction):
    """The greatest or least value over axes, of bools a bool.

    Equal extremes share the gradient, as in JAX, PyTorch and TensorFlow.
    """

    def __init__(self, name: str, function: Any):
        self.name = name
        self.function = function

    def infer(self, x: Spec, *, axes: tuple[int, ...], keepdims: bool) -> Spec:
        if any(x.shape[a] == 0 for a in axes):
            raise ValueError(f"{self.name}: shape {x.shape} holds no values along axes {axes} to choose one from")
        return super().infer(x, axes=axes, keepdims=keepdims)

    def forward(self, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
        return self.function(x, axis=axes, keepdims=keepdims)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        axes, keepdims = attrs["axes"], attrs["keepdims"]
        hits = cast_like(equal(operands[0], restored(y, axes, keepdims)), g)
        return restored(g, axes, keepdims) * hits / sum(hits, axes, keepdims=True)


class LogSumExp(Reduction):
    """log(sum(exp(x))) over axes, computed without overflow."""

    name = "logsumexp"

    def forward(self, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
        top = _greatest(x, axes)
        top = np.where(np.isfinite(top), top, 0)
        y = np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top
        return y if keepdims else np.squeeze(y, axes)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        axes, keepdims = attrs["axes"], attrs["keepdims"]
        return restored(g, axes, keepdims) * exp(operands[0] - restored(y, axes, keepdims))


class Softmax(Op):
    """exp(x) / sum(exp(x)) over axes, computed without overflow."""

    name = "softmax"

    def infer(self, x: Spec, *, axes: tuple[int, ...]) -> Spec:
        return Spec(x.shape, x.dtype)

    def forward(self, x: Any, *, axes: tuple[int, ...]) -> Any:
        e = np.exp(x - _greatest(x, axes))
        return e / np.sum(e, axis=axes, keepdims=True)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return y * (g - sum(g * y, attrs["axes"], keepdims=True))


class LogSoftmax(Softmax):
    """log(softmax(x)) over axes."""

    name = "log_softmax"

    def forward(self, x: Any, *, axes: tuple[int, ...]) -> Any:
        if not x.size:
            return np.zeros_like(x)
        shifted = x - np.max(x, axis=axes, keepdims=True)
        return shifted - np.log(np.sum(np.exp(shifted), axis=axes, keepdims=True))

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return g - exp(y) * sum(g, attrs["axes"], keepdims=True)


class Sparsemax(Softmax):
    """max(x - t, 0) along one axis, with the t that makes the sum 1: a softmax with zeros in it (Martins 2016).

    As a softmax's, a row is counted from its greatest value: of great numbers differences count alone, and where the
    greatest is no number (NaN, infinite), neither is any result.
    """

    name = "sparsemax"

    def forward(self, x: Any, *, axes: tuple[int, ...]) -> Any:
        if not x.size:
            return np.zeros_like(x)
        z = np.moveaxis(x - _greatest(x, axes), axes[0], -1)
        falling = np.sort(z, -1)[..., ::-1]
        excess = np.cumsum(falling, -1) - 1
        counts = np.arange(1, z.shape[-1] + 1).astype(x.dtype)
        support = np.sum(falling * counts > excess, -1, keepdims=True)
        t = np.take_along_axis(excess, support - 1, -1) / support.astype(x.dtype)
        return np.moveaxis(np.where(z <= t, 0, z - t), -1, axes[0])

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        axes = attrs["axes"]
        support = cast_like(greater(y, 0), g)
        return support * (g - sum(g * support, axes, keepdims=True) / sum(support, axes, keepdims=True))


class Standardize(Op):
    """(x - mean(x)) / sqrt(variance(x) + epsilon) over axes: the core of layer normalisation (Ba 2016)."""

    name = "standardize"

    def infer(self, x: Spec, *, axes: tuple[int, ...], epsilon: float) -> Spec:
        return Spec(x.shape, x.dtype)

    def forward(self, x: Any, *, axes: tuple[int, ...], epsilon: float) -> Any:
        centred = x - _mean(x, axes)
        return centred / np.sqrt(_mean(centred * centred, axes) + epsilon)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        axes, x = attrs["axes"], operands[0]
        centred = x - mean(x, axes, keepdims=True)
        scale = rsqrt(mean(square(centred), axes, keepdims=True) + attrs["epsilon"])
        return scale * (g - mean(g, axes, keepdims=True) - y * mean(g * y, axes, keepdims=True))


class RMSNormalize(Standardize):
    """x / sqrt(mean(x^2) + epsilon) over axes (Zhang and Sennrich 2019)."""

    name = "rms_normalize"

    def forward(self, x: Any, *, axes: tuple[int, ...], epsilon: float) -> Any:
        return x / np.sqrt(_mean(x * x, axes) + epsilon)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        axes = attrs["axes"]
        scale = rsqrt(mean(square(operands[0]), axes, keepdims=True) + attrs["epsilon"])
        return scale * (g - y * mean(g * y, axes, keepdims=True))


class Count(Op):
    """How many values of x fold into one when axes are reduced, as a float: 1 / count makes a mean of a sum."""

    name = "count"
    constant_operands = (0,)

    def infer(self, x: Spec, *, axes: tuple[int, ...], dtype: str) -> Spec:
        return Spec((), dtype)

    def forward(self, x: Any, *, axes: tuple[int, ...], dtype: Any) -> Any:
        return np.asarray(math.prod(np.shape(x)[a] for a in axes), dtype)


class CumulativeSum(Op):
    """The running sum along an axis."""

    name = "cumsum"

    def infer(self, x: Spec, *, axis: int) -> Spec:
        return Spec(x.shape, "int" if x.dtype == "bool" else x.dtype)

    def forward(self, x: Any, *, axis: int) -> Any:
        return np.cumsum(x, axis)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        from rsref.ops.indexing import flip

        return flip(cumsum(flip(g, attrs["axis"]), attrs["axis"]), attrs["axis"])


_sum, _max, _min = (
    register(Sum()),
    register(Extreme("max", np.max)),
    register(Extreme("min", np.min)),
)
_logsumexp, _softmax, _log_softmax = register(LogSumExp()), register(Softmax()), register(LogSoftmax())
_sparsemax = register(Sparsemax())
_standardize, _rms_normalize = register(Standardize()), register(RMSNormalize())
_count, _cumsum = register(Count()), register(CumulativeSum())


def cast_like(x: Any, like: Any) -> Any:
    """Return x in the dtype of `like`."""
    return cast(x, like.dtype) if isinstance(x, Tensor) else np.asarray(x).astype(like.dtype)


def as_float(x: Any) -> Any:
    """Return whole numbers and bools as floats; floats in the precision that they have."""
    if isinstance(x, Tensor):
        return cast(x, "float")
    return x if np.asarray(x).dtype.kind in "fc" else np.asarray(x).astype(np.float64)


def _float(x: Any) -> Any:
    return cast(x, "float") if isinstance(x, Tensor) else x


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the sum over axes (all if None)."""
    return apply(_sum, x, axes=normal_axes("sum", axis, rank(x)), keepdims=keepdims)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the greatest value over axes (all if None)."""
    return apply(_max, x, axes=normal_axes("max", axis, rank(x)), keepdims=keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the least value over axes (all if None)."""
    return apply(_min, x, axes=normal_axes("min", axis, rank(x)), keepdims=keepdims)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the mean over axes (all if None)."""
    axes = normal_axes("mean", axis, rank(x))
    dtype = "float" if isinstance(x, Tensor) else np.result_type(x, np.float32)
    return sum(_float(x), axes, keepdims) / apply(_count, x, axes=axes, dtype=dtype)


def var(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the variance over axes (all if None), divided by the count, as numpy.var."""
    centred = _float(x) - mean(x, axis, keepdims=True)
    return mean(square(centred), axis, keepdims)


def std(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return the standard deviation over axes (all if None), as numpy.std."""
    return sqrt(var(x, axis, keepdims))


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Return log(sum(exp(x))) over axes (all if None)."""
    return apply(_logsumexp, _float(x), axes=normal_axes("logsumexp", axis, rank(x)), keepdims=keepdims)


def softmax(x: Any, axis: Axis = -1) -> Any:
    """Return exp(x) / sum(exp(x)) over one axis or several."""
    return apply(_softmax, _float(x), axes=normal_axes("softmax", axis, rank(x)))


def log_softmax(x: Any, axis: Axis = -1) -> Any:
    """Return log(softmax(x)) over one axis or several."""
    return apply(_log_softmax, _float(x), axes=normal_axes("log_softmax", axis, rank(x)))


def sparsemax(x: Any, axis: int = -1) -> Any:
    """Return max(x - t, 0) along an axis, with the t that makes the sum 1."""
    return apply(_sparsemax, _float(x), axes=(normal_axis("sparsemax", axis, rank(x)),))


def standardize(x: Any, axis: Axis = -1, epsilon: float = 1e-3) -> Any:
    """Return (x - mean) / sqrt(variance + epsilon) over axes."""
    return apply(_standardize, _float(x), axes=normal_axes("standardize", axis, rank(x)), epsilon=float(epsilon))


def layer_normalization(
    x: Any, gamma: Any = None, beta: Any = None, axis: Axis = -1, epsilon: float | None = None
) -> Any:
    """Return `standardize(x) * gamma + beta` (Ba 2016); gamma and beta have the shape of the normalised axes.

    epsilon: None for 1e-7, as in keras.ops; the layers LayerNormalization of Keras and of rsref take 1e-3.
    """
    y = standardize(x, axis, EPSILON if epsilon is None else epsilon)
    axes = normal_axes("layer_normalization", axis, rank(x))
    y = y if gamma is None else y * _along(gamma, axes, rank(x))
    return y if beta is None else y + _along(beta, axes, rank(x))


def _along(values: Any, axes: tuple[int, ...], ndim: int) -> Any:
    """Return values of some axes so that they are broadcast over the others, also where those come behind."""
    others = tuple(axis - axes[0] for axis in range(axes[0], ndim) if axis not in axes)
    return expand_dims(values, others) if others and rank(values) == len(axes) else values


def rms_normalization(x: Any, scale: Any = None, axis: Axis = -1, epsilon: float | None = None) -> Any:
    """Return `x / sqrt(mean(x^2) + epsilon) * scale` (Zhang and Sennrich 2019).

    epsilon: None for 1e-7, as in keras.ops; the layers RMSNormalization of Keras and of rsref take 1e-6.
    """
    epsilon = EPSILON if epsilon is None else epsilon
    axes = normal_axes("rms_normalization", axis, rank(x))
    y = apply(_rms_normalize, _float(x), axes=axes, epsilon=float(epsilon))
    return y if scale is None else y * scale


def cumsum(x: Any, axis: int) -> Any:
    """Return the running sum along an axis."""
    return apply(_cumsum, x, axis=normal_axis("cumsum", axis, rank(x)))


amax, amin = max, min
