"""Steps that mix samples, with a mask: one step a call, for the rows that take part in it.

Everything else packs its rows; here what one sample computes depends on which others take part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rsref.engine import Gradients
from rsref_fast.cpu.memory import seen

if TYPE_CHECKING:
    from rsref_fast.cpu.engine import FastEngine
    from rsref_fast.cpu.tape import Tape

Array = np.ndarray


def step_by_step(engine: FastEngine, tape: Tape, taped: bool) -> list[Array]:
    """Run forward, one call a step, and return the final states; the tape receives a tape for each."""
    mask = tape.mask
    assert mask is not None
    graph = engine.recurrence.graph
    *given, parameters = tape.arguments
    leaves = (graph.sequences, graph.constants, graph.states)
    sequences, constants, states = (
        [seen(a, leaf.dtype) for a, leaf in zip(arrays, group)] for arrays, group in zip(given, leaves)
    )
    current = [s.copy() for s in states]
    one, pieces = engine.one_step(), []
    for t in range(*tape.steps):
        rows, piece = np.flatnonzero(mask[:, t]), None
        if len(rows):
            ys, ends, piece = one.forward(
                [s[rows, t : t + 1] for s in sequences], [c[rows] for c in constants],
                [s[rows] for s in current], parameters, steps=1, taped=taped,
            )  # fmt: skip
            for y, now in zip(tape.outputs, ys):
                y[rows, t] = now[:, 0]
            for s, now in zip(current, ends):
                s[rows] = now
        pieces.append((t, rows, piece))
    tape.pieces = pieces if taped else None
    return current


def steps_back(
    engine: FastEngine, tape: Tape, d_outputs: Sequence[Array], d_states: Sequence[Array], found: Gradients
) -> Gradients:
    """Run backward, one call a step, and add to arrays of zeros for the gradients."""
    assert tape.pieces is not None
    one = engine.one_step()
    truncate = engine.recurrence.truncate
    flowing = [None if d is None else end.copy() for d, end in zip(found.states, d_states)]
    for t, rows, piece in reversed(tape.pieces):
        if piece is not None:
            part = one.backward(
                piece,
                [d[rows, t : t + 1] for d in d_outputs],
                [None if d is None else d[rows] for d in flowing],
            )
            for whole, d in zip(flowing, part.states):
                if whole is not None:
                    whole[rows] = d
            for whole, d in zip(found.sequences, part.sequences):
                if whole is not None:
                    whole[rows, t] = d[:, 0]  # type: ignore[index]
            for whole, d in zip(found.constants, part.constants):
                if whole is not None:
                    whole[rows] += d
            for whole, d in zip(found.parameters, part.parameters):
                whole += d
        if truncate is not None and t % truncate == 0 and t > tape.steps[0]:
            flowing = [None if d is None else np.zeros_like(d) for d in flowing]
    found.states = flowing
    return found
