"""How the valid steps of a masked batch are dealt out and laid out, and what masked steps show."""

import subprocess
import sys

import numpy as np
import pytest

import rsref_fast
from rsref import cells
from rsref.testing import random_arguments
from rsref_fast.cpu import masks, masks_plain
from rsref_fast.cpu.masks_plain import gathered_back, masked_batch
from rsref_fast.cpu.plan import Tables
from rsref_fast.packing import whole_batch, with_room
from tests.fast.agreement import check

BOTH = pytest.mark.parametrize("module", [masks, masks_plain])


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_packing_takes_every_valid_step_once_and_in_order(shards):
    rng = np.random.default_rng(shards)
    mask = rng.random((7, 6)) < 0.6
    mask[3] = False
    seen = np.zeros(mask.shape, int)
    found, order = masked_batch(mask, shards, None)
    starts = np.cumsum([0, *(shard.count for shard in found)])
    np.testing.assert_array_equal(np.sort(order), np.arange(7))
    for shard, start in zip(found, starts):
        counts = np.diff(shard.off)
        assert (np.diff(counts) <= 0).all()  # the same rows first at every step
        for k, (first, last) in enumerate(zip(shard.off, shard.off[1:])):
            for i, place in enumerate(shard.pos[first:last]):
                sample, time = divmod(int(place), 6)
                assert sample == order[start + i]
                assert mask[sample, :time].sum() == k
                seen[sample, time] += 1
    np.testing.assert_array_equal(seen, mask)


