"""How many threads compute, and the threads themselves: parked when idle, made anew after a fork."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_number: int | None = None
_pool: ThreadPoolExecutor | None = None
_size = 0


def set_num_threads(number: int | None) -> None:
    """Let engines that were not given a number of their own use so many threads; None for one a processor.

    Errors: ValueError for a number below 1.
    """
    global _number
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
        raise ValueError(f"the number of threads must be a positive integer or None; got {number!r}")
    _number = number


def get_num_threads() -> int:
    """Return how many threads engines use that were not given a number of their own."""
    return (
        _number or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _number or os.cpu_count() or 1
    )


def run_all(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Call a function once for each tuple of arguments, at the same time; the first in the caller's own thread."""
    jobs = [_threads(len(arguments) - 1).submit(function, *a) for a in arguments[1:]]
    try:
        function(*arguments[0])
    finally:
        for job in jobs:
            job.result()


def _threads(number: int) -> ThreadPoolExecutor:
    global _pool, _size
    if _pool is None or _size < number:
        _pool, _size = ThreadPoolExecutor(max(number, get_num_threads()), "rsref_fast"), max(number, get_num_threads())
    return _pool


def _forget() -> None:
    global _pool
    _pool = None  # a child process has the object, but not its threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
