"""A program as text, and what it must be given to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rsref.tensor import Tensor
from rsref_fast.views import Space, View

FIRST_SLOT = 4
"""P[0] to P[3]: off, pos, rid, cut."""


@dataclass(frozen=True)
class Memory:
    """A piece of memory that a program is given: its name, what its elements are, how many rows it has."""

    name: str
    kind: str
    space: Space
    size: Any
    """A `Length`, for as many rows as the space has."""
    given: bool = False
    """Whether it is an array of the caller's, not the engine's own memory."""


@dataclass(frozen=True)
class Held:
    """Weights (depth, parts * units) of which each block of a GPU holds its part of the units, of each of the parts.

    steps: how what they are multiplied with lies, and the results, as text: a block notes what follows from it.
    """

    depth: int
    parts: int
    units: int
    right: View
    steps: tuple[str, ...]


@dataclass(eq=False)
class Source:
    """A program as text; as a key it stands for itself alone.

    text: a module that defines `entries`, functions of P and N. memory: what P holds after its first slots.
    fixed: for each parameter or fixed array that is read, by the memory's name, the leaf it is.
    prepared: names of the memory that `prepare` writes. results: names of sums that are the gradients of parameters,
    and the place of each among these. held: what blocks hold, in the order of their memory.
    """

    text: str
    entries: tuple[str, ...]
    memory: list[Memory]
    fixed: dict[str, Tensor]
    prepared: list[str] = field(default_factory=list)
    results: dict[str, int] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)

    @property
    def backward(self) -> bool:
        return "fold" in self.entries

    @property
    def finishes(self) -> bool:
        """Whether sums over all samples are not the gradients of the parameters as they are."""
        return "finish" in self.entries
