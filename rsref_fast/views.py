"""Where tensors lie in memory: buffers, and views of them by strides, so that moving values costs nothing.

Slices, transposes, broadcasts, most reshapes and windows are views: whoever reads them computes the place from the
strides. Buffers are row-major with the batch first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from rsref.tensor import Tensor
from rsref_fast.lengths import ROWS, Length, Varying, number, per_row, plus, times

Shape = tuple[Length, ...]


class Space(Enum):
    """How many rows a buffer has, and which of them a step sees."""

    FIXED = "no rows: parameters, what depends on them alone, sums over all samples"
    ROW = "one row a sample: constants and what depends on them alone"
    STEP = "the rows of one step, overwritten by the next"
    BLOCK = "the rows of a block of steps"
    PACKED = "the rows of all steps if backward will read them, else of a block"
    PREVIOUS = "a state before the step"
    CURRENT = "a state after the step"
    FLOW_IN = "the gradient of a state after the step"
    FLOW_OUT = "the gradient of a state before the step"


@dataclass(frozen=True, eq=False)
class Buffer:
    """A piece of memory. name: unique in a program; kind: "float", "int" or "bool"; shape: for `n` rows.

    memory: the name under which the caller hands it over, where several buffers share it.
    """

    name: str
    kind: str
    space: Space
    shape: Shape
    memory: str = ""

    @property
    def size(self) -> Length:
        return times(1, *self.shape)

    @property
    def width(self) -> int:
        """Elements a row; of a buffer without rows, all."""
        size = self.size
        if not isinstance(size, Varying):
            return size
        width = per_row(size)
        if width is None:
            raise NotImplementedError(f"a tensor of shape {self.shape} does not hold as much for every sample")
        return width


@dataclass(frozen=True)
class View:
    """Elements of a buffer: their shape, the offset of the first and the stride of each axis, in elements."""

    buffer: Buffer
    shape: Shape
    strides: Shape
    offset: Length = 0

    @property
    def contiguous(self) -> bool:
        return self.offset == 0 and _same_place(self.shape, self.strides, row_major(self.shape))

    @property
    def covers(self) -> bool:
        """Whether these are all elements of the buffer, in their order."""
        return self.contiguous and times(1, *self.shape) == self.buffer.size

    def counts(self, axis: int, length: int) -> bool:
        """Whether an element's index along an axis is its place in the memory, both modulo a length."""
        size = self.buffer.size
        steps = [self.offset, per_row(size) if isinstance(size, Varying) else length]
        steps += [s for i, (n, s) in enumerate(zip(self.shape, self.strides)) if n != 1 and i != axis % len(self.shape)]
        return (
            bool(length)
            and self.strides[axis] == 1
            and all(isinstance(step, int) and step % length == 0 for step in steps)
        )


def whole(buffer: Buffer) -> View:
    return View(buffer, buffer.shape, row_major(buffer.shape))


def row_major(shape: Shape) -> Shape:
    strides: list[Length] = []
    stride: Length = 1
    for length in reversed(shape):
        strides.append(stride)
        stride = times(stride, length)
    return tuple(reversed(strides))


def _same_place(shape: Shape, first: Shape, second: Shape) -> bool:
    return all(n == 1 or a == b for n, a, b in zip(shape, first, second))


def view_of_op(tensor: Tensor, source: View, shape: Shape) -> View | None:
    """Return an op's result as a view of its first operand, or None if its values must be moved.

    shape: the result's.
    """
    rule = RULES.get(tensor.op_name)
    return None if rule is None else rule(tensor, source, shape)


def _same(tensor: Tensor, source: View, shape: Shape) -> View:
    return source


def _summed(tensor: Tensor, source: View, shape: Shape) -> View | None:
    return source if shape == source.shape else None


def _transpose(tensor: Tensor, source: View, shape: Shape) -> View:
    return replace(source, shape=shape, strides=tuple(source.strides[a] for a in tensor.attrs["axes"]))