@BOTH
@pytest.mark.parametrize("stretch", [None, (3, 14)])
@pytest.mark.parametrize(("shards", "truncate"), [(1, 3), (3, 4), (2, None)])
def test_tables_have_the_rows_of_a_mask(module, shards, truncate, stretch):
    mask = np.random.default_rng(shards).random((7, 16)) < 0.4
    mask[:, 12:], mask[0, 15] = False, True
    found, order = masked_batch(mask, shards, truncate, stretch)
    rows = module.packed(mask, shards, truncate, stretch)
    np.testing.assert_array_equal(rows.order, order)
    np.testing.assert_array_equal(rows.cut_end, np.concatenate([shard.cut_end for shard in found]))
    tables = Tables(0)
    for shard, space in zip(found, with_room(7, 16, shards, rows.steps, rows.rows), strict=True):
        assert space.count == shard.count
        arrays = (rows.words, rows.cuts)
        off, pos, rid, cut = (
            arrays[place.array][place.offset // place.dtype.itemsize :][: place.size] for place in tables.places(space)
        )
        count = shard.off[-1]
        np.testing.assert_array_equal(off[: len(shard.off)], shard.off)
        np.testing.assert_array_equal(off[len(shard.off) :], count)
        for whole, own in ((pos, shard.pos), (rid, shard.rid), (cut, shard.cut)):
            np.testing.assert_array_equal(whole[:count], own)


def test_masks_of_about_a_size_are_run_alike():
    """Lengths differ from batch to batch: to plan each anew took longer than the arithmetic of small cells."""
    layer = cells.SimpleRNNCell(3).get_layer()
    layer.build((None, None, 2))
    engine = rsref_fast.compile(layer, target="interpreter")

    def run(*lengths):
        mask = np.arange(32) < np.array(lengths)[:, None]
        arguments = random_arguments(layer.recurrence, batch=4, steps=32, mask=mask)
        return arguments.forward(engine)[2]

    tape = run(20, 19, 18, 17)
    assert run(18, 19, 18, 18).call is tape.call
    few = run(5, 1, 3, 2)
    assert few.call is not tape.call
    assert few.call.forward.tape < tape.call.forward.tape / 3  # memory is for the rows that there are, and an eighth


def test_gradients_are_cut_where_masked_steps_are_too():
    """Every second step: also after a sample's last valid one, in the last stretch or before it."""
    mask = np.array([[0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0]], bool)
    (shard,), order = masked_batch(mask, 1, 2)
    assert dict(zip(order.tolist(), shard.cut_end.tolist())) == {0: False, 1: True, 2: True, 3: False, 4: True}
    layer = cells.SimpleRNNCell(3).get_layer(truncate=2)
    layer.build((None, None, 2))
    check(layer.recurrence, random_arguments(layer.recurrence, batch=5, steps=5, mask=mask), threads=2)


def test_a_whole_batch_is_split_into_neighbours():
    shards = whole_batch(5, 3, 2, None)
    assert [s.count for s in shards] == [2, 3]
    np.testing.assert_array_equal(shards[1].pos, [6, 9, 12, 7, 10, 13, 8, 11, 14])


@BOTH
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_gradient_of_held_outputs_is_its_adjoint(module, width, dtype):
    rng = np.random.default_rng(0)
    mask = rng.random((4, 6)) < 0.5
    y, d = rng.normal(size=(2, 4, 6, width)).astype(dtype)
    y *= mask[..., None]
    expected = np.sum(y * gathered_back(d, module.held_by(mask)))
    module.hold(y, module.held_by(mask))
    assert np.sum(y * d) == pytest.approx(expected, rel=1e-5)


@BOTH
@pytest.mark.parametrize("kind", ["int64", "bool"])
def test_masked_steps_show_the_last_valid_one(module, kind):
    rng = np.random.default_rng(1)
    mask = rng.random((5, 7)) < 0.4
    y = rng.integers(1, 3, (5, 7, 3)).astype(kind) * mask[..., None]
    expected = y.copy()
    for sample in range(5):
        for t in range(1, 7):
            if not mask[sample, t]:
                expected[sample, t] = expected[sample, t - 1]
    module.hold(y, module.held_by(mask))
    np.testing.assert_array_equal(y, expected)


@BOTH
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("last", [0.0, -0.0, 1e-40, np.nan])
def test_gradients_without_masked_steps_are_known(module, last, dtype):
    """As a loss leaves them that is multiplied with the mask: by zeros, of both signs. The last number counts, too."""
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    d = np.where(mask[..., None], 2.0, -0.0).astype(dtype) * np.ones(3, dtype)
    d[1, 2, 2] = last
    held = module.held_by(mask)
    zero = not np.asarray(d[1, 2, 2]).any()
    assert module.nothing(d, held) == zero or (module is masks and dtype == np.float16)
    np.testing.assert_array_equal(gathered_back(d, held)[1, 0, 2], 2 + d[1, 2, 2])


def test_a_stretch_has_the_places_of_the_whole():
    mask = np.random.default_rng(1).random((4, 9)) < 0.6
    for shard, own in zip(whole_batch(4, 9, 2, 3), whole_batch(4, 9, 2, 3, (3, 9))):
        chosen = shard.pos % 9 >= 3
        np.testing.assert_array_equal(own.pos, shard.pos[chosen])
        np.testing.assert_array_equal(own.cut[own.pos % 9 > 3], shard.cut[chosen & (shard.pos % 9 > 3)])
        assert not own.cut[own.pos % 9 == 3].any()
    whole, _ = masked_batch(mask, 2, None)
    stretch, _ = masked_batch(mask, 2, None, (3, 9))
    every = np.concatenate([shard.pos for shard in stretch])
    assert sorted(every) == sorted(p for shard in whole for p in shard.pos if p % 9 >= 3)


@pytest.mark.parametrize(("checkpoint", "truncate"), [(False, None), (False, 3), (True, None), (True, 2)])
def test_one_engine_after_many_masks(checkpoint, truncate):
    """What a call before has laid out, or left in memory, is not seen in the next one."""
    layer = cells.GRUCell(3).get_layer(truncate=truncate, return_sequences=True)
    layer.build((None, None, 2))
    engine = rsref_fast.compile(layer, target="interpreter", threads=2, checkpoint=checkpoint)
    rng = np.random.default_rng(0)
    for density in (0.9, 0.5, 0.6, 0.1, 0.0, 0.55, 0.95):
        mask = rng.random((5, 17)) < density
        check(layer.recurrence, random_arguments(layer.recurrence, batch=5, steps=17, mask=mask), engine=engine)


def test_interpreted_kernels_need_no_compiler():
    """NumPy and SciPy alone run a masked call, and a stream."""
    program = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
import numpy as np
import rsref_fast
from rsref import cells
from rsref.engine import ReferenceEngine
from rsref.testing import random_arguments
layer = cells.LSTMCell(4).get_layer()
layer.build((None, None, 2))
mask = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
arguments = random_arguments(layer.recurrence, batch=3, steps=5, mask=mask)
engine = rsref_fast.compile(layer, target="interpreter")
(own,), *_ = arguments.forward(engine)
(expected,), *_ = arguments.forward(ReferenceEngine(layer.recurrence))
np.testing.assert_allclose(own, expected, atol=1e-12)
weights = [p.value for p in layer.recurrence.graph.parameters]
stream = engine.stream([], [np.zeros((1, 4))] * 2, weights)
assert np.isfinite(stream(np.ones((1, 2)))[0]).all()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
