"""The text of a function that all threads of a team compute together, element by element.

A thread takes every `size`-th element, beginning with the one of its rank: neighbours in a warp touch neighbours in
memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from rsref_fast.cpu.text import Function
from rsref_fast.lengths import text_of, times
from rsref_fast.views import Shape


class TeamFunction(Function):
    """A function whose independent loops become one, in strides of the team's size."""

    @contextmanager
    def independent(self, shape: Shape, axes: Sequence[int] | None = None) -> Iterator[list[str]]:
        self.share()
        chosen = [axis for axis in (range(len(shape)) if axes is None else axes) if shape[axis] != 1]
        indices = ["0"] * len(shape)
        depth = self.depth
        self.add(f"for e in range(rank, {text_of(times(1, *(shape[axis] for axis in chosen)))}, size):")
        self.depth += 1
        rest = "e"
        for axis in reversed(chosen[1:]):
            length = text_of(shape[axis])
            indices[axis] = f"i{axis}"
            self.add(f"i{axis} = remainder({rest}, {length})")
            self.add(f"e{axis} = quotient({rest}, {length})")
            rest = f"e{axis}"
        if chosen:
            indices[chosen[0]] = rest
        yield indices
        self.depth = depth

    def shared_nest(self, shape: Shape) -> AbstractContextManager[list[str]]:
        return self.independent(shape)

    @contextmanager
    def per_row(self, shape: Shape, line: Callable[[str], str]) -> Iterator[list[str]]:
        with self.independent(shape) as i:
            self.add(line(i[0]))
            yield i


def addressed(lines: Sequence[str], pointers: Mapping[str, str]) -> list[str]:
    """Return lines that fetch each pointer where it is used: all of them at once would fill half of the registers."""
    if not pointers:
        return [*lines]
    names = re.compile(rf"\b({'|'.join(sorted(pointers, key=len, reverse=True))})\b")
    return [names.sub(lambda found: pointers[found[1]], line) for line in lines]
