"""Less memory for training: forward keeps the states of a few steps only, and backward computes the rest again.

A sequence is cut into stretches of twice the square root of its steps, so memory grows with that root, for one more
forward run (T. Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rsref.engine import Gradients, checked_gradients
from rsref.recurrence import Recurrence
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.kernels import Kernels
from rsref_fast.packing import gathered_back, held

Array = np.ndarray


@dataclass
class Checkpoints:
    """What backward needs: the arguments, and for each stretch (from a step, up to one) the states at its start."""

    sequences: list[Array]
    constants: list[Array]
    parameters: list[Array]
    mask: Array | None
    outputs: list[Array]
    ends: list[Array]
    stretches: list[tuple[int, int, list[Array]]]


class CheckpointedEngine(FastEngine):
    """A fast engine whose forward keeps little; see `FastEngine`."""

    def __init__(self, recurrence: Recurrence, kernels: type[Kernels], threads: int | None = None):
        super().__init__(recurrence, kernels, threads)
        self._inner = FastEngine(Recurrence(recurrence.graph, True, recurrence.truncate), kernels, threads)
        self._inner._special = self._special

    def forward(
        self,
        sequences: Sequence[Array],
        constants: Sequence[Array],
        states: Sequence[Array],
        parameters: Sequence[Array],
        mask: Array | None = None,
        steps: int | None = None,
        taped: bool = True,
    ) -> tuple[list[Array], list[Array], Any]:
        """Run the loop, stretch by stretch; see `Engine`."""
        if not taped:
            return super().forward(sequences, constants, states, parameters, mask, steps, taped)
        length = self.reference.length(sequences, steps)
        batch = next((len(a) for a in (*sequences, *constants, *states)), 1)
        self._specs(sequences, constants, states, parameters, mask, length, batch)
        tape = Checkpoints(list(sequences), list(constants), list(parameters), mask, [], [], [])
        current = list(states)
        for first, last in self._bounds(length):
            tape.stretches.append((first, last, current))
            outputs, current, _ = self._run(tape, first, last, current, False)
            _put(tape.outputs, outputs, first, length)
        tape.ends = current
        if mask is not None and not self.recurrence.zero_output_for_mask:
            tape.outputs = [held(y, mask) for y in tape.outputs]
        return tape.outputs, current, tape

    def _run(self, tape: Checkpoints, first: int, last: int, states: list[Array], taped: bool) -> Any:
        part = slice(first, last)
        mask = None if tape.mask is None else tape.mask[:, part]
        given = [s[:, part] for s in tape.sequences], tape.constants, states, tape.parameters
        return self._inner.forward(*given, mask=mask, steps=last - first, taped=taped)

    def _bounds(self, length: int) -> list[tuple[int, int]]:
        """Return the stretches; where gradients are cut every so many steps, they are cut between stretches too."""
        size, cut = max(1, 2 * math.isqrt(length)), self.recurrence.truncate or 1
        size = -(-size // cut) * cut
        return list(pairwise([*range(0, max(1, length), size), length]))

    def backward(self, tape: Any, d_outputs: Sequence[Array | None], d_states: Sequence[Array | None]) -> Gradients:
        """Walk the stretches from the last to the first, each forward again and then backward; see `Engine`."""
        dtype = np.result_type(np.float32, *(a.dtype for a in (*tape.parameters, *tape.ends) if a.dtype.kind == "f"))
        d_outputs = checked_gradients("output", d_outputs, tape.outputs, dtype)
        flows: Sequence[Array | None] = checked_gradients("final state", d_states, tape.ends, dtype)
        if tape.mask is not None and not self.recurrence.zero_output_for_mask:
            d_outputs = [None if d is None else gathered_back(d, tape.mask) for d in d_outputs]
        length = tape.stretches[-1][1]
        total = Gradients([], [], [], [])
        for first, last, states in reversed(tape.stretches):
            _, _, inner = self._run(tape, first, last, states, True)
            own = [None if d is None else d[:, first:last] for d in d_outputs]
            part = self._inner.backward(inner, own, flows)
            _put(total.sequences, part.sequences, first, length)
            _add(total.constants, part.constants)
            _add(total.parameters, part.parameters)
            total.states = flows = part.states
            if self.recurrence.truncate is not None and first > 0:
                flows = [None if d is None else np.zeros_like(d) for d in flows]
        return total


def _put(whole: list[Any], parts: Sequence[Array | None], first: int, length: int) -> None:
    """Write a stretch, from step `first` on, to its place in arrays of `length` steps, made with the first stretch."""
    if not whole:
        whole += [None if a is None else np.empty((len(a), length, *a.shape[2:]), a.dtype) for a in parts]
    for into, part in zip(whole, parts):
        if part is not None:
            into[:, first : first + part.shape[1]] = part


def _add(whole: list[Any], parts: Sequence[Array | None]) -> None:
    """Add what is summed over all steps; the first stretch's is what it is added to."""
    if not whole:
        whole += parts
        return
    for into, part in zip(whole, parts):
        if part is not None:
            into += part
