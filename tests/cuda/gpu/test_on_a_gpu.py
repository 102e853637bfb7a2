"""On a GPU itself: every strategy, products by our tiles and, where it is installed, by cuBLAS, against the oracle."""

import numpy as np
import pytest

from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import driver
from rsref_fast.cuda.choice import Choice
from rsref_fast.cuda.options import lacking
from rsref_fast.cuda.tile import USUAL
from tests.cuda.on_device import ThereAndBack
from tests.cuda.steps import looking_up
from tests.fast.agreement import check
from tests.fast.made import MASK, recurrence_of

DEVICE = driver.current()
LIBRARY = [] if lacking(DEVICE) else ["cublas"]
WAYS = {
    "grid": Choice("persistent", "grid", 1, 132),
    "units": Choice("persistent", "units", 1, 6, "tiles", 2),
    "units in lines of one block": Choice("persistent", "units", 1, 1, "tiles", 3),
    "units without tensor cores": Choice("persistent", "units", 1, 6, "tiles", 2),
    "block": Choice("persistent", "block", 3, 132),
    "tiles": Choice("alternating", "grid", 1, 132),
    **{f"{name}, {by}": Choice("persistent", name, 1, 6, by) for name in ("grid", "units") for by in LIBRARY},
    **{by: Choice("alternating", "grid", 1, 132, by) for by in LIBRARY},
}
CELLS = ["LSTMCell", "GRUCell", "RHNCell", "LayerNormLSTMCell", "AttentionDecoderCell"]


def engine_of(own, way):
    engine = ThereAndBack(own, DEVICE, tile=USUAL if "without" in way else None, rows=64)
    engine.engine.choice = WAYS[way]
    return engine


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CELLS)
def test_against_the_oracle(name, way, dtype):
    """Twice, with other arrays at other places: what is recorded must not remember the first ones."""
    own = recurrence_of(name, 24, 7)
    engine = engine_of(own, way)
    for seed in range(2):
        check(own, random_arguments(own, batch=5, steps=20, seed=seed), dtype=dtype, engine=engine)


@pytest.mark.parametrize("options", [{"truncate": 2}, {"zero_output_for_mask": True}], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_masks_and_cuts(way, options):
    own = recurrence_of("LSTMCell", 24, 7, **options)
    engine = engine_of(own, way)
    for mask in (None, MASK):
        check(own, random_arguments(own, batch=3, steps=5, mask=mask), dtype=np.float32, engine=engine)


@pytest.mark.parametrize("way", WAYS)
def test_results_are_the_same_bit_by_bit(way):
    own = recurrence_of("LSTMCell", 96, 33)
    engine = engine_of(own, way)
    arguments = random_arguments(own, batch=17, steps=12).cast(np.float32)
    found = []
    for _ in range(3):
        (y,), _, tape = arguments.forward(engine)
        found.append([y, *engine.backward(tape, [np.ones_like(y)], [None, None]).parameters])
    for again in found[1:]:
        for a, b in zip(found[0], again, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("way", ["grid", "units"])
def test_blocks_wait_for_each_other_also_where_an_index_is_out_of_range(way):
    own, table = looking_up()
    engine = engine_of(own, way)
    (y,), _, _ = engine.forward([np.full((5, 20), 3)], [], [np.zeros((5, 2))], [table])
    np.testing.assert_allclose(y, np.cumsum(np.broadcast_to(table[0], y.shape), axis=1), rtol=0, atol=1e-12)
    with pytest.raises(IndexError, match="out of range"):
        engine.engine.check_indices()
