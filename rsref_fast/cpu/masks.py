"""Which rows of a batch a mask leaves, and what masked steps show: by compiled code (`masks_native`), in microseconds.

A masked step leaves its row as it is: a row's valid steps, one after the other, are a shorter sequence. Rows are
sorted by their number of valid steps; at step k those that have more than k of them take part, always the first ones.
So kernels see dense rows only, and padding costs nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from rsref_fast.cpu import cache as disk
from rsref_fast.cpu import objects
from rsref_fast.cpu.machine import versions
from rsref_fast.cpu.memory import address_of

Array = np.ndarray
SIZES = 8
"""Into how many sizes masks are sorted, by the steps and by the rows that they leave."""

SIGNS = {"float32": 0x7FFFFFFF_7FFFFFFF, "float64": 0x7FFFFFFF_FFFFFFFF}
"""The bits of a word of floats that are not their signs: -0.0 is nothing, too."""

TASKS = ("rows", "repeats", "repeat", "nothing")


@dataclass(frozen=True)
class Packed:
    """A mask as kernels read it, in tables that are a little longer than need be: one plan serves many masks.

    order: the samples as the shards have them; of a sorted batch every so many-th one. cut_end: of each of these,
    whether its gradient is cut after its last step. words: off, pos and rid of each shard. cuts: cut of each (see
    `Shard`). steps, rows: for how many of these a shard has room at most.
    """

    order: Array
    cut_end: Array
    words: Array
    cuts: Array
    steps: int
    rows: int


@dataclass(frozen=True)
class Held:
    """The places of masked steps that repeat a valid one, and of that, among all steps of all samples."""

    masked: Array
    shown: Array


def packed(mask: Array, shards: int, truncate: int | None, stretch: tuple[int, int] | None = None) -> Packed:
    """Return what a mask (batch, time) says, for some shards.

    truncate: every how many steps gradients are cut. stretch: the steps that are computed, if not all.
    """
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
    """Return what masked steps repeat."""
    masked, shown = np.empty((2, mask.size), np.int64)
    count = _run("repeats", np.ascontiguousarray(mask), *mask.shape, masked, shown, 0)[5]
    return Held(masked[:count], shown[:count])


def hold(values: Array, held: Held) -> None:
    """Repeat in outputs (batch, time, ...) the last valid one at masked steps, if there was one."""
    _run("repeat", values, _bytes_of_a_step(values), len(held.masked), held.masked, held.shown)


def gathered_back(d: Array, held: Held) -> Array:
    """Return the gradient of `hold` at valid steps: their own and that of the masked ones that repeat them."""
    d = np.ascontiguousarray(d)
    counts = SIGNS.get(d.dtype.name, -1)
    if _run("nothing", d, _bytes_of_a_step(d), len(held.masked), held.masked, held.shown, 0, counts, 0)[5]:
        return d  # as a loss leaves it that has the same mask
    total = d.reshape(d.shape[0] * d.shape[1], -1).copy()
    own = total[held.masked]
    first = np.flatnonzero(np.diff(held.shown, prepend=-1))
    total[held.shown[first]] += np.add.reduceat(own, first, axis=0)
    return total.reshape(d.shape)


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
