"""Systems of linear equations of small matrices, drawn step by step: elimination by Gauss and Jordan, and Cholesky.

Each step is a few ops on all matrices of a batch, so a step may hold a Kalman filter of some dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rsref.ops.base import known_lengths
from rsref.ops.indexing import argmax, one_hot
from rsref.ops.pointwise import absolute, broadcast_like, equal, not_equal, sqrt, where
from rsref.ops.reduction import cast_like, sum
from rsref.ops.structure import concatenate, expand_dims, squeeze, stack

MOST = 32
"""Rows of a matrix: each draws some ten ops."""


def solve(a: Any, b: Any) -> Any:
    """x of a @ x = b, by elimination with the greatest pivot of each column.

    Shapes: a (..., n, n), b (..., n, m), or (..., n) for vectors, which answers such; one (n,) for all. Up to 32 rows.
    Errors: ValueError for other shapes. A singular matrix answers infinities or NaN.
    """
    if b.ndim == 1 < a.ndim - 1:
        b = broadcast_like(b, a[..., 0])
    if b.ndim == a.ndim - 1:
        return squeeze(solve(a, expand_dims(b, -1)), -1)
    n = _rows("solve", a)
    if b.ndim != a.ndim or b.shape[-2] != n:
        raise ValueError(
            f"solve: b must have shape (..., {n}) or (..., {n}, m) for a of shape {a.shape}; got {b.shape}"
        )
    system = concatenate([a, b], -1)
    for k in range(n):
        system, _, _ = _eliminated(system, k)
    return system[..., n:]


def inv(a: Any) -> Any:
    """The inverse of matrices (..., n, n); see `solve`."""
    n = _rows("inv", a)
    return solve(a, cast_like(broadcast_like(np.eye(n), a), a))


def det(a: Any) -> Any:
    """The determinant of matrices (..., n, n): the product of the pivots; see `solve`.

    Its gradient at a singular matrix is not finite.
    """
    n = _rows("det", a)
    found: Any = 1.0
    for k in range(n):
        a, pivot, swapped = _eliminated(a, k, singular=True)
        steep = where(equal(pivot, 0), sqrt(absolute(pivot)), pivot)  # 0 there, too, and its derivative is infinite
        found = found * where(swapped, -steep, steep)
    return found


def cholesky(a: Any, upper: bool = False) -> Any:
    """The lower triangle L of L @ L.T = a for symmetric positive definite matrices (..., n, n), or its transpose.

    Only the lower triangle of a is read. A matrix that is not positive definite answers NaN. Up to 32 rows.
    """
    n = _rows("cholesky", a)
    columns: list[Any] = []
    for k in range(n):
        column = a[..., :, k]
        for done in columns:
            column = column - done * done[..., k : k + 1]
        root = sqrt(column[..., k : k + 1])
        columns.append(where(np.arange(n) < k, 0.0, column / root))
    return stack(columns, -2 if upper else -1)


def _rows(name: str, a: Any) -> int:
    rows, columns = known_lengths(a.shape[-2:]) if a.ndim > 1 else (-1, 0)
    if rows != columns or not 1 <= rows <= MOST:
        raise ValueError(f"{name}: matrices must be square, of 1 to {MOST} rows; got shape {tuple(a.shape)}")
    return rows


def _eliminated(system: Any, k: int, singular: bool = False) -> tuple[Any, Any, Any]:
    """Bring the row with the greatest pivot of a column to its place, and clear the column in all others.

    Answers the system, the pivot, and whether rows changed places. singular: whether one goes on after a pivot of 0.
    """
    places = np.arange(known_lengths(system.shape[-2:-1])[0])
    column = system[..., k]
    best = argmax(where(places >= k, absolute(column), -1.0), -1)
    chosen = one_hot(best, len(places), dtype="bool")
    row, other = sum(where(expand_dims(chosen, -1), system, 0.0), -2), system[..., k, :]
    own = (places == k)[:, None]
    system = where(own, expand_dims(row, -2), where(expand_dims(chosen, -1), expand_dims(other, -2), system))
    pivot = row[..., k]
    divisor = where(equal(pivot, 0), 1.0, pivot) if singular else pivot
    row = row / expand_dims(divisor, -1)
    factors = expand_dims(system[..., k], -1)
    system = where(own, expand_dims(row, -2), system - factors * expand_dims(row, -2))
    return system, pivot, not_equal(best, k)
