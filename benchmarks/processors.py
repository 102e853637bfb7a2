"""How many processors' work two threads get done: virtual ones may share a core for a while, and all is slower."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

ENOUGH = 1.7
"""Processors below which no turn begins, if that can be helped."""

PATIENCE = 2.0
"""Seconds to wait for them."""


def processors() -> float:
    """Return how much more two threads compute than one does, at its best in a few tries: 2 if each has a core."""
    work = [_Work() for _ in range(2)]
    return max(2 * _seconds(work[0]) / _both(work) for _ in range(4))


def when_there_are() -> float:
    """Wait, but not for ever, until two threads have a core each; answer how many they have."""
    start = time.perf_counter()
    while (found := processors()) < ENOUGH and time.perf_counter() - start < PATIENCE:
        time.sleep(0.5)
    return found


class _Work:
    def __init__(self) -> None:
        self.x = np.linspace(-2, 2, 2**14, dtype=np.float32)
        self.y = np.empty_like(self.x)

    def __call__(self) -> None:
        for _ in range(400):
            np.exp(self.x, out=self.y)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _both(work: list[_Work]) -> float:
    """Return the seconds of two threads from when both are there, each on a processor of its own if that can be."""
    every = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    places = [{every[0]}, {every[-1]}] if every else [set(), set()]
    ready, seconds = threading.Barrier(2), [0.0, 0.0]

    def run(i: int) -> None:
        with _kept_on(places[i]):  # threads begin on the same one
            ready.wait()
            seconds[i] = _seconds(work[i])

    other = threading.Thread(target=run, args=(1,))
    other.start()
    run(0)
    other.join()
    return max(seconds)


@contextlib.contextmanager
def _kept_on(place: set[int]) -> Iterator[None]:
    """Keep this thread on some processors; none means any."""
    if not place:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, place)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
