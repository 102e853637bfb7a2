"""Training, and streams, of a step of which a part depends on no step: one engine for that, one for the rest.

See `rsref_fast.prologue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref.engine import Gradients
from rsref_fast.prologue import Parts

if TYPE_CHECKING:
    from rsref_fast.cpu.engine import FastEngine

Array = np.ndarray


@dataclass
class PartedTape:
    """What backward needs: the tapes of both parts."""

    first: Any
    step: Any


@dataclass
class PartedEngine:
    """Forward and backward through both parts, one after the other."""

    parts: Parts
    first: FastEngine
    step: FastEngine

    def forward(
        self, sequences: Sequence[Array], constants: Sequence[Array], states: Sequence[Array],
        parameters: Sequence[Array], mask: Array | None, steps: int | None, dtype: np.dtype[Any],
    ) -> tuple[list[Array], list[Array], Any]:  # fmt: skip
        """Run both parts. dtype: in which floats are computed."""
        every, own, first = self.entered(constants, parameters, dtype)
        outputs, finals, step = self.step.forward(sequences, every, states, own, mask, steps)
        return outputs, finals, PartedTape(first, step)

    def entered(
        self, constants: Sequence[Array], parameters: Sequence[Array], dtype: np.dtype[Any], taped: bool = True
    ) -> tuple[list[Array], list[Array], Any]:
        """Run the first part; return the constants and parameters of the other one, and the tape."""
        constants = [a.astype(dtype, copy=False) if a.dtype.kind == "f" else a for a in constants]
        parameters = [a.astype(dtype, copy=False) for a in parameters]
        given: list[Sequence[Array]] = [[], constants, [], [parameters[i] for i in self.parts.of_first]]
        known = self.first.known_of(given, None, 1, dtype)  # perhaps it is given no floats
        once, _, tape = self.first.run_known(known, given, None, 1, taped)
        return [*constants, *(a[:, 0] for a in once)], [parameters[i] for i in self.parts.of_step], tape

    def backward(
        self, tape: PartedTape, d_outputs: Sequence[Array | None], d_states: Sequence[Array | None]
    ) -> Gradients:
        found = self.step.backward(tape.step, d_outputs, d_states)
        count = len(self.parts.first.constants)
        once = [None if d is None else d[:, None] for d in found.constants[count:]]
        behind = self.first.backward(tape.first, once, [])
        constants = [_sum(a, b) for a, b in zip(found.constants, behind.constants)]
        parameters = dict(zip(self.parts.of_step, found.parameters))
        for i, d in zip(self.parts.of_first, behind.parameters):
            if i in parameters:
                parameters[i] += d
            else:
                parameters[i] = d
        every = [d for _, d in sorted(parameters.items())]
        return Gradients(found.sequences, constants, found.states, every)


def _sum(one: Array | None, other: Array | None) -> Array | None:
    if one is None or other is None:
        return other if one is None else one
    one += other
    return one
