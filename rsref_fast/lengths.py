"""Lengths of axes and strides of memory that are numbers, or grow with the number of rows `n` that a kernel is given.

All inner lengths are known when a step is compiled; the number of samples is not. A length that depends on it carries
its text, for the source, and its values for a few numbers of rows, by which lengths are compared and sizes found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

ROWS = (5, 7, 11, 13)
"""Numbers of rows for which a length is worked out; primes, so that different formulas give different values."""


@dataclass(frozen=True)
class Varying:
    """A length that grows with the rows. Equal if the values are; the text says how to compute it."""

    values: tuple[int, ...]
    text: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Varying) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)


Length = int | Varying


def length_of(given: Sequence[int | None]) -> Length:
    """Return the length that has these values for the numbers of rows in `ROWS`.

    Errors: NotImplementedError if it is not of the form a * n + b, as when a step picks samples by their number.
    """
    values = [int(n or 0) for n in given]
    if len(set(values)) == 1:
        return int(values[0])
    factor = (values[1] - values[0]) // (ROWS[1] - ROWS[0])
    rest = values[0] - factor * ROWS[0]
    if any(v != factor * n + rest for v, n in zip(values, ROWS)):
        raise NotImplementedError(
            f"an axis of lengths {tuple(values)} for batches of {ROWS} is neither fixed nor a multiple of the batch"
        )
    text = "n" if factor == 1 else f"{factor}*n"
    return Varying(tuple(values), text if not rest else f"({text} + {rest})")


N = length_of(ROWS)


def times(*lengths: Length) -> Length:
    """Return the product of lengths."""
    number, varying = 1, []
    for length in lengths:
        if isinstance(length, Varying):
            varying.append(length)
        else:
            number *= length
    if not varying or not number:
        return number
    values = (number * prod(each) for each in zip(*(length.values for length in varying)))
    texts = [length.text for length in varying]
    return Varying(tuple(values), "*".join([*([str(number)] if number != 1 else []), *texts]))


def plus(first: Length, second: Length) -> Length:
    """Return the sum of two lengths."""
    if isinstance(first, int) and isinstance(second, int):
        return first + second
    if first == 0 or second == 0:
        return second if first == 0 else first
    values = ((n.values if isinstance(n, Varying) else [n] * len(ROWS)) for n in (first, second))
    return Varying(tuple(map(sum, zip(*values))), f"({text_of(first)} + {text_of(second)})")


def text_of(length: Length) -> str:
    return length.text if isinstance(length, Varying) else str(length)


def number(length: Length) -> int:
    """Return a length that is known to be a number."""
    assert isinstance(length, int)
    return length


def sized(length: Length, rows: int) -> int:
    """Return the length for a number of rows."""
    if not isinstance(length, Varying):
        return length
    return int(eval(length.text, {"__builtins__": {}}, {"n": rows}))  # the text is our own


def per_row(length: Length) -> int | None:
    """Return by how much a length grows with each row; None if it is not a multiple of the rows."""
    if not isinstance(length, Varying) or any(v * ROWS[0] != length.values[0] * n for v, n in zip(length.values, ROWS)):
        return None
    return length.values[0] // ROWS[0]
