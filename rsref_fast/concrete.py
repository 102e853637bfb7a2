"""A step for arrays of known inner shapes: the graph drawn again, with only the batch left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rsref.graph import StepGraph, substitute, topological_order
from rsref.tensor import ConstantSource, Input, Parameter, Spec, Tensor
from rsref_fast.lengths import ROWS, Length, Varying, length_of
from rsref_fast.numbered import picking

Shape = tuple[Length, ...]


def concrete(graph: StepGraph, shapes: Mapping[Tensor, Sequence[int]]) -> StepGraph:
    """Return the step with the inner lengths of its inputs known.

    shapes: for each sequence, constant and state the shape of its arrays for one step, the batch first.
    Errors: NotImplementedError if the step picks samples of the batch by their number (see `numbered`).
    """
    inputs = (*graph.sequences, *graph.constants, *graph.states)
    new = {t: Input(batch_shape=(None, *shapes[t][1:]), dtype=t.dtype, name=t.name) for t in inputs}
    results = substitute([*graph.outputs, *graph.new_states], new)
    count = len(graph.outputs)
    step = StepGraph(
        sequences=[new[t] for t in graph.sequences],
        constants=[new[t] for t in graph.constants],
        states=[new[t] for t in graph.states],
        outputs=results[:count],
        new_states=results[count:],
    )
    for tensor in picking(results):
        name = tensor.op_name
        raise NotImplementedError(f"{name!r} along the batch, which picks samples by their number, has no kernel")
    return step


def shapes_of(results: Sequence[Tensor], known: Mapping[Tensor, Shape] | None = None) -> dict[Tensor, Shape]:
    """Return the shape of every tensor behind the results, with lengths that depend on the batch worked out.

    known: shapes of leaves whose first length is not the batch itself.
    Errors: NotImplementedError, naming it, for what cannot be computed of any number of samples.
    """
    order = topological_order(results)
    found: dict[Tensor, list[Spec]] = {}
    for tensor in order:
        if tensor.op is not None:
            operands = [found[operand] for operand in tensor.inputs]
            try:
                found[tensor] = [
                    tensor.op.infer(*(specs[i] for specs in operands), **tensor.attrs) for i in range(len(ROWS))
                ]
            except ValueError as error:
                raise NotImplementedError(f"{tensor!r} cannot be computed of any number of samples: {error}") from error
        elif tensor in (known or {}):
            shape = (known or {})[tensor]
            found[tensor] = [
                Spec(tuple(n.values[i] if isinstance(n, Varying) else n for n in shape), tensor.dtype)
                for i in range(len(ROWS))
            ]
        elif isinstance(tensor.source, ConstantSource | Parameter):
            found[tensor] = [tensor.spec] * len(ROWS)
        else:
            found[tensor] = [Spec(tuple(n if m is None else m for m in tensor.shape), tensor.dtype) for n in ROWS]
    return {
        tensor: tuple(length_of(values) for values in zip(*(spec.shape for spec in specs)))
        for tensor, specs in found.items()
    }
