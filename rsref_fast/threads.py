"""How many threads compute."""

from __future__ import annotations

import os

import numpy as np

_number: int | None = None


def set_num_threads(number: int | None) -> None:
    """Let engines that were not given a number of their own use so many threads; None for one a processor.

    Errors: ValueError for a number below 1.
    """
    global _number
    if number is not None and (not isinstance(number, int | np.integer) or isinstance(number, bool) or number < 1):
        raise ValueError(f"the number of threads must be a positive integer or None; got {number!r}")
    _number = None if number is None else int(number)


def get_num_threads() -> int:
    """Return how many threads engines use that were not given a number of their own."""
    if _number is not None:
        return _number
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
