"""Attributes of Keras's own modules and classes, replaced for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

ABSENT = object()
"""Stands for an attribute that there is not."""


@contextlib.contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Let a module or a class have other attributes than its own, or none: ABSENT."""
    kept = {name: vars(owner).get(name, ABSENT) for name in attributes}
    _put(owner, attributes)
    try:
        yield
    finally:
        _put(owner, kept)


def _put(owner: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        if value is not ABSENT:
            setattr(owner, name, value)
        elif name in vars(owner):
            delattr(owner, name)
