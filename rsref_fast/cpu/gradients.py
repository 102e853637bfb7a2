"""Arrays for the gradients of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rsref.engine import Gradients
from rsref.tensor import Tensor
from rsref_fast.cpu.memory import maker

if TYPE_CHECKING:
    from rsref_fast.cpu.specialised import Specialised

Array = np.ndarray
Maker = Callable[[], Array]
Makers = tuple[list[Maker | None], list[Maker | None], list[Maker | None], list[Maker]]


def makers_of(
    special: Specialised,
    arguments: Sequence[Sequence[Array]],
    make: Callable[..., Array] = np.empty,
    for_sequences: Callable[..., Array] = np.empty,
) -> Makers:
    """Return what makes arrays for the gradients of sequences, constants, states and parameters; None for no gradient.

    make: of bytes; zeros if what is answered is added to them. for_sequences: zeros where a mask leaves out steps, too,
    which kernels do not write.
    """
    graph = special.compiled.graph
    sequences, constants, states, parameters = arguments

    def group(
        arrays: Sequence[Array], leaves: Sequence[Tensor], make: Callable[..., Array] = make
    ) -> list[Maker | None]:
        return [maker(a.shape, a.dtype, make) if leaf.dtype == "float" else None for a, leaf in zip(arrays, leaves)]

    return (
        group(sequences, graph.sequences, for_sequences),
        group(constants, graph.constants),
        group(states, graph.states),
        [maker(p.shape, p.dtype, make) for p in parameters],
    )


def new_gradients(makers: Makers, d_sequences: list[Array | None] | None = None) -> Gradients:
    """Return new arrays. d_sequences: those of sequences, if they are there already."""
    sequences, constants, states, parameters = makers
    return Gradients(
        [m and m() for m in sequences] if d_sequences is None else d_sequences,
        [m and m() for m in constants],
        [m and m() for m in states],
        [m() for m in parameters],
    )
