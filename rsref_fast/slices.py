"""Slices taken before pointwise ops instead of after them: gates that are cut out of one joint sum are computed apart.

sigmoid(a + b)[:, :n] becomes sigmoid(a[:, :n] + b[:, :n]). Slices of what lies in memory are views, and the pointwise
ops then have the shape of whoever reads the slice, so that all become one loop. Done before differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence

from rsref.graph import StepGraph, readers_of, substitute, topological_order
from rsref.ops.base import apply
from rsref.ops.pointwise import Cast, Pointwise
from rsref.tensor import Tensor
from rsref_fast.schedule import is_sum_with_product

Bounds = tuple[tuple[int | None, int | None, int], ...]
WHOLE = (None, None, 1)


def slice_first(graph: StepGraph) -> StepGraph:
    """Return a step that computes the same, with slices before the pointwise ops that nothing reads as a whole."""
    results = [*graph.outputs, *graph.new_states]
    while True:
        found = _candidate(results)
        if not found:
            break
        results = substitute(results, {cut: _cut_first(cut) for cut in found})
    return graph.with_results(results)


def _candidate(results: Sequence[Tensor]) -> list[Tensor]:
    """Return the slices of one pointwise tensor that is read by nothing else; nothing if there is none."""
    order = topological_order(results)
    readers = readers_of(order)
    kept = set(results)
    for tensor in order:
        cuts = list(dict.fromkeys(readers.get(tensor, [])))
        if not _pointwise(tensor) or tensor in kept or not cuts:
            continue
        if is_sum_with_product(tensor) and all(i.shape == tensor.shape for i in tensor.inputs):
            continue  # the product adds to what is there, all gates at once
        cut_only = all(_is_slice(cut) and cut not in kept for cut in cuts) and _apart(tensor, cuts)
        if cut_only and all(_pointwise(r) or _is_slice(r) for cut in cuts for r in readers.get(cut, [])):
            return cuts
    return []


def _pointwise(tensor: Tensor) -> bool:
    return isinstance(tensor.op, Pointwise | Cast)


def _is_slice(tensor: Tensor) -> bool:
    return tensor.op_name == "slice"


def _apart(tensor: Tensor, cuts: Sequence[Tensor]) -> bool:
    """Whether no element is in two of the slices, which cut one axis: nothing is then computed twice."""
    axes = {i for cut in cuts for i, bound in enumerate(cut.attrs["bounds"]) if bound != WHOLE}
    if len(axes) != 1:
        return False
    (axis,) = axes
    length = tensor.shape[axis]
    if length is None:
        return False
    taken = [i for cut in cuts for i in range(*slice(*cut.attrs["bounds"][axis]).indices(length))]
    return len(taken) == len(set(taken))


def _cut_first(cut: Tensor) -> Tensor:
    """Return a slice of a pointwise tensor, computed of its operands' slices."""
    (whole,) = cut.inputs
    bounds: Bounds = cut.attrs["bounds"]
    operands = []
    for operand in whole.inputs:
        own = bounds[len(bounds) - operand.ndim :]
        lengths = whole.shape[whole.ndim - operand.ndim :]
        moved = tuple(b if n == m else WHOLE for b, n, m in zip(own, operand.shape, lengths))
        changed = any(b != WHOLE for b in moved)
        operands.append(apply(cut.op, operand, bounds=moved) if changed else operand)  # type: ignore[arg-type]
    spec = whole.op.infer(*(i.spec for i in operands), **whole.attrs)  # type: ignore[union-attr]
    return Tensor(spec, op=whole.op, inputs=operands, attrs=whole.attrs, name=whole.name)
