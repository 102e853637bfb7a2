"""Parameters that stay the same from call to call: weights are packed once, as a session of inference does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rsref_fast.cpu.memory import Arena

if TYPE_CHECKING:
    from rsref_fast.cpu.engine import FastEngine
    from rsref_fast.cpu.kernels import Kernels
    from rsref_fast.cpu.plan import Plan

Array = np.ndarray


class Frozen:
    """Runs an engine's recurrence forward, again and again with the same parameters; threads may call it at once.

    parameters: arrays in the graph's order; they are copied, so later changes of them are not seen.
    Between calls it holds the packed weights, and the scratch memory of the largest call.
    Errors: ValueError if the number or a shape of the parameters does not fit; at calls as `Engine.forward`.
    """

    def __init__(self, engine: FastEngine, parameters: Sequence[Array]):
        wanted = engine.recurrence.graph.parameters
        if len(wanted) != len(parameters):
            raise ValueError(f"{len(wanted)} parameter arrays are needed; got {len(parameters)}")
        for parameter, array in zip(wanted, parameters):
            if np.shape(array) != parameter.shape:
                raise ValueError(f"{parameter!r} does not accept an array of shape {np.shape(array)}")
        self.parameters = [np.array(p) for p in parameters]
        self._engine = engine
        self._prepared: dict[Kernels, list[Arena]] = {}

    def __call__(
        self,
        sequences: Sequence[Array],
        constants: Sequence[Array],
        states: Sequence[Array],
        mask: Array | None = None,
        steps: int | None = None,
    ) -> tuple[list[Array], list[Array]]:
        """Run the loop; return outputs (batch, time, ...) and final states (batch, ...), as `Engine.forward`."""
        groups = (sequences, constants, states, self.parameters)
        outputs, finals, _ = self._engine.run(groups, mask, steps, taped=False, run=self._run)
        return outputs, finals

    def _run(self, plan: Plan, arrays: Sequence[Array]) -> None:
        """Run a plan in memory where its kernels have packed the weights before, if there is one that nobody uses."""
        waiting = self._prepared.setdefault(plan.kernels, [])
        try:
            memory = waiting.pop()
        except IndexError:
            memory = None
        if memory is None or memory.bytes.size < plan.scratch_bytes:
            memory = Arena(plan.scratch_bytes)
        else:
            plan = plan.prepared_before
        plan.kernels.execute(plan, [*arrays, memory.bytes])
        waiting.append(memory)
