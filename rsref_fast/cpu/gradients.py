"""Arrays for the gradients of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rsref.engine import Gradients
from rsref.tensor import Tensor

if TYPE_CHECKING:
    from rsref_fast.cpu.specialised import Specialised

Array = np.ndarray


def new_gradients(
    special: Specialised,
    arguments: Sequence[Sequence[Array]],
    make: Callable[..., Array],
    d_sequences: list[Array | None] | None = None,
) -> Gradients:
    """Return arrays for the gradients of sequences, constants, states and parameters; None for what has none.

    make: an array of a shape and dtype. Kernels do not write the steps of sequences that a mask leaves out.
    d_sequences: those of sequences, if they are there already.
    """
    graph = special.compiled.graph
    sequences, constants, states, parameters = arguments

    def group(arrays: Sequence[Array], leaves: Sequence[Tensor]) -> list[Array | None]:
        return [make(a.shape, a.dtype) if leaf.dtype == "float" else None for a, leaf in zip(arrays, leaves)]

    return Gradients(
        group(sequences, graph.sequences) if d_sequences is None else d_sequences,
        group(constants, graph.constants),
        group(states, graph.states),
        [make(p.shape, p.dtype) for p in parameters],
    )
