"""Memory for kernels: one piece for each shard, cut up by offsets, and used again by later calls; aligned answers."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np

Array = np.ndarray
BYTE = np.dtype(np.uint8)
ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""

HALF = 0xFFFFFFFF
"""The lower half of a word."""

KEPT, TURNS, OFTEN = 8, 256, 64
"""How many pieces wait to be used again, for how many that are taken after them, and how often that is looked at.

Fresh memory costs a page fault for every 4 KiB, more than the arithmetic.
"""

_turns = count(1)

SMALL = 4096
"""Bytes of an answer for which alignment gains less than it costs."""


def maker(shape: Sequence[int], dtype: np.dtype[Any], make: Callable[..., Array] = np.empty) -> Callable[[], Array]:
    """Return a function of new arrays that begin on a cache line: no vector that is stored there crosses one.

    make: of a shape and dtype; `np.empty` or `np.zeros`.
    """
    size = math.prod(shape) * dtype.itemsize
    return partial(make, shape, dtype) if size < SMALL else partial(_aligned, shape, dtype, size + ALIGNMENT, make)


def _aligned(shape: Sequence[int], dtype: np.dtype[Any], size: int, make: Callable[..., Array]) -> Array:
    whole = make(size, BYTE)
    return np.ndarray(shape, dtype, whole, -address_of(whole) % ALIGNMENT)


class _Lent(weakref.ref):  # type: ignore[type-arg]
    """What gives memory back when its arena goes: without a line of Python, in which an interrupt would be lost.

    turn: the one in which it was first seen waiting; 0 before.
    """

    __slots__ = ("bytes", "turn")
    bytes: Array
    turn: int


_waiting: deque[_Lent] = deque(maxlen=KEPT)
"""Those that were given back last are last."""


class Arena:
    """Some bytes, aligned; given back for later calls when nothing holds the object any more.

    bytes: at least as many as were asked for.
    """

    __slots__ = ("__weakref__", "_lent", "bytes")

    def __init__(self, size: int):
        self.bytes = _taken(size)
        self._lent = lent = _Lent(self, _waiting.append)
        lent.bytes, lent.turn = self.bytes, 0

    def __deepcopy__(self, _memo: Any) -> Arena:
        copied = Arena(self.bytes.size)
        copied.bytes[: self.bytes.size] = self.bytes
        return copied


def borrowed(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[Arena, Array]:
    """Return an array, not filled, in memory that is given back when its arena goes."""
    size = math.prod(shape) * dtype.itemsize
    arena = Arena(size)
    return arena, arena.bytes[:size].view(dtype).reshape(shape)


def _taken(size: int) -> Array:
    """Return waiting memory that is large enough, and not far too large, or new one."""
    turn, best = next(_turns), None
    if turn % OFTEN == 0:
        _age(turn)
    for lent in reversed(list(_waiting)):
        found = lent.bytes.size
        if size <= found <= 2 * size + 65536 and (best is None or found < best.bytes.size):
            best = lent
            if found == size:
                break
    if best is not None and _dropped(best):
        return best.bytes
    whole = np.empty(size + ALIGNMENT, np.uint8)
    start = -address_of(whole) % ALIGNMENT
    return whole[start : start + size]


def _age(turn: int) -> None:
    """Let memory go that was seen to wait so many turns ago."""
    for lent in list(_waiting):
        if not lent.turn:
            lent.turn = turn
        elif lent.turn <= turn - TURNS:
            _dropped(lent)


def _dropped(lent: _Lent) -> bool:
    """Let memory wait no longer; whether it did: another thread may have been faster."""
    try:
        _waiting.remove(lent)
    except ValueError:
        return False
    return True


def seen(array: Array, kind: str) -> Array:
    """Return an array of kernels, whose bools are bytes, as callers have it."""
    return array.view(bool) if kind == "bool" else array


def address_of(array: Array) -> int:
    """Return where the first element of an array is."""
    return _word_at(id(array) + ADDRESS).value


def behind_address(array: Array) -> list[int]:
    """Return what NumPy keeps behind an array's address, of PyArrayObject_fields (ndarraytypes.h).

    The number of axes, the address of their lengths, that of strides, base, that of the dtype, flags; the first and the
    last are half words, whose other half may hold anything. Errors: RuntimeError if this NumPy keeps something else.
    """
    first, *middle, last = (_word_at(id(array) + ADDRESS + 8 * i).value for i in range(1, 7))
    found = [first & HALF, *middle, last & HALF]
    lengths = [_word_at(found[1] + 8 * i).value for i in range(array.ndim)]
    if [found[0], lengths, found[4], found[5] & 1] != [
        array.ndim, list(array.shape), id(array.dtype), array.flags.c_contiguous
    ]:  # fmt: skip
        raise RuntimeError("this NumPy keeps something else behind an array's address")
    return found


def _place_of_address() -> int:
    """Return where in an array's object NumPy keeps the address of its data: found by looking for it.

    Asking for it would take, for all arrays of a small call, longer than its arithmetic.
    """
    probes = np.zeros(3), np.zeros(5, np.int8)[1:]
    for place in range(8, 128, 8):
        if all(_word_at(id(a) + place).value == a.__array_interface__["data"][0] for a in probes):
            return place
    raise RuntimeError("this NumPy does not keep an array's address in its object")


def _place_of_items() -> int:
    """Return where in a tuple Python keeps the addresses of its items: as above, compiled code reads them there."""
    probes = (object(), object()), (object(),)
    place = tuple.__basicsize__
    if all(_word_at(id(t) + place + 8 * i).value == id(item) for t in probes for i, item in enumerate(t)):
        return place
    raise RuntimeError("this Python does not keep a tuple's items in its object")


_word_at = ctypes.c_int64.from_address
ADDRESS, ITEMS = _place_of_address(), _place_of_items()
"""Bytes from an array's object to the address of its data, and from a tuple's to those of its items."""


@dataclass(frozen=True)
class Frame:
    """How an arena is cut up: for each name its offset in bytes, its length and its dtype."""

    names: tuple[str, ...]
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    dtypes: tuple[np.dtype[Any], ...]
    total: int


def frame(parts: Iterable[tuple[str, int, np.dtype[Any]]]) -> Frame:
    """Return a frame for parts (name, number of elements, dtype)."""
    parts = list(parts)
    offsets, total = [], 0
    for _, length, dtype in parts:
        offsets.append(total)
        total += -(-length * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    names, lengths, dtypes = (tuple(column) for column in zip(*parts)) if parts else ((), (), ())
    return Frame(names, tuple(offsets), lengths, dtypes, total)


def lie_time_first(sequences: Sequence[Array]) -> bool:
    """Whether all sequences (batch, time, ...) lie in memory as (time, batch, ...), and not as they are."""
    if all(a.flags.c_contiguous for a in sequences):
        return False
    return all(swapped(a).flags.c_contiguous for a in sequences)


def swapped(values: Array) -> Array:
    """Return a view of what is (batch, time, ...) as (time, batch, ...), and the other way round."""
    return values.swapaxes(0, 1)
