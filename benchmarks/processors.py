"""How many processors' work two threads get done: virtual ones may share a core for a while, and all is slower."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

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
    other = threading.Thread(target=work[1])

    def run() -> None:
        other.start()
        work[0]()
        other.join()

    return _seconds(run)
