"""Composite ops become the pointwise ops and reductions that they are made of, which can then be fused.

Drawn with rsref's own ops, from the same formulas as their gradients, so that what both need is computed once. Applied
after differentiation, so that every op keeps its own, stable gradient. Sums of slices put side by side, as the gradient
of a split, become one concatenation; products that sum over nothing become multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rsref import ops
from rsref.graph import topological_order
from rsref.ops.base import concrete_attrs
from rsref.ops.linear import split_equation
from rsref.ops.pointwise import Cast, Pointwise
from rsref.tensor import ConstantSource, Tensor, constant

Rule = Callable[[Tensor], Tensor | None]


def simplify(results: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors that compute the same with fewer kinds of ops, each computed once, and numbers worked out."""
    results = list(results)
    for rule in (_joined, _decomposed, _outer, _column, _Shared(), _known):
        replaced: dict[Tensor, Tensor] = {}
        for tensor in topological_order(results):
            if tensor.op is None:
                continue
            current = _redrawn(tensor, replaced)
            new = rule(current)
            if new is not None or current is not tensor:
                replaced[tensor] = current if new is None else new
        results = [replaced.get(t, t) for t in results]
    return results


def _redrawn(tensor: Tensor, replaced: dict[Tensor, Tensor]) -> Tensor:
    operands = [replaced.get(i, i) for i in tensor.inputs]
    if all(a is b for a, b in zip(operands, tensor.inputs)):
        return tensor
    spec = tensor.op.infer(*(i.spec for i in operands), **tensor.attrs)  # type: ignore[union-attr]
    return Tensor(spec, op=tensor.op, inputs=operands, attrs=tensor.attrs, name=tensor.name)


class _Shared:
    """Tensors that are computed alike from the same operands become one."""

    def __init__(self) -> None:
        self.seen: dict[Any, Tensor] = {}

    def __call__(self, tensor: Tensor) -> Tensor | None:
        operands = tuple(_number(i) or i for i in tensor.inputs)
        key = (tensor.op, repr(sorted(tensor.attrs.items())), operands)
        first = self.seen.setdefault(key, tensor)
        return None if first is tensor else first


def _number(tensor: Tensor) -> tuple[str, str] | None:
    """Return what tells a fixed number from others; None for any other tensor."""
    if isinstance(tensor.source, ConstantSource) and tensor.source.value.size == 1:
        return str(tensor.shape) + tensor.dtype, repr(tensor.source.value.reshape(())[()])
    return None


def _known(tensor: Tensor) -> Tensor | None:
    """What is computed of fixed numbers is a fixed number; so is the number of values along axes of known lengths."""
    if tensor.op_name == "count":
        lengths = [tensor.inputs[0].shape[a] for a in tensor.attrs["axes"]]
        return None if None in lengths else constant(float(math.prod(n or 0 for n in lengths)))
    values = [i.source.value if isinstance(i.source, ConstantSource) and i.source.value.size == 1 else None
              for i in tensor.inputs]  # fmt: skip
    if tensor.op is None or not values or any(v is None for v in values) or not isinstance(tensor.op, Pointwise | Cast):
        return None
    with np.errstate(all="ignore"):
        return constant(tensor.op.forward(*values, **concrete_attrs(tensor.attrs, np.float64)))


def _decomposed(tensor: Tensor) -> Tensor | None:
    rule = DECOMPOSED.get(tensor.op_name)
    return None if rule is None else rule(tensor)


def _greatest(x: Tensor, axes: tuple[int, ...]) -> Any:
    """Return the greatest value over axes, which stay with length 1; 0 for no values at all."""
    return 0.0 if any(x.shape[a] == 0 for a in axes) else ops.max(x, axes, keepdims=True)


def _softmax(tensor: Tensor) -> Tensor:
    (x,), axes = tensor.inputs, tensor.attrs["axes"]
    e = ops.exp(x - _greatest(x, axes))
    return e / ops.sum(e, axes, keepdims=True)


def _log_softmax(tensor: Tensor) -> Tensor:
    (x,), axes = tensor.inputs, tensor.attrs["axes"]
    shifted = x - _greatest(x, axes)
    return shifted - ops.log(ops.sum(ops.exp(shifted), axes, keepdims=True))


