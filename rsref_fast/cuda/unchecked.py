"""Calls in which an index may be out of range: their words are kept until somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rsref_fast.cuda.script import Script

if TYPE_CHECKING:
    from rsref_fast.cuda.driver import Device

REMEMBERED = 16
"""Calls whose indices may still be checked."""


class Unchecked:
    """The last calls of an engine."""

    def __init__(self) -> None:
        self._calls: list[tuple[Any, list[int], int]] = []

    def remember(self, head: Any, script: Script, stream: int) -> None:
        """Keep the words of a call. head: their memory."""
        if script.flags:
            self._calls.append((head, script.flags, stream))
            del self._calls[:-REMEMBERED]

    def check(self, device: Device) -> None:
        """Wait for the calls, and see whether all indices were in range. Errors: IndexError."""
        calls = self._calls[:]
        self._calls.clear()
        for head, flags, stream in calls:
            words = np.empty(max(flags) + 1, np.int64)
            device.download(words, head.address, stream)
            if words[flags].any():
                raise IndexError("take: an index is out of range")
