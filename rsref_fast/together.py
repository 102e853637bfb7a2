"""Gradients of gates that lie side by side, and only then are scaled: one memory serves all that is made of them.

The gradient of a normalised row is drawn gate by gate, each times its part of the gain, and these side by side. Of two
such rows that made the gates together there would be two such memories, beside the gates' own. Drawn as one row of
gates times a whole gain, the gates lie in one memory, and what reads the products computes them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rsref import ops
from rsref.graph import readers_of, substitute, topological_order
from rsref.ops.pointwise import Pointwise
from rsref.tensor import ConstantSource, Parameter, Tensor

Key = tuple[tuple[Tensor, ...], int]


def together(results: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors that compute the same, with pieces side by side before they are scaled, where loops read them."""
    results = list(results)
    joints: dict[Key, Tensor] = {}

    def joint(parts: Sequence[Tensor], axis: int) -> Tensor:
        return joints.setdefault((tuple(parts), axis), ops.concatenate(parts, axis))

    order = topological_order(results)
    readers = readers_of(order)
    found, kept = {}, set(results)
    for tensor in order:
        if tensor.op is None or tensor.op.name != "concatenate" or tensor in kept:
            continue
        if all(map(_is_loop, readers[tensor])):
            new = _scaled_after(tensor, joint)
            if new is not None:
                found[tensor] = new
    return substitute(results, found) if found else results


def _is_loop(tensor: Tensor) -> bool:
    """Whether a tensor is computed element by element of what it reads, or adds that up."""
    return isinstance(tensor.op, Pointwise) or (tensor.op_name in ("sum", "sum_to_like"))


def _scaled_after(tensor: Tensor, joint: Callable[[Sequence[Tensor], int], Tensor]) -> Tensor | None:
    """Return a concatenation of products, each with a slice of a row, as a product of that and of a concatenation."""
    axis, parts = tensor.attrs["axis"], tensor.inputs
    if any(part.op is None or part.op.name != "multiply" for part in parts):
        return None
    for place in (1, 0):
        row = _whole([part.inputs[place] for part in parts])
        own = [part.inputs[1 - place] for part in parts]
        if row is None or axis != tensor.ndim - 1:
            continue
        if all(i.op is not None and isinstance(i.op, Pointwise) and i.shape == p.shape for i, p in zip(own, parts)):
            return ops.multiply(joint(own, axis), row)
    return None


def _whole(slices: Sequence[Tensor]) -> Tensor | None:
    """Return the fixed row of which some tensors are the slices, one after the other; None if they are none."""
    row = slices[0].inputs[0] if slices[0].inputs else None
    leaves = [] if row is None else [leaf for leaf in topological_order([row]) if leaf.op is None]
    if row is None or row.ndim != 1 or not all(isinstance(leaf.source, Parameter | ConstantSource) for leaf in leaves):
        return None
    end = 0
    for part in slices:
        if part.op is None or part.op.name != "slice" or part.inputs[0] is not row:
            return None
        start, stop, step = slice(*part.attrs["bounds"][0]).indices(row.shape[0] or 0)
        if (start, step) != (end, 1):
            return None
        end = stop
    return row if end == row.shape[0] else None