def _logsumexp(tensor: Tensor) -> Tensor:
    (x,), axes, keepdims = tensor.inputs, tensor.attrs["axes"], tensor.attrs["keepdims"]
    top = _greatest(x, axes)
    top = ops.where(ops.isfinite(top), top, 0.0)
    y = ops.log(ops.sum(ops.exp(x - top), axes, keepdims=True)) + top
    return y if keepdims or not axes else ops.squeeze(y, axes)


def _standardize(tensor: Tensor) -> Tensor:
    (x,), axes = tensor.inputs, tensor.attrs["axes"]
    centred = x - ops.mean(x, axes, keepdims=True)
    return centred * ops.rsqrt(ops.mean(ops.square(centred), axes, keepdims=True) + tensor.attrs["epsilon"])


def _rms_normalize(tensor: Tensor) -> Tensor:
    (x,), axes = tensor.inputs, tensor.attrs["axes"]
    return x * ops.rsqrt(ops.mean(ops.square(x), axes, keepdims=True) + tensor.attrs["epsilon"])


DECOMPOSED: dict[str, Rule] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "standardize": _standardize,
    "rms_normalize": _rms_normalize,
}


def _joined(tensor: Tensor) -> Tensor | None:
    """A sum of tensors put at slices that together fill one axis is their concatenation."""
    if tensor.op is None or tensor.op.name != "add":
        return None
    parts = _terms(tensor)
    if any(part.op is None or part.op.name != "put_slice" for part in parts):
        return None
    bounds = [part.attrs["bounds"] for part in parts]
    axes = [i for i in range(tensor.ndim) if any(b[i] != (None, None, 1) for b in bounds)]
    if len(axes) != 1 or tensor.shape[axes[0]] is None:
        return None
    (axis,) = axes
    length = tensor.shape[axis]
    spans = [slice(*b[axis]).indices(length) for b in bounds]  # type: ignore[arg-type]
    placed = sorted(zip(spans, range(len(parts))))
    ends = [0, *(span[1] for span, _ in placed)]
    starts = [*(span[0] for span, _ in placed), length]
    if starts != ends or any(span[2] != 1 for span in spans):
        return None
    if any(part.inputs[0].ndim != tensor.ndim for part in parts):
        return None
    return ops.concatenate([parts[i].inputs[0] for _, i in placed], axis)


def _terms(tensor: Tensor) -> list[Tensor]:
    """Return the tensors of which a tree of additions, all of one shape, is the sum."""
    if tensor.op is None or tensor.op.name != "add" or any(i.shape != tensor.shape for i in tensor.inputs):
        return [tensor]
    return [term for operand in tensor.inputs for term in _terms(operand)]


def _outer(tensor: Tensor) -> Tensor | None:
    """A product that sums over nothing is a multiplication, which can be fused with what reads it.

    Not one of two matrices: the axis of length 1 could be the batch.
    """
    name = tensor.op_name
    if name == "matmul" and tensor.ndim > 2:
        a, b = tensor.inputs
        return ops.multiply(a, b) if a.shape[-1] == 1 else None
    if name != "einsum" or len(tensor.inputs) != 2:
        return None
    terms, result = split_equation(tensor.attrs["equation"])
    in_order = all(term == "".join(letter for letter in result if letter in term) for term in terms)
    if not in_order or set("".join(terms)) != set(result):
        return None
    missing = [[axis for axis, letter in enumerate(result) if letter not in term] for term in terms]
    a, b = (ops.expand_dims(x, axes) for x, axes in zip(tensor.inputs, missing))
    return ops.multiply(a, b)


def _column(tensor: Tensor) -> Tensor | None:
    """The gradient of a vector that weighs places of each sample is a sum, added up where the places are computed.

    Drawn as a product of all of them, transposed, and of one column.
    """
    if tensor.op is None or tensor.op.name != "matmul" or tensor.shape[1:] != (1,):
        return None
    left, right = tensor.inputs
    if left.op is None or left.op.name != "transpose":
        return None
    x, g = (i.inputs[0] if i.op_name == "reshape" else i for i in (left.inputs[0], right))
    if x.ndim < 3 or g.shape != (*x.shape[:-1], 1) or x.shape[-1] != tensor.shape[0]:
        return None
    return ops.expand_dims(ops.sum(ops.multiply(x, g), tuple(range(x.ndim - 1))), 1)
