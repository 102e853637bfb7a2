"""Ops that pick values by place: slices, gather, one-hot, argmax; and their adjoints, which put values back."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rsref.ops.base import (
    Op,
    apply,
    concrete_attrs,
    integer,
    normal_axes,
    normal_axis,
    rank,
    register,
)
from rsref.ops.structure import expand_dims, reshape, squeeze
from rsref.tensor import Spec, Tensor, kind_of_dtype

Bounds = tuple[int | None, int | None, int]


class Slice(Op):
    """A slice (start, stop, step) of each axis, as Python slices."""

    name = "slice"

    def infer(self, x: Spec, *, bounds: tuple[Bounds, ...]) -> Spec:
        return Spec(tuple(_length(n, b) for n, b in zip(x.shape, bounds)), x.dtype)

    def forward(self, x: Any, *, bounds: tuple[Bounds, ...]) -> Any:
        return x[tuple(slice(*b) for b in bounds)]

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return apply(_put_slice, g, operands[0], bounds=attrs["bounds"])


_slice = register(Slice())


class PutSlice(Op):
    """Zeros in the shape of `like`, with x at a slice: the adjoint of `slice`."""

    name = "put_slice"
    constant_operands = (1,)

    def infer(self, x: Spec, like: Spec, *, bounds: tuple[Bounds, ...]) -> Spec:
        return Spec(like.shape, x.dtype)

    def forward(self, x: Any, like: Any, *, bounds: tuple[Bounds, ...]) -> Any:
        y = np.zeros(np.shape(like), np.asarray(x).dtype)
        y[tuple(slice(*b) for b in bounds)] = x
        return y

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return apply(_slice, g, bounds=attrs["bounds"])


_put_slice = register(PutSlice())


def _length(n: int | None, bounds: Bounds) -> int | None:
    if n is not None:
        return len(range(*slice(*bounds).indices(n)))
    return None  # as many as the unknown axis holds


class Take(Op):
    """The slices of x along an axis that an integer tensor names: a gather, or an embedding's lookup."""

    name = "take"

    def infer(self, x: Spec, indices: Spec, *, axis: int) -> Spec:
        if indices.dtype != "int":
            raise TypeError(f"take: indices must be integers; got {indices.dtype}")
        return Spec((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)

    def forward(self, x: Any, indices: Any, *, axis: int) -> Any:
        try:
            return np.take(x, indices, axis)
        except IndexError:
            size, given = np.shape(x)[axis], np.asarray(indices)
            wrong = given[(given < -size) | (given >= size)].flat[0]
            raise IndexError(f"take: index {wrong} is out of range for an axis of size {size}") from None

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return apply(_put_add, g, operands[1], operands[0], axis=attrs["axis"])


_take = register(Take())


class PutAdd(Op):
    """Zeros in the shape of `like`, with slices of x added at the places that indices name: the adjoint of `take`."""

    name = "put_add"
    constant_operands = (2,)

    def infer(self, x: Spec, indices: Spec, like: Spec, *, axis: int) -> Spec:
        return Spec(like.shape, x.dtype)

    def forward(self, x: Any, indices: Any, like: Any, *, axis: int) -> Any:
        y = np.zeros(np.shape(like), np.asarray(x).dtype)
        np.add.at(y, (slice(None),) * axis + (indices,), x)
        return y

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return apply(_take, g, operands[1], axis=attrs["axis"])


_put_add = register(PutAdd())


class OneHot(Op):
    """A new last axis that holds 1 at the place an integer names, 0 elsewhere (all 0 if it is out of range)."""

    name = "one_hot"

    def infer(self, indices: Spec, *, num_classes: int, dtype: str) -> Spec:
        if indices.dtype != "int":
            raise TypeError(f"one_hot: indices must be integers; got {indices.dtype}")
        return Spec((*indices.shape, num_classes), dtype)

    def forward(self, indices: Any, *, num_classes: int, dtype: Any) -> Any:
        return (np.asarray(indices)[..., None] == np.arange(num_classes)).astype(dtype)


_one_hot = register(OneHot())


class _ArgExtreme(Op):
    """The place of the first greatest or least value along an axis; no gradient."""

    constant_operands = (0,)

    def __init__(self, name: str, function: Any):
        self.name = name
        self.function = function

    def infer(self, x: Spec, *, axis: int) -> Spec:
        if x.shape[axis] == 0:
            raise ValueError(f"{self.name}: shape {x.shape} holds no values along axis {axis} to choose one from")
        return Spec((*x.shape[:axis], *x.shape[axis + 1 :]), "int")

    def forward(self, x: Any, *, axis: int) -> Any:
        return self.function(x, axis)


_argmax = register(_ArgExtreme("argmax", np.argmax))
_argmin = register(_ArgExtreme("argmin", np.argmin))


def get_item(x: Any, index: Any) -> Any:
    """Return `x[index]` for integers, slices, None, `...`, or one integer tensor or list (a gather)."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if sum(part is Ellipsis for part in parts) > 1:
        raise IndexError(f"at most one ... may stand in an index; got {index!r}")
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    if taken > rank(x):
        raise IndexError(f"index {index!r} names {taken} axes of a tensor of rank {rank(x)}")
    fill: list[Any] = [slice(None)] * (rank(x) - taken)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts[at : at + 1] = fill
    bounds: list[Bounds] = []
    dropped: list[int] = []
    new: list[int] = []
    gathers: list[tuple[int, Any]] = []
    for part in parts:
        axis = len(bounds)
        if part is None:
            new.append(axis - len(dropped) + len(new))
            continue
        if isinstance(part, slice):
            start, stop, step = (None if n is None else operator.index(n) for n in (part.start, part.stop, part.step))
            bounds.append((start, stop, 1 if step is None else step))
        elif isinstance(part, int | np.integer) and not isinstance(part, bool):
            _check_in_range(x.shape[axis], int(part), axis)
            bounds.append((int(part), int(part) + 1 if part != -1 else None, 1))
            dropped.append(axis)
        elif isinstance(part, Tensor | list | np.ndarray):
            gathers.append((axis, part))
            bounds.append((None, None, 1))
        else:
            raise TypeError(f"index {part!r} is not accepted: integers, slices, None, ... and one integer tensor are")
    if len(gathers) > 1 or (gathers and (dropped or new)):
        raise TypeError("one integer tensor may stand in an index, beside slices only; use take for more")
    if any(b != (None, None, 1) for b in bounds):
        x = apply(_slice, x, bounds=tuple(bounds))
    for axis, indices in gathers:
        x = take(x, indices, axis)
    x = squeeze(x, dropped) if dropped else x
    return expand_dims(x, new) if new else x


def _check_in_range(length: int | None, index: int, axis: int) -> None:
    if length is not None and not -length <= index < length:
        raise IndexError(f"index {index} is out of range for axis {axis} of length {length}")


def take_slice(x: Any, axis: int, start: int | None, stop: int | None, step: int = 1) -> Any:
    """Return a slice of one axis."""
    bounds: list[Bounds] = [(None, None, 1)] * rank(x)
    bounds[axis] = (start, stop, step)
    return apply(_slice, x, bounds=tuple(bounds))


def flip(x: Any, axis: int) -> Any:
    """Return x with one axis reversed."""
    return take_slice(x, normal_axis("flip", axis, rank(x)), None, None, -1)


def split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Return x cut along an axis into equal parts, or at the given places, as numpy.split."""
    axis = normal_axis("split", axis, rank(x))
    length = x.shape[axis]
    if not isinstance(indices_or_sections, Iterable):
        sections = integer("split: the number of parts", indices_or_sections)
        if length is None or sections < 1 or length % sections:
            raise ValueError(f"split: axis {axis} of shape {x.shape} cannot be cut into {sections} equal parts")
        places = [length // sections * i for i in range(1, sections)]
    else:
        places = [integer("split: a place", i) for i in indices_or_sections]
    cuts = [0, *places]
    ends: list[int | None] = [*places, None]
    return [take_slice(x, axis, start, stop) for start, stop in zip(cuts, ends)]


def unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Any]:
    """Return the slices along an axis of known length, without that axis."""
    axis = normal_axis("unstack", axis, rank(x))
    length = num if x.shape[axis] is None else x.shape[axis]
    if length is None:
        raise ValueError(f"unstack: axis {axis} of shape {x.shape} has an unknown length: give num")
    return [squeeze(take_slice(x, axis, i, i + 1), axis) for i in range(length)]


def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Return the slices of x along an axis that integer indices name; negative ones count from the end.

    axis: None for the values of x in one row, those of all samples too.
    """
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    axis = normal_axis("take", axis, rank(x))
    if not isinstance(indices, Tensor):
        indices = np.asarray(indices)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"take: indices must be integers; got {indices.dtype}")
    return apply(_take, x, indices, axis=axis)


def embedding(indices: Any, table: Any) -> Any:
    """Return the rows of a table (vocabulary, width) that integers name: shape (*indices.shape, width)."""
    return take(table, indices, 0)


def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: str = "float") -> Any:
    """Return a last axis that holds 1 at the place an integer names and 0 elsewhere; dtype as `cast` takes it."""
    if axis not in (-1, rank(x)):
        raise ValueError(f"one_hot: only the last axis is accepted for the classes; got axis={axis}")
    number = integer("one_hot: num_classes", num_classes)
    if number < 0:
        raise ValueError(f"one_hot: num_classes must not be negative; got {number}")
    if isinstance(x, Tensor):
        return apply(_one_hot, x, num_classes=number, dtype=kind_of_dtype(dtype))
    return apply(_one_hot, x, num_classes=number, **concrete_attrs({"dtype": dtype}, np.float64))


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Return the place of the first greatest value along an axis, or among all values, as numpy.argmax; no gradient."""
    return _place(_argmax, x, axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Return the place of the first least value along an axis, or among all values, as numpy.argmin; no gradient."""
    return _place(_argmin, x, axis, keepdims)


def _place(op: Op, x: Any, axis: int | None, keepdims: bool) -> Any:
    axes = normal_axes(op.name, axis, rank(x))
    y = apply(op, reshape(x, (-1,)), axis=0) if axis is None else apply(op, x, axis=axes[0])
    return expand_dims(y, axes) if keepdims and axes else y
