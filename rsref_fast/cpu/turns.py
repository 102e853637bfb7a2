"""Threads of which one runs at a time, until all have met: whoever relies on another's haste is found out.

Between two meetings the ranks run one after the other, now from the first to the last, now the other way round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_own = threading.local()


class Turns:
    """Runs a function for each rank; see `meet`."""

    def __init__(self, threads: int):
        self.threads = threads
        self.changed = threading.Condition()
        self.ready = set(range(threads))
        self.current = threads - 1
        self.arrived: dict[int, set[int]] = {}
        self.meetings = 0
        self.error: BaseException | None = None

    def run(self, member: Callable[[int], Any]) -> None:
        """Call the function for all ranks; what one of them raises is raised here."""
        if self.threads == 1:
            _own.turns = None
            member(0)
            return
        threads = [threading.Thread(target=self._one, args=(member, rank)) for rank in range(self.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.error is not None:
            raise self.error

    def _one(self, member: Callable[[int], Any], rank: int) -> None:
        _own.turns, _own.rank = self, rank
        with self.changed:
            self._wait(rank)
        try:
            if self.error is None:
                member(rank)
        except BaseException as error:
            self.error = self.error or error
        with self.changed:
            self.ready.discard(rank)
            self._next()

    def meet(self, group: int, size: int, rank: int) -> None:
        with self.changed:
            here = self.arrived.setdefault(group, set())
            here.add(rank)
            self.ready.discard(rank)
            if len(here) == size:
                self.ready |= here
                here.clear()
                self.meetings += 1
            self._next()
            self._wait(rank)

    def _next(self) -> None:
        if self.ready:
            self.current = (min if self.meetings % 2 else max)(self.ready)
        elif self.error is not None:  # the others wait for one that has failed
            self.current = -1
        self.changed.notify_all()

    def _wait(self, rank: int) -> None:
        while self.current != rank:
            if self.current == -1:
                raise RuntimeError("another thread of the team failed")
            self.changed.wait()


def meet(group: int, size: int) -> None:
    """Wait until as many threads as the team has are here. Without `Turns.run` around it there is one only."""
    if size > 1:
        _own.turns.meet(group, size, _own.rank)
