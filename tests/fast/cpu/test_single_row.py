"""The product of a single row: the same bit by bit, whole and in two parts, however many threads share it."""

from pathlib import Path

import numpy as np
import pytest

from rsref_fast.cpu import build, gemm, objects
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.microkernel_shapes import fits, shape_for
from rsref_fast.cpu.pointers import pointer_to
from tests.fast.cpu.calling import function_at
from tests.fast.cpu.test_products import FEATURES


def pointers(*arrays):
    return np.array([a.__array_interface__["data"][0] for a in arrays])


def packed(dtype, shape):
    """Return a function: weights (depth, columns) in panels."""
    function, _ = gemm.products(build.element_of(dtype), shape)["pack"]
    floats, own = pointer_to(build.element_of(dtype)), plain(function)

    def run(P, N, Q):
        own(N[0], N[1], floats(P, 0), N[1], 1, floats(P, 1), 0, 1)
        return 0

    call = function_at(objects.load(*build.object_of(plain(run), build.ENTRY)))

    def panels(b):
        found = np.full(b.size, np.nan, dtype)
        numbers = np.array(b.shape)
        call(pointers(b, found).ctypes.data, numbers.ctypes.data)
        return found

    return panels


def whole(dtype, shape):
    """Return a function: the product as `multiply_row` has it, by a team."""
    function, _ = gemm.products(build.element_of(dtype), shape)["multiply_row"]
    floats, own = pointer_to(build.element_of(dtype)), plain(function)

    def run(P, N, Q):
        own(N[0], N[1], N[2], floats(P, 0), floats(P, 1), floats(P, 2), floats(P, 3), N[3], N[4], N[5], N[6])
        return 0

    call = function_at(objects.load(*build.object_of(plain(run), build.ENTRY)))

    def product(a, panels, o, units, accumulate, turn, team):
        c = np.full(o.shape, np.nan, dtype)
        for rank in range(team):
            numbers = np.array([o.size, a.size, units, accumulate, rank, team, turn])
            call(pointers(a, panels, c, o).ctypes.data, numbers.ctypes.data)
        return c

    return product


PARTS = """
@entry
def run(P, N, Q):
    a = floats(P, 0)
    panels = floats(P, 1)
    c = floats(P, 2)
    o = floats(P, 3)
    tile = aside()
    begin_row({0}, {1}, {2}, {3}, a, panels, tile, N[0], N[1])
    own = part({3}, N[0], 2)
    for j in range({2}):
        inside = j % {3} >= own and j % {3} < part({3}, N[0] + 1, 2)
        a[j] = NAN if inside else floats(P, 4)[j]
    end_row({0}, {1}, {2}, {3}, a, panels, tile, N[0], N[1], c, o, N[2])
    return 0
"""
"""Of the row only a thread's own part is there first, and then only the other's."""


def in_parts(dtype, shape, sizes):
    text = PARTS.format(*sizes)
    call = function_at(objects.load(*build.program(text, dtype, shape, Path("parts.py"))))

    def product(a, panels, o, accumulate, turn):
        c, depth, units = np.full(o.shape, np.nan, dtype), sizes[2], sizes[3]
        for rank in range(2):
            first = -(-units // shape.width) // 2 * shape.width
            own = (np.arange(depth) % units < first) == (rank == 0)
            row = np.where(own, a, np.nan).astype(dtype)
            call(pointers(row, panels, c, o, a).ctypes.data, np.array([rank, turn, accumulate]).ctypes.data)
        return c

    return product


@pytest.mark.covering("values")
@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows(dtype, kind):
    dtype = np.dtype(dtype)
    shape = shape_for(FEATURES[kind], dtype.itemsize * 8)
    panels_of, product, pair = packed(dtype, shape), whole(dtype, shape), 2 * shape.width
    rng = np.random.default_rng(0)
    for pieces, columns, depth, units in [
        (4, pair, pair, pair), (1, pair, 3 * pair, pair), (3, pair, 2 * pair, 2 * pair), (1, 4 * pair, pair, pair),
        (2, 3 * pair, pair, pair),
    ]:  # fmt: skip
        assert fits(pieces, columns, units, shape.width)
        parts = in_parts(dtype, shape, (pieces, columns, depth, units))
        a, o = (rng.standard_normal(n).astype(dtype) for n in (depth, pieces * columns))
        b = rng.standard_normal((depth, pieces * columns)).astype(dtype)
        panels = panels_of(b)
        for accumulate in (0, 1):
            first = product(a, panels, o, units, accumulate, turn=0, team=1)
            expected = a.astype(np.float64) @ b.astype(np.float64) + accumulate * o.astype(np.float64)
            assert np.abs(first - expected).max() <= (2e-6 if dtype == np.float32 else 5e-15) * 2 * depth**0.5
            for turn in (0, 1):
                for team in (1, 2, 3):
                    np.testing.assert_array_equal(product(a, panels, o, units, accumulate, turn, team), first)
                np.testing.assert_array_equal(parts(a, panels, o, accumulate, turn), first)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((4, 64, 64), True), ((4, 128, 128), True), ((4, 96, 64), False), ((4, 64, 96), False), ((4, 192, 192), False)],
)
def test_what_fits(sizes, expected):
    """Two threads have as many panels, and as many places of the row; their sums are few enough to be kept."""
    assert fits(*sizes, width=32) == expected
