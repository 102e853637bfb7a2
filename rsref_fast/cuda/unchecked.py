"""Calls in which an index may be out of range: their words are kept until somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rsref_fast.cpu.indices import refusal
from rsref_fast.cuda.script import Script
from rsref_fast.cuda.words import ERROR, NUMBERS

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
        """Wait for the calls, and see whether all indices were in range. Errors: IndexError.

        It tells of one call; of those after it the next check does.
        """
        while self._calls:
            head, flags, stream = self._calls.pop(0)
            words = np.empty(max(flags) - ERROR + NUMBERS, np.int64)
            device.download(words, head.address, stream)
            for flag in flags:
                if words[flag]:
                    raise refusal(words[flag - ERROR :])