def _expand_dims(tensor: Tensor, source: View, shape: Shape) -> View:
    strides = iter(source.strides)
    return replace(
        source, shape=shape, strides=tuple(0 if i in tensor.attrs["axes"] else next(strides) for i in range(len(shape)))
    )


def _squeeze(tensor: Tensor, source: View, shape: Shape) -> View:
    kept = tuple(s for i, s in enumerate(source.strides) if i not in tensor.attrs["axes"])
    return replace(source, shape=shape, strides=kept)


def _broadcast(tensor: Tensor, source: View, shape: Shape) -> View:
    extra = len(shape) - len(source.shape)
    strides = tuple(s if n == m else 0 for n, m, s in zip(source.shape, shape[extra:], source.strides))
    return replace(source, shape=shape, strides=(0,) * extra + strides)


def _slice(tensor: Tensor, source: View, shape: Shape) -> View:
    return sliced(source, tensor.attrs["bounds"], shape)


def sliced(source: View, bounds: Sequence[Any], shape: Shape) -> View:
    """Return the part of a view that slices (start, stop, step) of its axes name; none cuts the batch (`numbered`)."""
    offset, strides = source.offset, []
    for (start, stop, step), length, stride in zip(bounds, source.shape, source.strides):
        if (start, stop, step) != (None, None, 1):
            first, _, step = slice(start, stop, step).indices(number(length))
            offset, stride = plus(offset, times(first, stride)), times(step, stride)
        strides.append(stride)
    return replace(source, shape=shape, strides=tuple(strides), offset=offset)


def _reshape(tensor: Tensor, source: View, shape: Shape) -> View | None:
    if any(isinstance(s, Varying) for s in source.strides):
        return None
    if replace(source, offset=0).contiguous:
        return replace(source, shape=shape, strides=row_major(shape)) if _static(row_major(shape)) else None
    found = {_moved(source, shape, place) for place in range(len(ROWS))}
    strides = found.pop()
    return None if strides is None or found else replace(source, shape=shape, strides=strides)


def _moved(source: View, shape: Shape, place: int) -> tuple[int, ...] | None:
    """Return the strides of a view in another shape for one of the numbers of rows in `ROWS`, None if there are none.

    They hold for all only if they are the same for each: for one number, a batch may be as long as another axis.
    """
    before, after = (
        tuple(n.values[place] if isinstance(n, Varying) else n for n in lengths) for lengths in (source.shape, shape)
    )
    if 0 in before:
        return None
    dummy = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), before, source.strides)  # type: ignore[arg-type]
    try:
        moved = np.reshape(dummy, after, copy=False)
    except ValueError:
        return None
    return tuple(0 if n == 1 else int(s) for n, s in zip(after, moved.strides))


def _static(strides: Shape) -> bool:
    return not any(isinstance(s, Varying) for s in strides)


def _windows(tensor: Tensor, source: View, shape: Shape) -> View:
    steps, dilation = tensor.attrs["strides"], tensor.attrs["dilation"]
    first, *spatial, last = source.strides
    moved = (times(s, step) for s, step in zip(spatial, steps))
    inside = (times(s, d) for s, d in zip(spatial, dilation))
    return replace(source, shape=shape, strides=(first, *moved, *inside, last))


RULES = {
    "stop_gradient": _same,
    "sum_to_like": _summed,
    "transpose": _transpose,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "broadcast_to": _broadcast,
    "broadcast_like": _broadcast,
    "slice": _slice,
    "reshape": _reshape,
    "reshape_like": _reshape,
    "windows": _windows,
}


RESHAPES = ("reshape", "reshape_like")
"""Ops whose result is the operand in row-major order: where no view shows it so, it is written so, without gaps."""


def rows_first(shape: Shape) -> bool:
    """Whether a buffer of this shape holds the samples one after the other."""
    return (
        bool(shape)
        and isinstance(shape[0], Varying)
        and per_row(shape[0]) is not None
        and not any(isinstance(n, Varying) for n in shape[1:])
    )
