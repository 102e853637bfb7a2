"""Room for Python's frames where calls are deep, as in Numba: CPython takes it in pieces of 16 KiB from the system.

A loop whose calls cross from one piece into the next maps and unmaps memory with every call, which can take half of the
time of compiling. Whether that happens depends on how deep the caller is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

ROOM = 140_000
"""Words that a frame asks for: its piece is the next power of two, and the frames of what it calls have the rest."""


def roomy(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that has room for many frames. Nothing of it is touched, so it costs nothing."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    own: Any = call
    own.__code__ = own.__code__.replace(co_stacksize=ROOM)
    return call
