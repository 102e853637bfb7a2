"""A program's matrix products, found by running its text on the host, with functions that note what they are told.

So a library is given the addresses and sizes that the kernel would have found, and nothing is worked out twice. It
needs the rows of each step; where a mask on the device decides about them, the host does not know.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

PRODUCT = re.compile(r'@kernel\ndef (\w+)\(.*\):\n    """.*"""\n    multiply(?:_packed)?\(.*\)\n(?=\n|\Z)')
"""A function that is one product of two matrices, and nothing else."""

PACKING = re.compile(r"^    (pack_\d+\(.*\))$", re.MULTILINE)


@dataclass(frozen=True)
class Address:
    """Some elements behind what a slot of P holds. floats: whether they are of the working precision."""

    slot: int
    elements: int = 0
    floats: bool = True


@dataclass(frozen=True)
class Matrix:
    """Where a matrix lies: its first element, its lengths, and how far neighbours in a column, and in a row, are apart.

    Steps are in elements; that of an axis with one element means nothing.
    """

    first: Address
    rows: int
    columns: int
    row_step: int
    column_step: int


@dataclass(frozen=True)
class Product:
    """target = left right, or target += left right. packed: whether our tiles read the right one from panels."""

    left: Matrix
    right: Matrix
    target: Matrix
    add: bool
    packed: bool

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Rows, columns, and terms of each element."""
        return self.target.rows, self.target.columns, self.left.columns


def products_in(text: str) -> frozenset[str]:
    """Return the names of the functions of a generated program that are one product."""
    return frozenset(PRODUCT.findall(text))


class Finder:
    """Runs entries of a generated program that are one call of such a function. text: the program with them."""

    def __init__(self, text: str):
        self._found: list[Product] = []
        self._panels: dict[Address, Matrix] = {}
        self._names: dict[str, Any] = {
            "kernel": _same, "summing": _same, "entry": _same, "rank_of": _zero, "size_of": _zero, "at": _at,
            "floats": _floats, "ints": _ints, "quotient": operator.floordiv, "remainder": operator.mod,
            "row_of": _row_of, "between": _between,
            "multiply": self._multiply, "multiply_packed": self._multiply_packed, "pack": self._pack,
        }  # fmt: skip
        body = "\n".join(line for line in text.splitlines() if not line.startswith("from rsref_fast."))
        exec(compile(body, "<products>", "exec"), self._names)  # the text is our own
        for call in dict.fromkeys(PACKING.findall(text)):
            eval(call, self._names, {"P": None, "rank": 0, "size": 0})

    def product(self, entry: str, off: Sequence[int], numbers: Sequence[int], a: int, b: int) -> Product:
        """Return the product of an entry. off: of the rows. numbers: N. a, b: the entry's own two."""
        self._found.clear()
        self._names[entry](off, numbers, None, a, b)
        (found,) = self._found
        return found

    def _multiply(
        self, rows: int, columns: int, depth: int, a: Address, row_step: int, depth_step: int, b: Address, b_row: int,
        b_column: int, c: Address, c_step: int, add: int, rank: int, size: int,
    ) -> None:  # fmt: skip
        right = Matrix(b, depth, columns, b_row, b_column)
        self._note(rows, a, row_step, depth_step, right, c, c_step, add, False)

    def _multiply_packed(
        self, rows: int, columns: int, depth: int, a: Address, row_step: int, depth_step: int, panels: Address,
        c: Address, c_step: int, add: int, rank: int, size: int,
    ) -> None:  # fmt: skip
        self._note(rows, a, row_step, depth_step, self._panels[panels], c, c_step, add, True)

    def _note(
        self, rows: int, a: Address, row_step: int, depth_step: int, right: Matrix, c: Address, c_step: int, add: int,
        packed: bool,
    ) -> None:  # fmt: skip
        left = Matrix(a, rows, right.rows, row_step, depth_step)
        self._found.append(Product(left, right, Matrix(c, rows, right.columns, c_step, 1), bool(add), packed))

    def _pack(
        self, depth: int, columns: int, b: Address, row_step: int, column_step: int, panels: Address, rank: int,
        size: int,
    ) -> None:  # fmt: skip
        self._panels[panels] = Matrix(b, depth, columns, row_step, column_step)


def _same(function: Any) -> Any:
    return function


def _zero(numbers: Any) -> int:
    return 0


def _at(address: Address, place: int) -> Address:
    return replace(address, elements=address.elements + place)


def _row_of(off: Sequence[int], even: int, count: int, s: int) -> int:
    return off[s]


def _between(off: Sequence[int], even: int, count: int, after: int, before: int) -> int:
    return off[after] - off[before]


def _floats(table: Any, slot: int) -> Address:
    return Address(slot)


def _ints(table: Any, slot: int) -> Any:
    """The first slot has the rows of each step, which are what is handed over for P."""
    return Address(slot, floats=False) if slot else table
