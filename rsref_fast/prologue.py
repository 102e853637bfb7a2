"""What depends on no step, apart from the steps: the keys of an attention, say, a product of its memory and weights.

Forward computes it once a call in any case. Backward goes through it once, too, if it is no part of the step, but a
constant of it, whose gradient is summed over all steps first; and a stream, whose calls are steps, begins with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rsref.graph import StepGraph, substitute
from rsref.tensor import Input, Parameter, Tensor
from rsref_fast.rows import Rows, rows_of

WORTH_IT = ("matmul", "einsum")
"""Ops that cost so much that it pays to go back through them once only."""


@dataclass(frozen=True)
class Parts:
    """A step in two parts.

    first: a step without states, of the constants alone; its outputs are `step`'s last constants.
    of_first, of_step: which of the whole step's parameters each of them reads.
    """

    first: StepGraph
    step: StepGraph
    of_first: tuple[int, ...]
    of_step: tuple[int, ...]


def parted(graph: StepGraph) -> Parts | None:
    """Return a step in two parts, or None if nothing is worth it."""
    places: dict[Tensor, int] = {}
    rows = rows_of([*graph.outputs, *graph.new_states], places=places)
    stepped: set[Tensor] = {*graph.sequences, *graph.states}
    for tensor in graph.order:
        if any(operand in stepped for operand in tensor.inputs):
            stepped.add(tensor)
    read = {operand for tensor in graph.order if tensor in stepped for operand in tensor.inputs}
    once = [
        t for t in graph.order
        if t in read and t not in stepped and t.op is not None and t.dtype == "float"
        and rows[t] is Rows.FIRST and places[t] == 1  # a constant has one entry a sample
    ]  # fmt: skip
    if not once:
        return None
    first = StepGraph(constants=graph.constants, outputs=once)
    if not any(t.op_name in WORTH_IT and rows[t] is Rows.FIRST for t in first.order):
        return None
    leaves = [Input(batch_shape=t.shape, name=f"once{i}") for i, t in enumerate(once)]
    kept = {leaf: leaf for leaf in (*graph.sequences, *graph.constants)}  # dropout masks would be drawn anew
    results = substitute([*graph.outputs, *graph.new_states], {**kept, **dict(zip(once, leaves))})
    count = len(graph.outputs)
    step = StepGraph(
        sequences=graph.sequences, constants=[*graph.constants, *leaves], states=graph.states,
        outputs=results[:count], new_states=results[count:],
    )  # fmt: skip
    place = {parameter: i for i, parameter in enumerate(graph.parameters)}

    def places_of(parameters: tuple[Parameter, ...]) -> tuple[int, ...]:
        return tuple(place[p] for p in parameters)

    return Parts(first, step, places_of(first.parameters), places_of(step.parameters))
