"""Launches recorded once for a set of sizes, and then run again and again: a CUDA graph.

A graph's kernels read their words at an address that never changes; each call writes its own words there first, in the
stream's order. So a graph belongs to a stream.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rsref_fast.cpu.plan import Plan
    from rsref_fast.cuda.driver import Device
    from rsref_fast.cuda.script import Loaded

Call = tuple["Loaded", int, int, int]
"""A kernel, how many blocks, and its two numbers."""

KEPT = 32


class Graph:
    """The launches of one program for some sizes, on one stream. tables, numbers: words of P and of N."""

    def __init__(self, device: Device, calls: Iterable[Call], plan: Plan, tables: int, numbers: int, stream: int):
        self.device = device
        self.plan = plan
        self.memory = device.allocate(8 * (tables + numbers), stream)
        self.tables = tables
        places = self.memory.address, self.memory.address + 8 * tables, tables, self.memory.address

        def launch(own: int) -> None:
            for kernel, blocks, a, b in calls:
                device.launch(kernel.handle, blocks, kernel.threads, (*places, a, b), own, False)

        self.handle = device.record(launch)
        weakref.finalize(self, device.give_back, "cuGraphExecDestroy", self.handle)

    def run(self, words: np.ndarray, stream: int) -> None:
        self.device.upload(self.memory.address, words, stream)
        self.device.replay(self.handle, stream)

    def numbers(self) -> int:
        """Return the address of N."""
        return int(self.memory.address) + 8 * self.tables


class Graphs:
    """Graphs by what they belong to; those that were made first go first."""

    def __init__(self) -> None:
        self._made: dict[Any, Graph] = {}

    def get(self, key: Any, make: Callable[[], Graph]) -> Graph:
        if key not in self._made:
            while len(self._made) >= KEPT:
                self._made.pop(next(iter(self._made)))
            self._made[key] = make()
        return self._made[key]
