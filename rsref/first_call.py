"""Whoever calls a layer first draws its step, with its weights: others that call it too wait for that."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_drawing = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Let no other thread draw a step meanwhile; a step may be drawn within another one's."""
    with _drawing:
        yield


def _in_child() -> None:
    """A thread that held the lock is not in a forked child."""
    global _drawing
    _drawing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
