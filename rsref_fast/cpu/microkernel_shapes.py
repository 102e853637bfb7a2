"""How wide the matrix product's innermost loop is, for each instruction set and precision."""

from __future__ import annotations

from dataclasses import dataclass

PRODUCTS = (
    "multiply_panel", "multiply_threes", "multiply_partial", "pack", "multiply_packed", "multiply_copied", "multiply",
    "multiply_row",
)  # fmt: skip

CHUNK = 256
"""Depth that is taken at once when the right operand does not come in panels: a panel of it stays in the L1 cache."""


@dataclass(frozen=True)
class Shape:
    """Widths for an instruction set and a precision.

    lanes: elements of a vector. vectors: of a panel. rows: of a block, at most. few: rows from which a block has enough
    sums that none waits for the one before; a rest of fewer shares the rows of a whole block. panels: of how many a
    single row takes several rows at once: of two where there are 32 registers, so that a number of the row is fetched
    for both. ahead: how many rows of a panel that comes from far are fetched before they are read. copied: how many
    rows of a left operand at most are copied at once (see `copied_rows`). Both are 0 where no gain was measured.
    threes: whether products are of three panels at once, as far as there are so many (see `threes`). unrolled: how
    often the loop along the depth is; 0 for LLVM's choice, which with sixteen registers would keep sums in memory.
    """

    lanes: int
    vectors: int
    rows: int
    few: int
    panels: int
    ahead: int = 0
    copied: int = 0
    threes: bool = False
    unrolled: int = 0

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products' functions that are called, each after those that it calls."""
        without = {"multiply_copied": self.copied == 0, "multiply_threes": not self.threes}
        return tuple(name for name in PRODUCTS if not without.get(name))

    def symbol(self, name: str, precision: str) -> str:
        """Return the name under which one of the products' functions is published."""
        return f"rsref_{name}_{precision}_{self.lanes}x{self.vectors}"

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.lanes * self.vectors


def shape_for(features: str, bits: int) -> Shape:
    """Return the widths for a CPU's features (as LLVM lists them) and elements of 32 or 64 bits."""
    if "+avx512f" in features:
        return Shape(512 // bits, 2, 8, 2, 2)
    if "+avx" in features:
        return Shape(256 // bits, 2, 6, 3, 1, ahead=64, copied=86 * 6, threes=True, unrolled=2)
    return Shape(128 // bits, 2, 8, 3, 2 if "+neon" in features else 1)


ASIDE = 8
"""Panels of which a thread may multiply its own part of a row before it waits for the other's (see `single_row`)."""


def fits(pieces: int, columns: int, units: int, width: int) -> bool:
    """Whether two threads have as many panels of each of some pieces of so many columns, and places of the row."""
    return columns % (2 * width) == 0 and units % (2 * width) == 0 and pieces * columns <= 2 * ASIDE * width
