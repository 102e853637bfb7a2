"""Sums put in an order in which the terms that depend on no state are added first: so they leave the time loop.

x W + h U + b becomes (b + x W) + h U: one hoisted tensor, to which the step's product is added where it stands; terms
that are parameters alone are added before all others, once a call. Done before differentiation. Floating sums are
rounded in another order than they were drawn in.
"""

from __future__ import annotations

from collections.abc import Sequence

from rsref import ops
from rsref.graph import StepGraph, readers_of, substitute, topological_order
from rsref.tensor import Tensor


def reorder(graph: StepGraph) -> StepGraph:
    """Return a step that computes the same, up to rounding."""
    results = [*graph.outputs, *graph.new_states]
    order = topological_order(results)
    carried = _behind(order, graph.states)
    given = carried | _behind(order, (*graph.sequences, *graph.constants))
    readers = readers_of(order)
    kept = set(results)

    def inner(tensor: Tensor, shape: tuple[int | None, ...]) -> bool:
        """Whether a sum is only a part of another one."""
        return _sum(tensor) and tensor.shape == shape and len(readers.get(tensor, [])) == 1 and tensor not in kept

    def terms(tensor: Tensor, shape: tuple[int | None, ...]) -> list[Tensor]:
        return [t for i in tensor.inputs for t in (terms(i, shape) if inner(i, shape) else [i])]

    new: dict[Tensor, Tensor] = {}
    for tensor in order:
        outermost = _sum(tensor) and not any(
            _sum(r) and inner(tensor, r.shape) for r in readers.get(tensor, [])
        )  # fmt: skip
        if not outermost:
            continue
        every = terms(tensor, tensor.shape)
        free = [t for t in every if t not in carried]
        if free and len(free) < len(every) and len(every) > 2:
            last = [t for t in every if t in carried]
            new[tensor] = _added([*sorted(free, key=given.__contains__), *sorted(last, key=_is_product)])
    while new:  # one after the other: a sum may have another one behind it
        tensor, replacement = new.popitem()
        results = substitute(results, {tensor: replacement})
    return graph.with_results(results)


def _behind(order: Sequence[Tensor], leaves: Sequence[Tensor]) -> set[Tensor]:
    """Return the leaves and all that is computed from them."""
    found = set(leaves)
    for tensor in order:
        if any(operand in found for operand in tensor.inputs):
            found.add(tensor)
    return found


def _sum(tensor: Tensor) -> bool:
    return tensor.op_name == "add" and tensor.dtype == "float"


def _is_product(tensor: Tensor) -> bool:
    return tensor.op_name == "matmul"


def _added(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = ops.add(total, tensor)
    return total
