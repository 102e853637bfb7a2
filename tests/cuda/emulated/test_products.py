"""Matrix products by tiles, alone: every way in which operands lie in memory, and sizes around those of a tile."""

import numpy as np
import pytest

from rsref_fast.cuda import build
from rsref_fast.cuda.tile import USUAL, Tile
from rsref_fast.cuda.words import NUMBERS
from tests.cuda.emulator import Kernel
from tests.cuda.kernels import TILE

TILES = {"small": TILE, "high": Tile(across=1, down=3, wide=2, high=2, depth=12, parts=4), "usual": USUAL}
TEXT = '''
@entry
def strided(P, N, Q):
    """P: a, b, c; N: rows, columns, depth, steps of a, of b, of a row of c, and whether to add."""
    multiply(
        N[0], N[1], N[2], floats(P, 0), N[3], N[4], floats(P, 1), N[5], N[6], floats(P, 2), N[7], N[8], 0, 0
    )
    return 0


@entry
def packed(P, N, Q):
    """P: a, b, c, panels."""
    pack(N[2], N[1], floats(P, 1), N[5], N[6], floats(P, 3), rank_of(N), size_of(N))
    meet(N)
    multiply_packed(N[0], N[1], N[2], floats(P, 0), N[3], N[4], floats(P, 3), floats(P, 2), N[7], N[8], 0, 0)
    return 0
'''


def run(kernel, tile, rows, columns, depth, dtype, left, right, add, backwards):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows, depth)).astype(dtype), rng.normal(size=(depth, columns)).astype(dtype)
    c = rng.normal(size=(rows, columns + 3)).astype(dtype)
    expected = c.copy()
    expected[:, :columns] = a.astype(np.float64) @ b + (c[:, :columns] if add else 0)
    a, b = (np.asfortranarray(m) if transposed else m for m, transposed in ((a, left), (b, right)))
    panels = np.full((columns + tile.columns) * depth, np.nan, dtype)
    steps = [step // dtype.itemsize for m in (a, b) for step in m.strides]
    table = np.array([m.ctypes.data for m in (a, b, c, panels)], np.int64)
    numbers = np.zeros(NUMBERS, np.int64)  # with the word by which blocks wait for each other
    numbers[:9] = rows, columns, depth, *steps, columns + 3, add
    kernel.launch(2, tile.threads, table.ctypes.data, numbers.ctypes.data, 0, 0, 0, 0, backwards=backwards)
    scale = np.abs(expected).max(initial=1)
    np.testing.assert_allclose(c / scale, expected / scale, rtol=0, atol=1e-12 if dtype.itemsize == 8 else 2e-6)


@pytest.mark.covering("pairs")
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", TILES)
@pytest.mark.parametrize("entry", ["strided", "packed"])
def test_products(entry, name, dtype):
    dtype, tile = np.dtype(dtype), TILES[name]
    kernel = Kernel(build.kernel(TEXT, entry, dtype, tile, "grid"))
    sizes = [
        (1, 1, 1), (tile.rows, tile.columns, tile.depth), (tile.rows + 1, 3 * tile.columns + 1, 2 * tile.depth + 1),
        (2 * tile.rows - 1, tile.columns - 1, tile.depth - 1), (3, 2, 0), (0, 3, 2),
    ]  # fmt: skip
    for number, size in enumerate(sizes):
        for left, right in ((False, False), (True, False), (False, True), (True, True)):
            run(kernel, tile, *size, dtype, left, right, number % 2, backwards=left == right)


def test_a_tile_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match="do not share out"):
        Tile(across=4, down=3, wide=1, high=2, depth=5, parts=1)
