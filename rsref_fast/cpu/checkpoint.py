"""Less memory for training: forward keeps the states of a few steps only, and backward computes the rest again.

A sequence is cut into stretches of a few times the square root of its steps, so memory grows with that root, for one
more forward run (T. Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174). The last stretch
is where backward begins: it is kept, and not run again; then its memory serves the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from rsref.engine import Gradients
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.memory import borrowed
from rsref_fast.cpu.tape import Tape

Array = np.ndarray
ROOTS = 3
"""Square roots of the steps that a stretch has at most: longer ones are fewer and faster, and need more memory."""


class CheckpointedEngine(FastEngine):
    """A fast engine whose forward keeps little; see `FastEngine`."""

    checkpoints = True

    def _walk(self, tape: Tape, taped: bool) -> list[Array]:
        if not taped:
            return super()._walk(tape, taped)
        sequences, constants, states, parameters = tape.arguments
        for stretch in self._stretches(tape.length):
            part = replace(
                tape, arguments=[sequences, constants, states, parameters], stretch=stretch, parts=[], way=None
            )
            states = self._run_forward(part, taped=stretch[1] == tape.length)
            part.outputs = []
            tape.parts.append(part)
        return states

    def _stretches(self, length: int) -> list[tuple[int, int]]:
        """Return the stretches, the last the longest, so that the memory that it leaves is enough for the others.

        Where gradients are cut every so many steps, they are cut between stretches too.
        """
        cut = self.recurrence.truncate or 1
        count = -(-length // max(1, ROOTS * math.isqrt(length))) or 1
        size = max(1, -(-length // (count * cut))) * cut
        last = -(-max(0, length - size) // cut) * cut
        return list(pairwise([0, *reversed(range(last, 0, -size)), length]))

    def _walk_back(self, tape: Tape, d_outputs: list[Array], d_states: list[Array]) -> Gradients:
        total: Gradients | None = None
        for part in reversed(tape.parts):
            done = None if total is None else total.sequences
            own = self._run_backward(self._kept(tape, part), d_outputs, d_states, done)
            if total is not None:
                _add(own.constants, total.constants)
                _add(own.parameters, total.parameters)
            total = own
            d_states = [np.zeros_like(s) if d is None else d for s, d in zip(part.arguments[2], own.states)]
            if self.recurrence.truncate is not None:
                d_states = [np.zeros_like(d) for d in d_states]
        assert total is not None
        return total

    def _kept(self, tape: Tape, part: Tape) -> Tape:
        """Return a stretch's tape with what backward reads, and let go of it, or run forward again for it."""
        held = replace(part)  # before anything is asked of it: another thread may let go of the same one
        if held.kept is not None or held.pieces is not None:
            part.kept = part.pieces = None
            return held
        begin, end = part.steps
        steps = (slice(begin, end),) if part.turned else (slice(None), slice(begin, end))
        lengths = (end - begin, part.batch) if part.turned else (part.batch, end - begin)
        sequences, outputs = (  # the outputs were answered before: they are written apart, and the inputs lie so too
            [borrowed((*lengths, *a.shape[2:]), a.dtype) for a in arrays]
            for arrays in (part.arguments[0], tape.outputs)
        )
        for (_, to), whole in zip(sequences, part.arguments[0]):
            to[...] = whole[steps]
        again = replace(
            part,
            arguments=[[a for _, a in sequences], *part.arguments[1:]],
            mask=None if part.mask is None else part.mask[:, begin:end],
            outputs=[a for _, a in outputs],
            length=end - begin,
            stretch=None,
        )
        self._run_forward(again, taped=True)
        pieces = None if again.pieces is None else [(t + begin, *rest) for t, *rest in again.pieces]
        return replace(part, kept=again.kept, pieces=pieces)


def _add(whole: Sequence[Array | None], parts: Sequence[Array | None]) -> None:
    """Add what is summed over all steps."""
    for into, part in zip(whole, parts):
        if into is not None and part is not None:
            into += part
