"""Ops that move values without changing them: reshape, transpose, broadcast, concatenate, pad."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from typing import Any

import numpy as np

from rsref.ops.base import (
    Op,
    apply,
    as_tensor,
    compatible,
    lengths_of,
    normal_axes,
    normal_axis,
    rank,
    register,
)
from rsref.ops.pointwise import cast, sum_to_like
from rsref.tensor import Shape, Spec, Tensor, array_of


class Reshape(Op):
    """The same values in another shape: -1 is worked out, None keeps the length of the operand's axis at that place."""

    name = "reshape"

    def infer(self, x: Spec, *, shape: Shape) -> Spec:
        target = _filled(x.shape, shape)
        if -1 in target:
            return Spec(tuple(_worked_out(x.shape, shape) if n == -1 else n for n in target), x.dtype)
        left, given = _left(x.shape, shape), _size(tuple(n for n in shape if n is not None))
        if left is not None and left != given:
            raise ValueError(f"reshape: shape {x.shape} cannot become {shape}: {left} values against {given}")
        return Spec(target, x.dtype)

    def forward(self, x: Any, *, shape: Shape) -> Any:
        target = self.infer(Spec(np.shape(x), "float"), shape=shape).shape  # NumPy works no -1 out beside a zero
        return np.reshape(x, [-1 if n is None else n for n in target])

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return reshape_like(g, operands[0])


_reshape = register(Reshape())


def _filled(source: Shape, shape: Shape) -> Shape:
    if any(n is None and i >= len(source) for i, n in enumerate(shape)):
        raise ValueError(f"reshape: None at the end of {shape} keeps an axis that shape {source} does not have")
    return tuple(source[i] if n is None else n for i, n in enumerate(shape))


def _left(source: Shape, shape: Shape) -> int | None:
    """Return the number of values but for the axes that are kept; None if it is unknown."""
    return _size(tuple(n for i, n in enumerate(source) if i >= len(shape) or shape[i] is not None))


def _worked_out(source: Shape, shape: Shape) -> int | None:
    """Return the length that -1 stands for: what the given lengths leave of the axes that are not kept."""
    left = _left(source, shape)
    given = math.prod(n for n in shape if n is not None and n != -1)
    if left is None or not given:
        return None
    if left % given:
        raise ValueError(f"reshape: shape {source} cannot become {shape}")
    return left // given


def _size(shape: Shape) -> int | None:
    return None if None in shape else math.prod(shape)  # type: ignore[arg-type]


class ReshapeLike(Op):
    """x in the shape of `like`."""

    name = "reshape_like"
    constant_operands = (1,)

    def infer(self, x: Spec, like: Spec) -> Spec:
        return Spec(like.shape, x.dtype)

    def forward(self, x: Any, like: Any) -> Any:
        return np.reshape(x, np.shape(like))

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return reshape_like(g, operands[0])


_reshape_like = register(ReshapeLike())


class Transpose(Op):
    """The axes in another order."""

    name = "transpose"

    def infer(self, x: Spec, *, axes: tuple[int, ...]) -> Spec:
        return Spec(tuple(x.shape[a] for a in axes), x.dtype)

    def forward(self, x: Any, *, axes: tuple[int, ...]) -> Any:
        return np.transpose(x, axes)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return transpose(g, tuple(int(a) for a in np.argsort(attrs["axes"])))


_transpose = register(Transpose())


class ExpandDims(Op):
    """New axes of length 1 at the given places of the result."""

    name = "expand_dims"

    def infer(self, x: Spec, *, axes: tuple[int, ...]) -> Spec:
        lengths = iter(x.shape)
        return Spec(tuple(1 if i in axes else next(lengths) for i in range(len(x.shape) + len(axes))), x.dtype)

    def forward(self, x: Any, *, axes: tuple[int, ...]) -> Any:
        return np.expand_dims(x, axes)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return squeeze(g, attrs["axes"])


_expand_dims = register(ExpandDims())


class Squeeze(Op):
    """The given axes, of length 1, removed."""

    name = "squeeze"

    def infer(self, x: Spec, *, axes: tuple[int, ...]) -> Spec:
        if any(x.shape[a] not in (1, None) for a in axes):
            raise ValueError(f"squeeze: axes {axes} of shape {x.shape} do not all have length 1")
        return Spec(tuple(n for i, n in enumerate(x.shape) if i not in axes), x.dtype)

    def forward(self, x: Any, *, axes: tuple[int, ...]) -> Any:
        return np.squeeze(x, axes)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return expand_dims(g, attrs["axes"])


