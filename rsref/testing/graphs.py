"""Hypothesis strategies that draw random recurrences, with arrays and masks to run them on.

Values stay in ranges where the ops are smooth (a logarithm is taken of 1 + x * x), so that gradients can be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rsref.graph import StepGraph
from rsref.recurrence import Recurrence, Step, with_readout, with_teacher_forcing
from rsref.tensor import Input, Tensor
from rsref.testing.arguments import Arguments, named_leaves, random_arguments
from rsref.testing.pieces import MIXING, PIECES, Drawing, Piece

Array = np.ndarray


@dataclass(frozen=True)
class Example:
    """A random recurrence and what to run it on; its repr lists the step, op by op."""

    recurrence: Recurrence
    arguments: Arguments

    def __repr__(self) -> str:
        return describe(self.recurrence, self.arguments)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # what hypothesis prints of a failing example


def _hypothesis() -> Any:
    try:
        import hypothesis.strategies
    except ImportError as error:
        raise ImportError("rsref.testing draws random graphs with hypothesis: pip install hypothesis") from error
    return hypothesis.strategies


def masks(batch: int, steps: int) -> Any:
    """Return a strategy for boolean masks (batch, steps): padding left, right, in the middle, or everywhere."""
    st = _hypothesis()

    def mask(draw: Any) -> Array:
        rows = []
        for _ in range(batch):
            kind = draw(st.sampled_from(("full", "right", "left", "middle", "random", "empty")))
            cut = sorted((draw(st.integers(0, steps)), draw(st.integers(0, steps))))
            places = np.arange(steps)
            rows.append(
                {
                    "full": places >= 0,
                    "right": places < cut[0],
                    "left": places >= cut[0],
                    "middle": (places < cut[0]) | (places >= cut[1]),
                    "random": np.array([draw(st.booleans()) for _ in places] if kind == "random" else places, bool),
                    "empty": places < 0,
                }[kind]
            )
        return np.array(rows, dtype=bool).reshape(batch, steps)

    return st.composite(mask)()


def step_graphs(*, max_ops: int = 8, max_batch: int = 3, max_steps: int = 5, mixing: bool = False) -> Any:
    """Return a strategy for `Example`: a random step in a loop, with arrays and perhaps a mask.

    Drawn at random: up to three states of ranks 1 to 3, up to two sequences and two constants (floats of ranks 2 and
    3, integers of rank 1, bools, an axis of unknown length), one or two outputs, ops of all families, parameters of
    which some are shared, readout, teacher forcing, zero_output_for_mask, truncate, and garbage at masked steps.
    mixing: whether some ops work across the samples of a batch, or pick them by their number.
    """
    st = _hypothesis()

    def example(draw: Any) -> Example:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        recurrence = Recurrence(
            _step(draw, st, rng, max_ops, PIECES + MIXING * 3 if mixing else PIECES).graph(),
            zero_output_for_mask=draw(st.booleans()),
            truncate=draw(st.sampled_from((None, None, None, 1, 2, 3))),
        )
        batch, steps = draw(st.integers(1, max_batch)), draw(st.integers(0, max_steps))
        mask = draw(st.none() | masks(batch, steps))
        arguments = random_arguments(recurrence, batch=batch, steps=steps, seed=rng, mask=mask)
        if mask is not None and draw(st.booleans()):
            arguments = replace(arguments, sequences=[spoiled(s, mask) for s in arguments.sequences])
        return Example(recurrence, arguments)

    return st.composite(example)()


def spoiled(sequence: Array, mask: Array) -> Array:
    """Return a sequence with garbage at the masked steps: NaN, or integers that are out of range."""
    garbage: dict[str, Any] = {"f": np.nan, "i": -999, "b": True}
    sequence = sequence.copy()
    sequence[~mask] = garbage[sequence.dtype.kind]
    return sequence


def _step(draw: Any, st: Any, rng: np.random.Generator, max_ops: int, pieces: Sequence[Piece]) -> Step:
    sequences = [_leaf(draw, st, f"x{i}") for i in range(draw(st.integers(0, 2)))]
    constants = [_leaf(draw, st, f"c{i}", open_axis=True) for i in range(draw(st.integers(0, 2)))]
    shapes = st.sampled_from(((), (3,), (4,), (2, 3)))
    states = [Input(draw(shapes), name=f"h{i}") for i in range(draw(st.integers(0, 3)))]
    readouts = [Input(draw(shapes), name="readout")] if draw(st.booleans()) else []
    drawing = Drawing(rng, [*sequences, *constants, *states, *readouts])
    if not drawing.pool:  # a step needs a batch axis to begin with
        constants.append(Input((3,), name="c"))
        drawing.pool.append(constants[-1])
    for _ in range(draw(st.integers(1, max_ops))):
        draw(st.sampled_from(pieces))(drawing)
    chosen = [drawing.pool[-1], *(drawing.any() for _ in (*states, *readouts))]  # what was drawn last is used
    new_states = [drawing.fitted(x, state.shape[1:]) for x, state in zip(chosen, states)]
    outputs = [drawing.fitted(x, r.shape[1:]) for x, r in zip(chosen[len(states) :], readouts)]
    outputs += [chosen[-1] if i else chosen[0] for i in range(draw(st.integers(0 if outputs else 1, 2 - len(outputs))))]
    step = Step(tuple(sequences), tuple(constants), tuple(states), tuple(outputs), tuple(new_states), tuple(readouts))
    step = with_readout(step)
    return with_teacher_forcing(step) if readouts and draw(st.booleans()) else step


def _leaf(draw: Any, st: Any, name: str, open_axis: bool = False) -> Tensor:
    shapes: list[tuple[tuple[int | None, ...], str]] = [((3,), "float"), ((2, 3), "float"), ((), "int"), ((3,), "bool")]
    shapes += [((None, 3), "float")] if open_axis else []
    shape, dtype = draw(st.sampled_from(shapes))
    return Input(shape, dtype=dtype, name=name)


def describe(recurrence: Recurrence, arguments: Arguments) -> str:
    """Return a recurrence as text: its leaves with the arrays' shapes, each op, and what the step gives out."""
    graph: StepGraph = recurrence.graph
    names: dict[Tensor, str] = {}
    lines = [f"zero_output_for_mask={recurrence.zero_output_for_mask} truncate={recurrence.truncate}"]
    for (name, leaf), array in zip(named_leaves(graph), arguments.arrays()):
        names[leaf] = name.rpartition("(")[2].rstrip(")") if "(" in name else name
        lines.append(f"{names[leaf]}: {name.split()[0]} {array.shape} {leaf.dtype}")
    for tensor in graph.order:
        if tensor.op is not None:
            names[tensor] = f"v{len(names)}"
            attrs = "".join(f", {key}={value}" for key, value in tensor.attrs.items())
            operands = ", ".join(names[i] for i in tensor.inputs)
            lines.append(f"{names[tensor]} = {tensor.op.name}({operands}{attrs})  # {tensor.shape}")
        elif tensor not in names:
            value = getattr(tensor.source, "value", np.zeros(1))
            names[tensor] = str(value) if value.ndim == 0 else tensor.name
    lines.append(f"outputs: {[names[t] for t in graph.outputs]}; new states: {[names[t] for t in graph.new_states]}")
    if arguments.mask is not None:
        lines.append(f"mask:\n{arguments.mask.astype(int)}")
    return "\n".join(lines)
