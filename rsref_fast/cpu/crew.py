"""The crew: threads that run plans, started when they are first needed and parked when idle.

They are POSIX threads that compiled code starts itself (`crew_native`), so a call by Python and one by XLA are served
alike. A child process has none of its parent's threads, and starts its own.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from rsref_fast.cpu import cache as disk
from rsref_fast.cpu import objects
from rsref_fast.cpu.indices import refusal
from rsref_fast.cpu.machine import versions
from rsref_fast.cpu.memory import ADDRESS, ITEMS, address_of
from rsref_fast.cpu.plan import NUMBERS, Plan

KEPT = 23
"""The word of control that says whether teams are never replaced (`crew_native.chosen`)."""

Array = np.ndarray
Runner = Callable[[int, Any], int]
_control = np.zeros(32, np.int64)
_lock = threading.Lock()
_found: list[tuple[Runner, Runner]] = []


def run(plan: Plan, arrays: Sequence[Array]) -> None:
    """Run a plan on the arrays of a call. Errors: IndexError, RuntimeError."""
    held = tuple(arrays)
    status = runners()[1](plan.address, id(held) + ITEMS)
    if status:
        _answered(status)


class Repeated:
    """Runs a plan on the same arrays each time. kept: what must live as long as it does. where: the arrays' addresses.

    Errors: as `run`.
    """

    def __init__(self, plan: Plan, arrays: Sequence[Array], kept: Any):
        self.plan = plan
        self.where = (ctypes.c_int64 * len(arrays))(*map(address_of, arrays))
        self._kept = arrays, kept
        self._run, _ = runners()

    def __call__(self) -> None:
        status = self._run(self.plan.address, self.where)
        if status:
            _answered(status)


def _answered(status: int) -> None:
    """Raise what the answer of a run says (`crew_native.execute`), while its memory is still there."""
    if status > 0:
        raise refusal((ctypes.c_int64 * NUMBERS).from_address(status))
    if status < 0:
        raise RuntimeError("no more threads can be started")


def keep_teams(always: bool) -> None:
    """Say whether teams run even where other work takes so much of their time that one thread would be faster."""
    _control[KEPT] = always


def _in_child() -> None:
    """A thread that held the lock is not in a forked child."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_in_child)


def _runners() -> tuple[Runner, Runner]:
    from_numba = disk.fetch(disk.key_of("crew", versions()), "", _build)
    address = objects.load(*from_numba)
    control = _control.__array_interface__["data"][0]
    _control[17] = objects.c_entry(address, "i64 0, i64 %0, i64 0, i64 0")
    entry, of_objects = (
        objects.c_entry(address, f"i64 %0, i64 %1, i64 {control}, i64 {place}") for place in (0, ADDRESS)
    )
    objects.publish("rsref_crew", entry)
    forget = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(
        objects.c_entry(address, f"i64 0, i64 0, i64 {control}, i64 0")
    )
    forget(0, 0)
    os.register_at_fork(after_in_child=lambda: forget(0, 0))
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    return kind(entry), kind(of_objects)


def runners() -> tuple[Runner, Runner]:
    """Return two functions of a plan's address and its arrays: as their addresses, and as NumPy's objects.

    Python's lock is released while they run.
    """
    if not _found:
        with _lock:
            if not _found:
                _found.append(_runners())
    return _found[0]


def _build() -> tuple[bytes, str]:
    from rsref_fast.cpu import crew_native

    return crew_native.crew()


@cache
def xla_handler(api_minor: int) -> int:
    """Return the address of a C function that XLA calls: it finds the plan's address in the call's one attribute."""

    def build() -> tuple[bytes, str]:
        from rsref_fast.cpu import xla_native

        return xla_native.xla_handler(api_minor)

    runners()
    found = disk.fetch(disk.key_of("handler", api_minor, versions()), "", build)
    return objects.c_entry(objects.load(*found), "i64 %0")