_squeeze = register(Squeeze())


class BroadcastTo(Op):
    """x broadcast to a shape; None keeps the length that the axis has."""

    name = "broadcast_to"

    def infer(self, x: Spec, *, shape: Shape) -> Spec:
        ndim = len(shape)
        if len(x.shape) > ndim:
            raise ValueError(f"broadcast_to: shape {x.shape} cannot become {shape}")
        padded = (1,) * (ndim - len(x.shape)) + x.shape
        for n, m in zip(padded, shape):
            if m is not None and n not in (1, None, m):
                raise ValueError(f"broadcast_to: shape {x.shape} cannot become {shape}")
        return Spec(tuple(n if m is None else m for n, m in zip(padded, shape)), x.dtype)

    def forward(self, x: Any, *, shape: Shape) -> Any:
        padded = (1,) * (len(shape) - np.ndim(x)) + np.shape(x)
        return np.broadcast_to(x, tuple(n if m is None else m for n, m in zip(padded, shape)))

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return sum_to_like(g, operands[0])


_broadcast_to = register(BroadcastTo())


class Concatenate(Op):
    """Tensors side by side along an axis."""

    name = "concatenate"

    def infer(self, *operands: Spec, axis: int) -> Spec:
        shapes = [operand.shape for operand in operands]
        rests = [(*shape[:axis], *shape[axis + 1 :]) for shape in shapes]
        if any(len(s) != len(shapes[0]) or not compatible(r, rests[0]) for s, r in zip(shapes, rests)):
            raise ValueError(f"concatenate: shapes {shapes} differ in more than axis {axis}")
        if len({operand.dtype for operand in operands}) > 1:
            raise TypeError(f"concatenate: dtypes {[operand.dtype for operand in operands]} differ; cast them first")
        lengths = [shape[axis] for shape in shapes]
        known = [next((r[i] for r in rests if r[i] is not None), None) for i in range(len(rests[0]))]
        total = None if None in lengths else sum(lengths)  # type: ignore[arg-type]
        return Spec((*known[:axis], total, *known[axis:]), operands[0].dtype)

    def forward(self, *operands: Any, axis: int) -> Any:
        return np.concatenate(operands, axis)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        from rsref.ops.indexing import take_slice

        axis = attrs["axis"]
        lengths = [operand.shape[axis] for operand in operands[: wrt + 1]]
        if None in lengths:
            raise ValueError(f"concatenate: no gradient can be drawn along axis {axis}, whose length is unknown")
        return take_slice(g, axis, sum(lengths[:-1]), sum(lengths))


_concatenate = register(Concatenate())


class Pad(Op):
    """x with constant values around it: `pads` is a pair (before, after) for each axis."""

    name = "pad"

    def infer(self, x: Spec, *, pads: tuple[tuple[int, int], ...], value: float) -> Spec:
        return Spec(tuple(None if n is None else n + a + b for n, (a, b) in zip(x.shape, pads)), x.dtype)

    def forward(self, x: Any, *, pads: tuple[tuple[int, int], ...], value: float) -> Any:
        return np.pad(x, pads, constant_values=value)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        from rsref.ops.indexing import take_slice

        for axis, (before, after) in enumerate(attrs["pads"]):
            if before or after:
                g = take_slice(g, axis, before, -after if after else None)
        return g


_pad = register(Pad())


def reshape(x: Any, newshape: int | Sequence[int | None]) -> Any:
    """Return x in another shape, batch axis included; one length may be -1, None keeps the axis at that place."""
    shape = lengths_of("reshape", newshape, -1)
    if shape.count(-1) > 1:
        raise ValueError(f"reshape: only one length may be -1; got {shape}")
    return apply(_reshape, x, shape=shape)


