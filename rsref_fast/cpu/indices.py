"""Indices out of range: where a program says so in the numbers of its thread, and the sentence about it."""

from __future__ import annotations

from typing import Any

REFUSED, INDEX, LENGTH = 3, 10, 11
"""Words of N: whether an index was out of range, the first such one, and how long the axis is that it names."""

SENTENCE = "take: index %ld is out of range for an axis of size %ld"
"""As C and Python fill it in."""


SAID = f"N[{REFUSED}] = 1"
"""The line of a program that says so."""


def refusal(numbers: Any) -> IndexError:
    """Return the error that a thread's numbers tell of."""
    return IndexError(SENTENCE % (numbers[INDEX], numbers[LENGTH]))
