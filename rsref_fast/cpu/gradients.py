"""Arrays for the gradients of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, cast

import numpy as np

from rsref.engine import Gradients
from rsref_fast.cpu.memory import maker

if TYPE_CHECKING:
    from rsref_fast.cpu.specialised import Specialised

Array = np.ndarray
Maker = Callable[[], Array]


@dataclass(frozen=True)
class Makers:
    """What makes arrays for gradients, None for no gradient: of sequences, constants, states and parameters.

    begins: where the last three begin.
    """

    every: list[Maker | None]
    begins: tuple[int, int, int]

    def new(self, d_sequences: list[Array | None] | None = None) -> list[Array | None]:
        """Return new arrays. d_sequences: those of sequences, if they are there already."""
        if d_sequences is None:
            return [make and make() for make in self.every]
        return [*d_sequences, *(make and make() for make in self.every[self.begins[0] :])]

    def grouped(self, arrays: list[Array | None]) -> Gradients:
        """Return arrays as they are answered."""
        a, b, c = self.begins
        return Gradients(arrays[:a], arrays[a:b], arrays[b:c], cast(list[Array], arrays[c:]))


def makers_of(
    special: Specialised,
    arguments: Sequence[Sequence[Array]],
    make: Callable[..., Array] = np.empty,
    for_sequences: Callable[..., Array] = np.empty,
) -> Makers:
    """Return what makes arrays for the gradients of a call's arguments.

    make: of bytes; zeros if what is answered is added to them. for_sequences: zeros where a mask leaves out steps, too,
    which kernels do not write.
    """
    graph = special.compiled.graph
    leaves = graph.sequences, graph.constants, graph.states, [p.tensor for p in graph.parameters]
    every = [
        maker(a.shape, a.dtype, how) if leaf.dtype == "float" else None
        for how, arrays, group in zip((for_sequences, make, make, make), arguments, leaves)
        for a, leaf in zip(arrays, group)
    ]
    a, b, c, _ = accumulate(map(len, arguments))
    return Makers(every, (a, b, c))