def reshape_like(x: Any, like: Any) -> Any:
    """Return x in the shape of `like`."""
    return apply(_reshape_like, x, like)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """Return x with its axes in another order (reversed if none is given)."""
    ndim = rank(x)
    order = tuple(range(ndim))[::-1] if axes is None else tuple(normal_axis("transpose", a, ndim) for a in axes)
    if sorted(order) != list(range(ndim)):
        raise ValueError(f"transpose: axes {axes!r} are not an order of the {ndim} axes")
    return apply(_transpose, x, axes=order)


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Return x with two axes exchanged."""
    order = list(range(rank(x)))
    i, j = normal_axis("swapaxes", axis1, len(order)), normal_axis("swapaxes", axis2, len(order))
    order[i], order[j] = order[j], order[i]
    return transpose(x, order)


def moveaxis(x: Any, source: int, destination: int) -> Any:
    """Return x with one axis moved to another place."""
    order = list(range(rank(x)))
    axis = order.pop(normal_axis("moveaxis", source, len(order)))
    order.insert(normal_axis("moveaxis", destination, rank(x)), axis)
    return transpose(x, order)


def expand_dims(x: Any, axis: int | Sequence[int]) -> Any:
    """Return x with new axes of length 1 at the given places of the result."""
    count = len(axis) if isinstance(axis, Sized) else 1
    return apply(_expand_dims, x, axes=normal_axes("expand_dims", axis, rank(x) + count))


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Return x without the given axes of length 1 (all whose length is known to be 1 if none is given)."""
    axes = [i for i, n in enumerate(x.shape) if n == 1] if axis is None else axis
    return apply(_squeeze, x, axes=normal_axes("squeeze", axes, rank(x)))


def broadcast_to(x: Any, shape: int | Sequence[int | None]) -> Any:
    """Return x broadcast to a shape, batch axis included; None keeps the length that an axis has."""
    return apply(_broadcast_to, x, shape=lengths_of("broadcast_to", shape))


def concatenate(xs: Sequence[Any], axis: int = 0) -> Any:
    """Return tensors side by side along an axis; their dtypes are promoted to the widest."""
    xs = list(xs)
    if not xs:
        raise ValueError("concatenate: at least one tensor is needed")
    if any(isinstance(x, Tensor) for x in xs):
        xs = [as_tensor(x) for x in xs]
        widest = max((x.dtype for x in xs), key=("bool", "int", "float").index)
        xs = [cast(x, widest) for x in xs]
    return apply(_concatenate, *xs, axis=normal_axis("concatenate", axis, rank(xs[0])))


def stack(xs: Sequence[Any], axis: int = 0) -> Any:
    """Return tensors of one shape along a new axis."""
    return concatenate([expand_dims(x, axis) for x in xs], axis)


def pad(x: Any, pad_width: Any, constant_values: float = 0) -> Any:
    """Return x with constant values around it; `pad_width` as in numpy.pad: one number, one pair, or a pair an axis."""
    widths, wanted = array_of("pad: pad_width", pad_width), (rank(x), 2)
    if widths.dtype.kind not in "iu" or widths.shape not in ((), (1,), (2,), (1, 1), (1, 2), (wanted[0], 1), wanted):
        raise ValueError(f"pad: widths are an integer, a pair, or a pair for each of {rank(x)} axes; got {pad_width!r}")
    if isinstance(constant_values, str):
        raise ValueError(f"pad: constant_values must be a number, there are no other modes; got {constant_values!r}")
    pads = np.broadcast_to(widths, wanted)
    if pads.size and pads.min() < 0:
        raise ValueError(f"pad: widths must not be negative; got {pad_width!r}")
    return apply(_pad, x, pads=tuple((int(a), int(b)) for a, b in pads), value=float(constant_values))


def repeat(x: Any, repeats: int, axis: int) -> Any:
    """Return x with each slice along an axis of known length repeated, as numpy.repeat."""
    from rsref.ops.indexing import take

    length = x.shape[normal_axis("repeat", axis, rank(x))]
    if length is None:
        raise ValueError(f"repeat: axis {axis} of shape {x.shape} has an unknown length")
    return take(x, np.repeat(np.arange(length), repeats), axis)


def tile(x: Any, repeats: Sequence[int]) -> Any:
    """Return x repeated as a whole along each axis, as numpy.tile with one number an axis."""
    if len(repeats) != rank(x):
        raise ValueError(f"tile: one number an axis is needed for rank {rank(x)}; got {tuple(repeats)}")
    if any(n < 1 for n in repeats):
        raise ValueError(f"tile: numbers of repeats must be positive; got {tuple(repeats)}")
    for axis, n in enumerate(repeats):
        x = concatenate([x] * n, axis) if n != 1 else x
    return x
