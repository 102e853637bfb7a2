"""What is found out once for a key, and remembered for so many of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Key = TypeVar("Key")
Found = TypeVar("Found")


def remembered(known: dict[Key, Found], key: Key, find: Callable[[], Found], most: int) -> Found:
    """Return what is known of a key, or find it out; of more than `most`, what was found first goes.

    Threads may call it at once: what two of them find for a key at the same time must be as good.
    """
    found = known.get(key)
    if found is None:
        found = find()
        for old in list(known)[: max(0, len(known) - most + 1)]:
            known.pop(old, None)
        known[key] = found
    return found
