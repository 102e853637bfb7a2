"""Matrix products: `matmul` for the common case, `einsum` for all others."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsref.ops.base import Op, apply, as_tensor, broadcast_shapes, compatible, normal_axis, rank, register
from rsref.ops.pointwise import broadcast_like, cast, sum_to_like
from rsref.ops.structure import expand_dims, reshape, squeeze, swapaxes
from rsref.tensor import Spec, Tensor


class MatMul(Op):
    """The product of the last two axes; the axes before them are broadcast. Both operands have rank 2 or more."""

    name = "matmul"

    def infer(self, a: Spec, b: Spec) -> Spec:
        inner = (a.shape[-1], b.shape[-2])
        if None not in inner and inner[0] != inner[1]:
            raise ValueError(f"matmul: inner lengths differ: shapes {a.shape} and {b.shape}")
        batch = broadcast_shapes(self.name, a.shape[:-2], b.shape[:-2])
        return Spec((*batch, a.shape[-2], b.shape[-1]), "float")

    def forward(self, a: Any, b: Any) -> Any:
        return a @ b

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        a, b = operands
        if wrt == 0:
            return sum_to_like(matmul(g, swapaxes(b, -1, -2)), a)
        some = 0 not in (a.shape[-1], g.shape[-1])  # else how many rows there are does not follow from the lengths
        if some and rank(b) == 2 and rank(a) > 2:  # one product over all rows, instead of one a batch entry and a sum
            a, g = reshape(a, (-1, a.shape[-1])), reshape(g, (-1, g.shape[-1]))
        return sum_to_like(matmul(swapaxes(a, -1, -2), g), b)


_mat_mul = register(MatMul())


def matmul(x1: Any, x2: Any) -> Any:
    """Return the matrix product, as numpy.matmul: operands of rank 1 are taken as a row and a column.

    Shapes: (..., m, k) and (..., k, n) give (..., m, n).
    Errors: ValueError if the inner lengths differ or an operand is a number.
    """
    if min(rank(x1), rank(x2)) == 0:
        raise ValueError("matmul: operands must have rank 1 or more; use multiply for a number")
    a = expand_dims(x1, 0) if rank(x1) == 1 else x1
    b = expand_dims(x2, 1) if rank(x2) == 1 else x2
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        a, b = cast(as_tensor(a), "float"), cast(as_tensor(b), "float")
    y = apply(_mat_mul, a, b)
    if rank(x2) == 1:
        y = squeeze(y, -1)
    if rank(x1) == 1:
        y = squeeze(y, -1 if rank(x2) == 1 else -2)
    return y


class Einsum(Op):
    """Sum of products by a subscript equation without dots, with an explicit result and no letter twice in a term."""

    name = "einsum"

    def infer(self, *operands: Spec, equation: str) -> Spec:
        terms, result = split_equation(equation)
        lengths: dict[str, int | None] = {}
        for term, operand in zip(terms, operands):
            for letter, n in zip(term, operand.shape):
                if not compatible((n,), (lengths.get(letter),)):
                    shapes = [operand.shape for operand in operands]
                    raise ValueError(f"einsum {equation!r}: the lengths of {letter!r} differ in shapes {shapes}")
                lengths[letter] = n if lengths.get(letter) is None else lengths[letter]
        return Spec(tuple(lengths[letter] for letter in result), "float")

    def forward(self, *operands: Any, equation: str) -> Any:
        return np.einsum(equation, *operands, optimize=len(operands) > 1)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        terms, result = split_equation(attrs["equation"])
        others = [i for i in range(len(terms)) if i != wrt]
        seen = set(result).union(*(terms[i] for i in others)) if others else set(result)
        kept = "".join(letter for letter in terms[wrt] if letter in seen)
        equation = ",".join([result, *(terms[i] for i in others)]) + "->" + kept
        gradient = apply(_einsum, g, *(operands[i] for i in others), equation=equation)
        for axis, letter in enumerate(terms[wrt]):  # a letter summed away in this operand alone: the same for all
            if letter not in seen:
                gradient = expand_dims(gradient, axis)
        return broadcast_like(gradient, operands[wrt]) if len(kept) < len(terms[wrt]) else gradient


_einsum = register(Einsum())


def split_equation(equation: str) -> tuple[list[str], str]:
    operands, result = equation.split("->")
    return operands.split(","), result


def einsum(subscripts: str, *operands: Any) -> Any:
    """Return a sum of products, as numpy.einsum: einsum("bij,bj->bi", x, y).

    Dots stand for leading axes that are kept; without "->" the letters that occur once are the result's, in order.
    Errors: ValueError if ranks or lengths do not fit, or a letter stands twice in one term (a diagonal).
    """
    equation = _explicit(subscripts, [rank(operand) for operand in operands])
    if any(isinstance(operand, Tensor) for operand in operands):
        operands = tuple(cast(as_tensor(operand), "float") for operand in operands)
    return apply(_einsum, *operands, equation=equation)


def _explicit(subscripts: str, ranks: list[int]) -> str:
    text = subscripts.replace(" ", "")
    left, arrow, result = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"einsum {subscripts!r} names {len(terms)} operands; {len(ranks)} are given")
    spare = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in text]
    widest = 0
    for i, (term, ndim) in enumerate(zip(terms, ranks)):
        if "..." in term:
            extra = ndim - len(term.replace("...", ""))
            widest = max(widest, extra)
            dots = "".join(spare[: max(extra, 0)][::-1])  # aligned at the right, as broadcasting is
            terms[i] = term.replace("...", dots)
        if len(terms[i]) != ndim:
            raise ValueError(f"einsum {subscripts!r}: term {term!r} does not fit an operand of rank {ndim}")
        if len(set(terms[i])) != ndim:
            raise ValueError(f"einsum {subscripts!r}: a letter twice in term {term!r} (a diagonal) is not accepted")
    dots = "".join(spare[:widest][::-1])
    if not arrow:
        letters = "".join(terms)
        result = dots + "".join(sorted(c for c in set(letters) - set(dots) if letters.count(c) == 1))
    result = result.replace("...", dots)
    if len(set(result)) != len(result) or not set(result) <= set("".join(terms)):
        raise ValueError(f"einsum {subscripts!r}: every letter of the result must stand once, and in some operand")
    return ",".join(terms) + "->" + result


def tensordot(x1: Any, x2: Any, axes: int | tuple[Any, Any] = 2) -> Any:
    """Return the sum over pairs of axes, as numpy.tensordot. Shapes: the axes left of x1, then those left of x2.

    Errors: ValueError if an axis is out of range, or the axes of one are more than those of the other.
    """
    n, m = rank(x1), rank(x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(n, m):
            raise ValueError(f"tensordot: axes={axes} is not possible for tensors of ranks {n} and {m}")
        first, second = list(range(n - axes, n)), list(range(axes))
    else:
        pair = [[a] if isinstance(a, int) else list(a) for a in axes]
        first = [normal_axis("tensordot", a, n) for a in pair[0]]
        second = [normal_axis("tensordot", a, m) for a in pair[1]]
        if len(first) != len(second):
            raise ValueError(f"tensordot: axes={axes!r} must name as many axes of one tensor as of the other")
    letters = "abcdefghijklmnopqrstuvwxyz"
    left, right = list(letters[:n]), list(letters[n : n + m])
    for i, j in zip(first, second):
        right[j] = left[i]
    kept = [c for i, c in enumerate(left) if i not in first] + [c for j, c in enumerate(right) if j not in second]
    return einsum(f"{''.join(left)},{''.join(right)}->{''.join(kept)}", x1, x2)


def dot(x1: Any, x2: Any) -> Any:
    """Return the dot product, as numpy.dot: over the last axis of x1 and the last but one (or only one) of x2."""
    if min(rank(x1), rank(x2)) == 0:
        return x1 * x2
    if rank(x2) <= 2:
        return matmul(x1, x2)
    return tensordot(x1, x2, (rank(x1) - 1, rank(x2) - 2))
