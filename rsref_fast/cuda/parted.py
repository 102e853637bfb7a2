"""Training of a step of which a part depends on no step: one engine for that, one for the rest.

See `rsref_fast.prologue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref.engine import Gradients
from rsref_fast.cuda.arrays import DeviceArray
from rsref_fast.cuda.masks import Rows
from rsref_fast.cuda.passes import Groups
from rsref_fast.cuda.recipes import Taped
from rsref_fast.cuda.script import Script
from rsref_fast.cuda.stepwise import StepTape
from rsref_fast.prologue import Parts

if TYPE_CHECKING:
    from rsref_fast.cuda.engine import CudaEngine


@dataclass
class PartedTape:
    """What backward needs: the tapes of both parts."""

    first: Taped
    step: Taped | StepTape

    @property
    def stream(self) -> int:
        return self.step.stream


@dataclass
class PartedEngine:
    """Forward and backward through both parts, one after the other, in the order of a stream."""

    parts: Parts
    first: CudaEngine
    step: CudaEngine

    def forward(
        self, given: Groups, mask: DeviceArray | None, steps: int | None, dtype: np.dtype[Any], stream: int
    ) -> tuple[list[DeviceArray], list[DeviceArray], PartedTape]:
        """Run both parts. dtype: in which floats are computed."""
        sequences, constants, states, parameters = given
        own, others = ([parameters[i] for i in read] for read in (self.parts.of_first, self.parts.of_step))
        once, _, first = self.first.run([[], constants, [], own], None, 1, True, dtype, stream)
        every = [*constants, *(replace(a, shape=(a.shape[0], *a.shape[2:])) for a in once)]
        outputs, finals, step = self.step.run([sequences, every, states, others], mask, steps, True, dtype, stream)
        assert isinstance(first, Taped)
        assert step is not None
        return outputs, finals, PartedTape(first, step)

    def backward(self, tape: PartedTape, d_outputs: Sequence[Any], d_states: Sequence[Any], stream: int) -> Gradients:
        found: Any = self.step.run_back(tape.step, d_outputs, d_states, stream)
        count = len(self.parts.first.constants)
        once = [replace(d, shape=(d.shape[0], 1, *d.shape[1:])) for d in found.constants[count:]]
        behind: Any = self.first.run_back(tape.first, once, [], stream)
        rows = Rows(self.step, Script(), tape.step.special, stream)
        for d, more in zip(found.constants, behind.constants):
            rows.added(more, d)
        parameters = dict(zip(self.parts.of_step, found.parameters))
        for i, d in zip(self.parts.of_first, behind.parameters):
            rows.added(d, parameters.get(i))
            parameters.setdefault(i, d)
        rows.finish(self.step.allocate)
        every = [d for _, d in sorted(parameters.items())]
        return Gradients(found.sequences, found.constants[:count], found.states, every)
