"""Products with weights that blocks hold: in plain arithmetic, and on tensor cores."""

import numpy as np
import pytest

from rsref_fast.cpu.source import Held
from rsref_fast.cuda import build
from rsref_fast.cuda.driver import Limits
from rsref_fast.cuda.holding import WIDE, blocks_for
from rsref_fast.cuda.tile import Tile
from tests.cuda.emulator import Kernel
from tests.cuda.kernels import TILE, WARPS

TILES = {"plain": TILE, "tensor": WARPS}
TEXT = '''
@entry
def held(P, N, Q):
    """P: a, b, c; N: rows, columns of each part, terms, steps of a, of b, of a row of c, parts, and whether to add."""
    hold(N[2], N[8], N[1], floats(P, 1), N[5], N[6], 0)
    multiply_held(N[0], N[8], N[1], N[2], floats(P, 0), N[3], N[4], 0, floats(P, 2), N[7], N[9])
    return 0
'''
SHRINKING = '''
@entry
def held(P, N, Q):
    """Products of fewer and fewer rows, each into a place of its own: as `N` above, then how far these are apart."""
    hold(N[2], N[8], N[1], floats(P, 1), N[5], N[6], 0)
    rows = N[0]
    while rows >= 0:
        multiply_held(rows, N[8], N[1], N[2], floats(P, 0), N[3], N[4], 0, at(floats(P, 2), rows * N[10]), N[7], 0)
        rows -= 1 if rows % 2 == 0 else 3
    return 0
'''
SIZES = [
    (1, 1, 1, 1), (16, 4, 8, 16), (17, 3, 11, 48), (5, 1, 70, 33), (40, 2, 13, 208), (3, 2, 2, 0), (0, 2, 3, 4),
    (2, 1, 9, 32), (70, 4, 3, 20),
]  # fmt: skip
"""Rows, parts, columns of each part, terms."""


def kernel_of(name, dtype, text=TEXT):
    return Kernel(build.kernel(text, "held", np.dtype(dtype), TILES[name], "grid"))


@pytest.fixture(scope="module", params=["plain-f4", "plain-f8", "tensor-f4"])
def compiled(request):
    name, dtype = request.param.split("-")
    return kernel_of(name, dtype), TILES[name], np.dtype(dtype)


def run(compiled, rows, parts, units, depth, left=False, right=False, add=0, backwards=False, spoil=None, apart=0):
    kernel, tile, dtype = compiled
    rng = np.random.default_rng(0)
    a = rng.normal(size=(rows, depth)).astype(dtype)
    b = rng.normal(size=(depth, parts * units)).astype(dtype)
    c = rng.normal(size=(rows, parts * units + 3)).astype(dtype)
    if spoil is not None:
        a[spoil[0]] = spoil[1]
    expected = c.astype(np.float64)
    with np.errstate(invalid="ignore"):
        expected[:, : parts * units] = a.astype(np.float64) @ b.astype(np.float64) + (c[:, :-3] if add else 0)
    wide = np.full((rows, depth + apart), np.nan, dtype)
    wide[:, :depth] = a
    a = np.asfortranarray(a) if left else wide[:, :depth]
    b = np.asfortranarray(b) if right else b
    steps = [step // dtype.itemsize for m in (a, b) for step in m.strides]
    table = np.array([m.ctypes.data for m in (a, b, c)], np.int64)
    numbers = np.array([rows, units, depth, *steps, c.shape[1], parts, add, 0, 0, 0, 0, 0, 0], np.int64)
    kernel.launch(
        3, tile.threads, table.ctypes.data, numbers.ctypes.data, 0, 0, 0, 0, backwards=backwards, lines=2
    )  # fmt: skip
    return c, expected


def close(c, expected):
    finite = np.abs(expected[np.isfinite(expected)])
    scale = finite.max(initial=1)
    np.testing.assert_allclose(c / scale, expected / scale, rtol=0, atol=1e-12 if c.dtype.itemsize == 8 else 1e-6)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "-".join(map(str, size)))
def test_products_with_held_weights(compiled, size):
    for number, (left, right) in enumerate(((False, False), (True, False), (False, True), (True, True))):
        close(*run(compiled, *size, left, right, number % 2, backwards=left == right, apart=4 * (number // 2)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3.4e38])
def test_what_is_not_finite_is_as_float32_has_it(compiled, value):
    """An infinity minus itself would be no number: tensor cores get numbers in two parts."""
    _, _, dtype = compiled
    c, expected = run(compiled, 18, 4, 13, 32, spoil=((17, 3), value))
    close(c[:17], expected[:17])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(np.isnan(c[17]), np.isnan(expected[17]))
        np.testing.assert_allclose(c[17], expected[17].astype(dtype), rtol=1e-6)


@pytest.mark.parametrize("name", TILES)
def test_rows_may_become_fewer(name):
    """What a thread has noted about a product is of so many rows, and no others."""
    kernel, most, columns, depth = kernel_of(name, "f4", SHRINKING), 40, 52, 48
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(most, depth)).astype("f4"), rng.normal(size=(depth, columns)).astype("f4")
    c = np.full((most + 1, most, columns), np.nan, "f4")
    table = np.array([m.ctypes.data for m in (a, b, c)], np.int64)
    numbers = np.array([most, 13, depth, depth, 1, columns, 1, columns, 4, 0, most * columns, 0, 0, 0, 0, 0], np.int64)
    kernel.launch(3, TILES[name].threads, table.ctypes.data, numbers.ctypes.data, 0, 0, 0, 0, lines=2)
    rows = most
    while rows >= 0:
        close(c[rows, :rows], a[:rows].astype(float) @ b.astype(float))
        assert np.isnan(c[rows, rows:]).all()
        rows -= 1 if rows % 2 == 0 else 3


def test_tensor_cores_lose_no_digits():
    """A product of one term: with the numbers' first eleven digits alone it would be off by a part in 2,000."""
    compiled = kernel_of("tensor", "f4"), TILES["tensor"], np.dtype("f4")
    c, expected = run(compiled, 16, 1, 24, 1)
    assert np.abs(c[:, :24] / expected[:, :24] - 1).max() < 2**-21


def test_tensor_cores_are_for_whole_warps():
    with pytest.raises(ValueError, match="no whole warps"):
        Tile(across=2, down=3, wide=3, high=1, depth=8, parts=2, tensor=True)


def test_columns_that_no_thread_has_are_not_held():
    """Without tensor cores a block's threads share out one row's columns: of more, none would be computed."""
    limits = Limits(16, threads=2048, registers=65536, shared=233472, shared_block=232448)
    most = 16 * WIDE * TILE.threads
    for units, found in ((most, (16, 1)), (most + 1, (0, 1))):
        assert blocks_for([[Held(1, 1, units, "w", (1, 1, 1))]], 1, limits, TILE, 8) == found
