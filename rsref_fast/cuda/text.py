"""The text of a function that all threads of a team compute together, element by element.

A thread takes every `size`-th element, beginning with the one of its rank: neighbours in a warp touch neighbours in
memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from rsref_fast.cpu.text import Function
from rsref_fast.cuda.words import EVEN
from rsref_fast.layout import Section
from rsref_fast.lengths import Length, text_of, times
from rsref_fast.views import Shape

if TYPE_CHECKING:
    from rsref_fast.program import Program


OFF, EVEN_LINE = "off = ints(P, 0)", f"even = N[{EVEN}]"
ROW_OF = re.compile(r"\boff\[([^]]*)\]")
BETWEEN = re.compile(rf"{ROW_OF.pattern} - {ROW_OF.pattern}")
"""Where a program is told which rows a step's are, and whether all samples take part in each; and where it asks."""

ROWS = re.compile(r"(pos|rid|cut|limit) = .*")
"""What else is told about rows, which is seldom needed."""


class TeamFunction(Function):
    """A function whose independent loops become one, in strides of the team's size.

    many_rows: whether it is called for the rows of many steps at once.
    """

    many_rows = False
    reads_first = True

    def within(self, program: Program, section: Section) -> None:
        self.many_rows = section in (Section.BEFORE, Section.AFTER)

    @contextmanager
    def strides(self, name: str, first: str, end: str, step: str) -> Iterator[None]:
        """Open a loop in strides, for few turns in each step: `range` divides 64-bit words to know how many there are.

        (Where turns are many that is nothing, and a loop whose number of turns is known takes fewer registers.)
        """
        depth = self.depth
        self.add(f"{name} = {first}")
        self.add(f"while {name} < {end}:")
        self.depth += 1
        yield
        self.depth = depth + 1
        self.add(f"{name} += {step}")
        self.depth = depth

    @contextmanager
    def independent(self, shape: Shape, axes: Sequence[int] | None = None) -> Iterator[list[str]]:
        self.share()
        chosen = [axis for axis in (range(len(shape)) if axes is None else axes) if shape[axis] != 1]
        indices = ["0"] * len(shape)
        depth = self.depth
        self.add(f"for e in range(rank, {text_of(times(1, *(shape[axis] for axis in chosen)))}, size):")
        self.depth += 1
        unravelled(self, indices, chosen, shape, "e")
        yield indices
        self.depth = depth

    @contextmanager
    def per_block(self, shape: Shape, axes: Sequence[int]) -> Iterator[list[str]]:
        """Open a loop over some axes, of which each block has turns: all its threads take one together."""
        self.share()
        chosen = [axis for axis in axes if shape[axis] != 1]
        indices = ["0"] * len(shape)
        with self.strides("e", "block()", text_of(times(1, *(shape[axis] for axis in chosen))), "blocks()"):
            unravelled(self, indices, chosen, shape, "e")
            yield indices

    def shared_nest(self, shape: Shape) -> AbstractContextManager[list[str]]:
        return self.independent(shape)

    def rest_masked(self, length: Length) -> None:
        """Do nothing: each thread computes one number."""

    @contextmanager
    def per_row(self, shape: Shape, line: Callable[[str], str]) -> Iterator[list[str]]:
        with self.independent(shape) as i:
            self.add(line(i[0]))
            yield i


def unravelled(
    function: Function, indices: list[str], axes: Sequence[int], shape: Shape, place: str, prefix: str = ""
) -> None:
    """Write the indices of some axes, of which a number is the place in row-major order. prefix: of their names."""
    for axis in reversed(axes[1:]):
        length, name = text_of(shape[axis]), f"{prefix}{axis}"
        indices[axis] = f"i{name}"
        function.add(f"i{name} = remainder({place}, {length})")
        function.add(f"e{name} = quotient({place}, {length})")
        place = f"e{name}"
    if axes:
        indices[axes[0]] = place


def addressed(lines: Sequence[str], pointers: Mapping[str, str]) -> list[str]:
    """Return lines that fetch each pointer where it is used: all of them at once would fill half of the registers.

    Steps' first rows are reckoned, where they can be, not read.
    """
    lines = [BETWEEN.sub(r"between(off, even, n0, \1, \2)", line) for line in lines]
    lines = [ROW_OF.sub(r"row_of(off, even, n0, \1)", line) for line in lines]
    if OFF in lines:
        lines.insert(lines.index(OFF) + 1, EVEN_LINE)
    pointers = {**pointers, **{line.split(" = ")[0]: line.split(" = ")[1] for line in lines if ROWS.fullmatch(line)}}
    lines = [line for line in lines if not ROWS.fullmatch(line)]
    if not pointers:
        return lines
    names = re.compile(rf"\b({'|'.join(sorted(pointers, key=len, reverse=True))})\b")
    return [names.sub(lambda found: pointers[found[1]], line) for line in lines]
