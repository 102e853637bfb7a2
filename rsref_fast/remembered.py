"""What is found out once for a key, and remembered for so many of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Key = TypeVar("Key")
Found = TypeVar("Found")


def remembered(known: dict[Key, Found], key: Key, find: Callable[[], Found], most: int) -> Found:
    """Return what is known of a key, or find it out; of more than `most`, what was found first goes."""
    if key not in known:
        while len(known) >= most:
            known.pop(next(iter(known)))
        known[key] = find()
    return known[key]
