"""Which tensors of a step treat each sample alone: what may be computed for many timesteps at once.

A step is drawn for a batch. Where no op mixes the samples, the batch may as well be all samples of all timesteps: one
large product instead of one a step (hoisting). And where the samples are only added up, as in the gradient of a
parameter, the same graph on all of them gives the sum over time as well (sinking).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from rsref.graph import topological_order
from rsref.ops.linear import split_equation
from rsref.ops.pointwise import Pointwise
from rsref.tensor import ConstantSource, Parameter, Tensor


class Rows(Enum):
    """How a tensor depends on the samples of a batch."""

    NONE = "not at all: parameters and constants alone"
    FIRST = "axis 0 is the batch, or the batch times some places; each entry of it depends on its own sample alone"
    LAST = "as FIRST, but the batch is the last axis"
    SUM = "a sum over the samples of something that depends on one sample alone"
    MIXED = "in any other way"


LINEAR = ("reshape", "transpose", "expand_dims", "squeeze", "slice", "put_slice", "sum_to_like")
"""Ops that are linear in their first operand, whatever axes they touch: a sum over samples stays one."""

Rule = Callable[[Tensor, Sequence[Rows]], Rows]


def rows_of(
    outputs: Sequence[Tensor],
    leaves: Mapping[Tensor, Rows] | None = None,
    places: dict[Tensor, int] | None = None,
) -> dict[Tensor, Rows]:
    """Return how every tensor behind the outputs depends on the samples.

    leaves: the answer for some tensors; other leaves are inputs with the batch first, or parameters and constants.
    places: how many entries of axis 0 belong to a sample, for leaves that have more than one each; receives the answer
        for every tensor whose axis 0 (or last axis) is the batch.
    """
    places = {} if places is None else places
    found: dict[Tensor, Rows] = dict(leaves or {})
    for tensor in topological_order(outputs):
        if tensor not in found:
            found[tensor] = _kind(tensor, found)
        if found[tensor] in (Rows.FIRST, Rows.LAST) and tensor not in places:
            count = _places(tensor, found, places)
            found[tensor], places[tensor] = (Rows.MIXED, 1) if count is None else (found[tensor], count)
        elif found[tensor] is Rows.SUM and len(_own_places(tensor, found, places)) > 1:
            found[tensor] = Rows.MIXED
    return found


def _kind(tensor: Tensor, found: Mapping[Tensor, Rows]) -> Rows:
    if tensor.op is None:
        return Rows.NONE if isinstance(tensor.source, Parameter | ConstantSource) else Rows.FIRST
    kinds = [found[operand] for operand in tensor.inputs]
    if all(kind is Rows.NONE for kind in kinds):
        return Rows.NONE
    if Rows.MIXED in kinds:
        return Rows.MIXED
    if Rows.SUM in kinds and tensor.op.name in LINEAR:
        return Rows.SUM if set(kinds[1:]) <= {Rows.NONE} else Rows.MIXED
    if isinstance(tensor.op, Pointwise):
        return _pointwise(tensor, kinds)
    rule = RULES.get(tensor.op.name)
    return Rows.MIXED if rule is None else rule(tensor, kinds)


def _own_places(tensor: Tensor, found: Mapping[Tensor, Rows], places: Mapping[Tensor, int]) -> set[int]:
    """Return how many entries a sample has in the operands that have any."""
    return {places[i] for i in tensor.inputs if found[i] in (Rows.FIRST, Rows.LAST)}


def _places(tensor: Tensor, found: Mapping[Tensor, Rows], places: Mapping[Tensor, int]) -> int | None:
    """Return how many entries a sample has in a result; None if its entries do not belong to one sample each."""
    name = tensor.op_name
    if tensor.op is None:
        return 1
    if name == "reshape":
        (x,), shape = tensor.inputs, tensor.attrs["shape"]
        if shape[0] is None:
            return places[x]
        values, rest = [places[x], *x.shape[1:]], shape[1:]
        if None in values or any(n in (None, -1) for n in rest) or not math.prod(rest):
            return None
        count, left = divmod(math.prod(n or 0 for n in values), math.prod(rest))
        return None if left or not count else count
    if name in ("reshape_like", "put_slice", "put_windows", "broadcast_like") and found[tensor.inputs[1]] is Rows.FIRST:
        return places[tensor.inputs[1]]
    own = _own_places(tensor, found, places)
    return own.pop() if len(own) == 1 else None


def _pointwise(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    """Operands are broadcast from the right: the batch is one axis if all that have it have it at the same place."""
    name, rank = tensor.op_name, tensor.ndim
    if Rows.SUM in kinds:  # a sum of sums, or its negative, is one; a product with what has no rows too
        linear = name in ("add", "subtract", "negative") and set(kinds) == {Rows.SUM}
        scaled = name in ("multiply", "divide") and kinds[0] is Rows.SUM and kinds[1:] == [Rows.NONE]
        scaled = scaled or (name == "multiply" and kinds == [Rows.NONE, Rows.SUM])
        return Rows.SUM if linear or scaled else Rows.MIXED
    having = {kind for kind in kinds if kind is not Rows.NONE}
    if len(having) > 1:
        return Rows.MIXED
    (kind,) = having
    for operand, own in zip(tensor.inputs, kinds):
        if own is Rows.FIRST and operand.ndim != rank:
            return Rows.MIXED
        if own is Rows.NONE and not _spreads(operand, rank, kind):
            return Rows.MIXED
    return kind


def _spreads(operand: Tensor, rank: int, kind: Rows) -> bool:
    """Whether an operand without a batch is the same for all samples: it has length 1, or nothing, where they are."""
    if kind is Rows.LAST:
        return operand.ndim == 0 or operand.shape[-1] == 1
    return operand.ndim < rank or operand.shape[0] == 1


def _axis_kept(axes: Callable[[Tensor], Sequence[int]]) -> Rule:
    """An op that folds or scans some axes: rows stay rows if the batch is not among them."""

    def rule(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
        return Rows.FIRST if kinds[0] is Rows.FIRST and 0 not in axes(tensor) else Rows.MIXED

    return rule


def _first(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    return kinds[0] if kinds[0] is Rows.FIRST else Rows.MIXED


def _sum(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    if kinds[0] is Rows.FIRST:
        return Rows.SUM if 0 in tensor.attrs["axes"] else Rows.FIRST
    return kinds[0] if kinds[0] is Rows.SUM else Rows.MIXED


def _cast(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    return kinds[0] if kinds[0] is not Rows.SUM else Rows.MIXED


def _matmul(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    a, b = tensor.inputs
    left, right = kinds
    if (left, right) == (Rows.LAST, Rows.FIRST) and a.ndim == b.ndim == 2:
        return Rows.SUM  # the samples are what is summed over
    if (left, right) == (Rows.FIRST, Rows.NONE):
        return Rows.FIRST if b.ndim == 2 or b.ndim < a.ndim else Rows.MIXED
    if (left, right) == (Rows.NONE, Rows.FIRST):
        return Rows.FIRST if b.ndim > 2 and a.ndim < b.ndim else Rows.MIXED
    if (left, right) == (Rows.FIRST, Rows.FIRST):
        return Rows.FIRST if a.ndim == b.ndim > 2 else Rows.MIXED
    return Rows.SUM if Rows.SUM in kinds and Rows.NONE in kinds else Rows.MIXED


def _einsum(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    terms, result = split_equation(tensor.attrs["equation"])
    if any(kind not in (Rows.NONE, Rows.FIRST) for kind in kinds):
        return Rows.MIXED
    letters = {term[:1] for term, kind in zip(terms, kinds) if kind is Rows.FIRST}
    (letter,) = letters if len(letters) == 1 else ("",)
    if not letter or any(letter in term for term, kind in zip(terms, kinds) if kind is Rows.NONE):
        return Rows.MIXED
    if any(letter in term[1:] for term in terms):
        return Rows.MIXED
    if letter not in result:
        return Rows.SUM
    return Rows.FIRST if result.startswith(letter) else Rows.MIXED


def _reshape(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    """The batch stays axis 0 if the other axes hold as many values as before."""
    before, after = tensor.inputs[0].shape[1:], tensor.attrs["shape"][1:]
    if kinds[0] is Rows.FIRST and tensor.attrs["shape"] and tensor.attrs["shape"][0] == -1 and None not in before:
        return Rows.FIRST  # as many places as fit: see `_places`
    if kinds[0] is not Rows.FIRST or not tensor.attrs["shape"] or tensor.attrs["shape"][0] not in (None, -1):
        return Rows.MIXED
    if None in before or any(n in (None, -1) for n in after):
        same = tensor.attrs["shape"][0] is None and before == tuple(after)
        return Rows.FIRST if same else Rows.MIXED
    kept = math.prod(n for n in before if n is not None) == math.prod(after)
    return Rows.FIRST if kept else Rows.MIXED


def _transpose(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    axes = tensor.attrs["axes"]
    place = 0 if kinds[0] is Rows.FIRST else len(axes) - 1
    if axes[0] == place:
        return Rows.FIRST
    return Rows.LAST if axes[-1] == place else Rows.MIXED


def _broadcast_to(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    same = kinds[0] is Rows.FIRST and tensor.inputs[0].ndim == tensor.ndim and tensor.attrs["shape"][0] is None
    return Rows.FIRST if same else Rows.MIXED


def _like(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    """x in the shape of `like`, both with the batch first; or summed into what has none."""
    x, like = tensor.inputs
    if tensor.op_name == "sum_to_like" and kinds == [Rows.FIRST, Rows.NONE]:
        return Rows.SUM if like.ndim < x.ndim or like.shape[0] == 1 else Rows.MIXED
    if kinds[1] is not Rows.FIRST:
        return Rows.MIXED
    if kinds[0] is Rows.NONE:
        spreads = tensor.op_name == "broadcast_like" and _spreads(x, tensor.ndim, Rows.FIRST)
        return Rows.FIRST if spreads else Rows.MIXED
    named = tensor.op_name in ("reshape_like", "put_slice", "put_windows")
    return Rows.FIRST if kinds[0] is Rows.FIRST and (named or x.ndim == like.ndim) else Rows.MIXED


def _concatenate(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    if set(kinds) == {Rows.SUM}:
        return Rows.SUM
    return Rows.FIRST if tensor.attrs["axis"] and set(kinds) == {Rows.FIRST} else Rows.MIXED


def _pad(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    return _first(tensor, kinds) if tuple(tensor.attrs["pads"][0]) == (0, 0) else Rows.MIXED


def _slice(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    return _first(tensor, kinds) if tensor.attrs["bounds"][0] == (None, None, 1) else Rows.MIXED


def _put_slice(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    return _like(tensor, kinds) if tensor.attrs["bounds"][0] == (None, None, 1) else Rows.MIXED


def _take(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    axis = tensor.attrs["axis"]
    if kinds == [Rows.FIRST, Rows.NONE] and axis > 0:
        return Rows.FIRST
    return Rows.FIRST if kinds == [Rows.NONE, Rows.FIRST] and axis == 0 else Rows.MIXED


def _put_add(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    if kinds == [Rows.FIRST, Rows.FIRST, Rows.NONE] and tensor.attrs["axis"] == 0:
        return Rows.SUM  # the gradient of a table from which every sample took its rows
    axis = tensor.attrs["axis"]
    return Rows.FIRST if kinds == [Rows.FIRST, Rows.NONE, Rows.FIRST] and axis > 0 else Rows.MIXED


def _count(tensor: Tensor, kinds: Sequence[Rows]) -> Rows:
    batch = tensor.inputs[0].ndim - 1 if kinds[0] is Rows.LAST else 0
    return Rows.NONE if batch not in tensor.attrs["axes"] else Rows.MIXED


def _axes(tensor: Tensor) -> Sequence[int]:
    return tuple(tensor.attrs["axes"])


def _axis(tensor: Tensor) -> Sequence[int]:
    return (int(tensor.attrs["axis"]),)


RULES: dict[str, Rule] = {
    "cast": _cast,
    "matmul": _matmul,
    "einsum": _einsum,
    "reshape": _reshape,
    "transpose": _transpose,
    "expand_dims": _axis_kept(_axes),
    "squeeze": _axis_kept(_axes),
    "broadcast_to": _broadcast_to,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "put_slice": _put_slice,
    "take": _take,
    "put_add": _put_add,
    "one_hot": _first,
    "windows": _first,
    "sum": _sum,
    "count": _count,
    **dict.fromkeys(("sum_to_like", "broadcast_like", "reshape_like", "put_windows"), _like),
    **{name: _axis_kept(_axis) for name in ("argmax", "argmin", "cumsum")},
    **{
        name: _axis_kept(_axes)
        for name in ("max", "min", "logsumexp", "softmax", "log_softmax", "sparsemax", "standardize", "rms_normalize")
    },
}


def unknown_ops(registry: Mapping[str, Any]) -> list[str]:
    """Return the ops of a registry for which there is no rule: they count as MIXED."""
    return [name for name, op in registry.items() if not isinstance(op, Pointwise) and name not in RULES]
