"""What a trace of a step depends on beside the drawing: which variables its layers have, and their attributes.

Every call looks at them, so that what is set anew, such as an activation or a temperature, counts from then on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from operator import is_not
from typing import Any

import keras

VARIABLES = ("_trainable", "_trainable_variables", "_non_trainable_variables")
"""Attributes that say which variables a layer has now: the public properties take ten times as long."""


class Watched:
    """The layers of a step, as they were when they were last looked at.

    What is set counts, among an attribute's lists and dicts, too; not what changes within arrays and other objects.
    """

    def __init__(self, layers: list[Any]):
        known = [_bookkeeping(isinstance(one, keras.Model)) for one in layers]
        self.layers = [
            (one, [*VARIABLES, *(name for name in vars(one) if name not in own)]) for one, own in zip(layers, known)
        ]
        self._look()

    def changed(self) -> bool:
        """Whether anything was set since the last time that this was asked."""
        before, now = self._seen, self._now()
        if len(now) == len(before) and not any(map(is_not, now, before)):
            return False
        self._look()
        return len(now) != len(before) or any(a is not b and not _equal(a, b) for a, b in zip(now, before))

    @contextlib.contextmanager
    def own_changes(self) -> Iterator[None]:
        """Let attributes that are set within, by calls of the layers themselves, be watched no more."""
        before = [_contents(layer, names) for layer, names in self.layers]
        try:
            yield
        finally:
            for (layer, names), old in zip(self.layers, before):
                now = _contents(layer, names)
                names[:] = [name for name in names if name in VARIABLES or _same(old[name], now[name])]
            self._look()

    def _look(self) -> None:
        values = [vars(layer).get(name) for layer, names in self.layers for name in names]
        self._lists = [value for value in values if isinstance(value, list)]
        self._dicts = [value for value in values if isinstance(value, dict)]
        self._seen = self._now()

    def _now(self) -> list[Any]:
        """Return all values that are watched: at every call, so no more is done about each than must be."""
        now: list[Any] = []
        for layer, names in self.layers:
            now += map(vars(layer).get, names)
        for values in self._lists:
            now += values
        for one in self._dicts:
            now += one.values()
        return now


@cache
def _bookkeeping(model: bool) -> frozenset[str]:
    """Return the attributes that every layer, or every functional model too, has for Keras and the backend."""
    own = frozenset(vars(keras.layers.Layer(name="any")))
    if not model:
        return own
    x = keras.Input((1,), name="any")
    return own.union(vars(keras.Model(x, x, name="any")))


def _contents(layer: Any, names: list[str]) -> dict[str, list[Any]]:
    """Return for each attribute its value, and what is in it."""
    found = {}
    for name in names:
        value = vars(layer).get(name)
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        found[name] = [value, *parts]
    return found


def _same(old: list[Any], new: list[Any]) -> bool:
    return len(old) == len(new) and not any(map(is_not, old, new))


def _equal(a: Any, b: Any) -> bool:
    """Whether a number that was set anew is the one that was there."""
    return type(a) is type(b) and isinstance(a, bool | int | float | str) and a == b
