"""Matrix products that share their left operand become one: the four gates of an LSTM, drawn one by one, one product.

Done before differentiation, so that the backward step has one product for each merged one, too: the gradient of the
joint weights, and that of the shared operand.
"""

from __future__ import annotations

from collections.abc import Sequence

from rsref import ops
from rsref.graph import StepGraph, substitute, topological_order
from rsref.tensor import Tensor
from rsref_fast.rows import Rows, rows_of


def merge(graph: StepGraph) -> StepGraph:
    """Return a step that computes the same with as few matrix products as there are left operands.

    Merged are products of one tensor with weights: right operands of rank 2 that depend on no sample.
    """
    results = [*graph.outputs, *graph.new_states]
    while True:
        group = _group(results)
        if not group:
            break
        results = substitute(results, _joint(group))
    return graph.with_results(results)


def _group(results: Sequence[Tensor]) -> list[Tensor]:
    """Return the first two or more products of one tensor with weights, or nothing."""
    rows = rows_of(results)
    groups: dict[Tensor, list[Tensor]] = {}
    for tensor in topological_order(results):
        if tensor.op is None or tensor.op.name != "matmul":
            continue
        left, right = tensor.inputs
        if right.ndim == 2 and rows[right] is Rows.NONE and rows[left] is not Rows.NONE:
            groups.setdefault(left, []).append(tensor)
    return next((group for group in groups.values() if len(group) > 1), [])


def _joint(group: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """Return, for each product of a group, its columns of the joint product."""
    left, weights = group[0].inputs[0], [tensor.inputs[1] for tensor in group]
    distinct = list(dict.fromkeys(weights))
    product = ops.matmul(left, ops.concatenate(distinct, -1))
    ends, end = {}, 0
    for weight in distinct:
        ends[weight] = (end, end + weight.shape[1])  # type: ignore[operator]
        end += weight.shape[1]  # type: ignore[operator]
    return {
        tensor: product if len(distinct) == 1 else product[..., slice(*ends[weight])]
        for tensor, weight in zip(group, weights)
    }
