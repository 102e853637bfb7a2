"""What `masks_plain` says of a mask, by compiled code (`masks_native`), in microseconds."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

from rsref_fast.cpu import cache as disk
from rsref_fast.cpu import objects
from rsref_fast.cpu.machine import versions
from rsref_fast.cpu.masks_plain import Held, Packed
from rsref_fast.cpu.memory import address_of

Array = np.ndarray
SIGNS = {"float32": 0x7FFFFFFF_7FFFFFFF, "float64": 0x7FFFFFFF_FFFFFFFF}
"""The bits of a word of floats that are not their signs: -0.0 is nothing, too."""

TASKS = ("rows", "repeats", "repeat", "nothing")


def packed(mask: Array, shards: int, truncate: int | None, stretch: tuple[int, int] | None = None) -> Packed:
    """As in `masks_plain`."""
    batch, time = mask.shape
    begin, end = stretch or (0, time)
    mask, span = np.ascontiguousarray(mask), end - begin
    order, ends = np.empty(batch, np.int64), np.empty(batch, bool)
    words, cuts = np.zeros(shards * (span + 1) + 2 * batch * span, np.int64), np.zeros(batch * span, np.uint8)
    room = np.empty(2 * batch + span + 2, np.int64)
    answers = _run(
        "rows", mask, batch, time, begin, end, shards, truncate or 0, order, words, cuts, ends, room, 0, 0
    )  # fmt: skip
    return Packed(order, ends, words, cuts, int(answers[12]), int(answers[13]))


def held_by(mask: Array) -> Held:
    """As in `masks_plain`."""
    masked, shown = np.empty((2, mask.size), np.int64)
    count = _run("repeats", np.ascontiguousarray(mask), *mask.shape, masked, shown, 0)[5]
    return Held(masked[:count], shown[:count])


def hold(values: Array, held: Held) -> None:
    """As in `masks_plain`."""
    _run("repeat", values, _bytes_of_a_step(values), len(held.masked), held.masked, held.shown)


def nothing(d: Array, held: Held) -> bool:
    """As in `masks_plain`."""
    d = np.ascontiguousarray(d)
    counts = SIGNS.get(d.dtype.name, -1)
    answers = _run("nothing", d, _bytes_of_a_step(d), len(held.masked), held.masked, held.shown, 0, counts, 0)
    return bool(answers[5])


def _bytes_of_a_step(values: Array) -> int:
    return values.nbytes // max(1, values.shape[0] * values.shape[1])


def _run(task: str, *desk: Array | int) -> Array:
    """Do something with arrays and numbers, and return them as words, as it leaves them."""
    words = np.array([address_of(x) if isinstance(x, np.ndarray) else x for x in desk], np.int64)
    _entry()(TASKS.index(task), address_of(words))
    return words


@cache
def _entry() -> Callable[[int, int], int]:
    def build() -> tuple[bytes, str]:
        from rsref_fast.cpu import masks_native

        return masks_native.masks()

    found = disk.fetch(disk.key_of("masks", versions()), "", build)
    address = objects.c_entry(objects.load(*found), "i64 %0, i64 %1")
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address)
