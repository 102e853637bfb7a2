"""Convolution and pooling, built on one op that cuts windows out of the spatial axes, and its adjoint.

Layout as Keras's channels_last: (batch, *spatial, channels); kernels (*window, channels / groups, filters).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rsref.ops.base import Op, apply, integer, rank, register
from rsref.ops.linear import einsum, matmul
from rsref.ops.pointwise import broadcast_like
from rsref.ops.reduction import max as reduce_max
from rsref.ops.reduction import sum as reduce_sum
from rsref.ops.structure import concatenate, expand_dims, pad, reshape
from rsref.tensor import Spec, Tensor

Lengths = tuple[int, ...]


class Windows(Op):
    """All windows of the spatial axes: (batch, *positions, *window, channels)."""

    name = "windows"

    def infer(self, x: Spec, *, size: Lengths, strides: Lengths, dilation: Lengths) -> Spec:
        positions = []
        for n, k, s, d in zip(x.shape[1:-1], size, strides, dilation):
            reach = (k - 1) * d + 1
            if n is not None and n < reach:
                raise ValueError(f"windows: a window of {size} (dilation {dilation}) does not fit shape {x.shape}")
            positions.append(None if n is None else (n - reach) // s + 1)
        return Spec((x.shape[0], *positions, *size, x.shape[-1]), x.dtype)

    def forward(self, x: Any, *, size: Lengths, strides: Lengths, dilation: Lengths) -> Any:
        spatial = len(size)
        reach = tuple((k - 1) * d + 1 for k, d in zip(size, dilation))
        view = sliding_window_view(x, reach, axis=tuple(range(1, spatial + 1)))  # (batch, *positions, channels, *reach)
        view = np.moveaxis(view, spatial + 1, -1)
        steps = (slice(None), *(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilation))
        return view[steps]

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return apply(_put_windows, g, operands[0], **attrs)


_windows = register(Windows())


class PutWindows(Op):
    """Zeros in the shape of `like`, with every window of x added at its place: the adjoint of `windows`."""

    name = "put_windows"
    constant_operands = (1,)

    def infer(self, x: Spec, like: Spec, **attrs: Any) -> Spec:
        return Spec(like.shape, x.dtype)

    def forward(self, x: Any, like: Any, *, size: Lengths, strides: Lengths, dilation: Lengths) -> Any:
        y = np.zeros(np.shape(like), x.dtype)
        positions = x.shape[1 : 1 + len(size)]
        for offset in np.ndindex(*size):
            places = tuple(
                slice(o * d, o * d + (p - 1) * s + 1 if p else o * d, s)
                for o, d, p, s in zip(offset, dilation, positions, strides)
            )
            y[(slice(None), *places)] += x[(slice(None), *(slice(None) for _ in size), *offset)]
        return y

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return apply(_windows, g, **attrs)


_put_windows = register(PutWindows())


def windows(
    x: Any, size: int | Sequence[int], strides: int | Sequence[int] = 1, dilation: int | Sequence[int] = 1
) -> Any:
    """Return all windows of the spatial axes: (batch, *spatial, c) gives (batch, *positions, *size, c)."""
    n = rank(x) - 2
    if n < 1:
        raise ValueError(f"windows: a tensor (batch, *spatial, channels) is needed; got rank {rank(x)}")
    return apply(
        _windows,
        x,
        size=_per_axis("window size", size, n),
        strides=_per_axis("strides", strides, n),
        dilation=_per_axis("dilation", dilation, n),
    )


def conv(
    inputs: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    dilation_rate: int | Sequence[int] = 1,
) -> Any:
    """Return the convolution (cross-correlation) over 1, 2 or more spatial axes, as keras.ops.conv.

    Shapes: inputs (batch, *spatial, channels), kernel (*window, channels / groups, filters) give
    (batch, *positions, filters); groups follow from the channel counts.
    padding: "valid" (none), "same" (positions = spatial / strides, rounded up) or "causal" (one spatial axis).
    Errors: ValueError if ranks or channels do not fit.
    """
    n = rank(inputs) - 2
    if n < 1 or rank(kernel) != n + 2:
        raise ValueError(f"conv: shapes {inputs.shape} and {kernel.shape} do not fit: kernel (*window, in, filters)")
    size, depth, filters = tuple(kernel.shape[:n]), kernel.shape[n], kernel.shape[n + 1]
    channels = inputs.shape[-1]
    if channels is None or not depth or channels % depth or filters % (channels // depth):
        raise ValueError(f"conv: {channels} channels do not fit a kernel of shape {tuple(kernel.shape)}")
    groups = channels // depth
    steps, spread = _per_axis("strides", strides, n), _per_axis("dilation_rate", dilation_rate, n)
    x = _padded(inputs, padding, size, steps, spread)
    parts = []
    for group in range(groups):
        part = x[..., group * depth : (group + 1) * depth] if groups > 1 else x
        weights = kernel[..., group * (filters // groups) : (group + 1) * (filters // groups)] if groups > 1 else kernel
        cut = windows(part, size, steps, spread)
        letters = "pqr"[:n], "uvw"[:n]
        if None in cut.shape[1:]:
            parts.append(einsum(f"b{letters[0]}{letters[1]}c,{letters[1]}cf->b{letters[0]}f", cut, weights))
        else:  # one large product over all positions
            flat = reshape(weights, (-1, filters // groups))
            rows = reshape(cut, (-1, flat.shape[0]))
            parts.append(reshape(matmul(rows, flat), (-1, *cut.shape[1 : 1 + n], filters // groups)))
    return concatenate(parts, -1) if groups > 1 else parts[0]


def depthwise_conv(
    inputs: Any,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    dilation_rate: int | Sequence[int] = 1,
) -> Any:
    """Return the convolution of every channel by windows of its own, as keras.ops.depthwise_conv.

    Shapes: inputs (batch, *spatial, channels), kernel (*window, channels, multiplier) give
    (batch, *positions, channels * multiplier).
    padding: as for conv.
    Errors: ValueError if ranks or channels do not fit.
    """
    n = rank(inputs) - 2
    if n < 1 or rank(kernel) != n + 2 or inputs.shape[-1] != kernel.shape[n]:
        raise ValueError(
            f"depthwise_conv: shapes {inputs.shape} and {kernel.shape} do not fit: "
            "kernel (*window, channels, multiplier)"
        )
    size, channels = tuple(kernel.shape[:n]), kernel.shape[n] * kernel.shape[n + 1]
    steps, spread = _per_axis("strides", strides, n), _per_axis("dilation_rate", dilation_rate, n)
    cut = windows(_padded(inputs, padding, size, steps, spread), size, steps, spread)
    y = reduce_sum(expand_dims(cut, -1) * kernel, tuple(range(1 + n, 1 + 2 * n)))
    return reshape(y, (*y.shape[:-2], channels))


def max_pool(
    inputs: Any, pool_size: int | Sequence[int], strides: int | Sequence[int] | None = None, padding: str = "valid"
) -> Any:
    """Return the greatest value of each window (batch, *spatial, channels), as keras.ops.max_pool."""
    return reduce_max(*_pool_windows(inputs, pool_size, strides, padding, float("-inf")))


def average_pool(
    inputs: Any, pool_size: int | Sequence[int], strides: int | Sequence[int] | None = None, padding: str = "valid"
) -> Any:
    """Return the mean of each window, padded places not counted, as keras.ops.average_pool."""
    total = reduce_sum(*_pool_windows(inputs, pool_size, strides, padding, 0.0))
    inside = broadcast_like(1.0, inputs) if isinstance(inputs, Tensor) else np.ones_like(inputs)
    return total / reduce_sum(*_pool_windows(inside, pool_size, strides, padding, 0.0))


def _pool_windows(
    inputs: Any, pool_size: int | Sequence[int], strides: int | Sequence[int] | None, padding: str, fill: float
) -> tuple[Any, tuple[int, ...]]:
    n = rank(inputs) - 2
    size = _per_axis("pool_size", pool_size, n)
    steps = size if strides is None else _per_axis("strides", strides, n)
    x = _padded(inputs, padding, size, steps, (1,) * n, fill)
    return windows(x, size, steps), tuple(range(1 + n, 1 + 2 * n))


def _per_axis(name: str, value: int | Sequence[int], n: int) -> Lengths:
    given = value if isinstance(value, Iterable) else (value,) * n
    lengths = tuple(integer(name, v) for v in given)
    if len(lengths) != n or any(v < 1 for v in lengths):
        raise ValueError(f"{name} must be a positive integer or {n} of them; got {value!r}")
    return lengths


def _padded(x: Any, padding: str, size: Lengths, strides: Lengths, dilation: Lengths, fill: float = 0.0) -> Any:
    if padding == "valid":
        return x
    if padding not in ("same", "causal") or (padding == "causal" and len(size) > 1):
        raise ValueError(f'padding must be "valid", "same" or, over one axis, "causal"; got {padding!r}')
    widths = [(0, 0)]
    for n, k, s, d in zip(x.shape[1:-1], size, strides, dilation):
        reach = (k - 1) * d
        if padding == "causal":
            widths.append((reach, 0))
            continue
        if n is None and s > 1:
            raise ValueError(f'padding "same" with strides {strides} needs known lengths; got shape {x.shape}')
        total = reach if n is None else max(0, (-(-n // s) - 1) * s + reach + 1 - n)
        widths.append((total // 2, total - total // 2))
    return pad(x, [*widths, (0, 0)], fill)
