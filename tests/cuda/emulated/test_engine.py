"""The engine for device arrays, on a fake device: packing, masks, shards, types, streams, and who waits for whom."""

import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rsref
from rsref.recurrence import Recurrence
from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import kernels
from rsref_fast.cuda.arrays import DeviceArray, device_array
from rsref_fast.cuda.choice import Choice
from rsref_fast.cuda.engine import CudaEngine
from rsref_fast.cuda.inspection import built
from tests.cuda import fake
from tests.cuda.on_device import ThereAndBack
from tests.cuda.steps import looking_up
from tests.fast.agreement import check
from tests.fast.made import MASK, recurrence_of
from tests.fast.steps import recurrence

GRID = Choice("persistent", "grid", 1, 2)
UNITS = Choice("persistent", "units", 1, 2)
ALTERNATING = Choice("alternating", "grid", 1, 3)


@pytest.fixture(autouse=True)
def device(monkeypatch):
    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)
    return fake.new_device()


@pytest.mark.parametrize("options", [{}, {"truncate": 2}, {"zero_output_for_mask": True}], ids=str)
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("name", ["LSTMCell", "RWACell"])
def test_against_the_oracle(device, name, mask, options):
    own = recurrence_of(name, **options)
    engine = ThereAndBack(own, device)
    for choice in (None, GRID, UNITS, ALTERNATING):
        engine.engine.choice = choice
        check(own, random_arguments(own, batch=3, steps=5, mask=mask), dtype=np.float32, engine=engine)


def test_a_truncation_beyond_32_bits(device):
    """Which the kernel that packs a mask's rows would take for every step."""
    own = recurrence_of("LSTMCell", truncate=2**32 + 1)
    check(own, random_arguments(own, batch=3, steps=5, mask=MASK), dtype=np.float32, engine=ThereAndBack(own, device))


@pytest.mark.parametrize("name", ["places", "across samples", "logic"])
def test_integers_bools_and_samples_that_mix(device, name):
    own = recurrence(name)
    engine = ThereAndBack(own, device)
    for strategy in ("persistent", "alternating"):
        engine.engine.strategy = strategy
        check(own, random_arguments(own, batch=3, steps=4), dtype=np.float64, engine=engine)


@pytest.mark.parametrize("options", [{}, {"truncate": 2}, {"zero_output_for_mask": True}], ids=str)
def test_samples_that_mix_with_a_mask(device, options):
    graph = recurrence("across samples").graph
    own = Recurrence(graph, options.get("zero_output_for_mask", False), options.get("truncate"))
    mask = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
    check(own, random_arguments(own, batch=3, steps=4, mask=mask), dtype=np.float64, engine=ThereAndBack(own, device))


def test_what_is_found_by_identity_is_kept(device):
    """What `explain` has looked at must not be taken for another step that comes to be at its place."""
    engine = CudaEngine(recurrence_of("LSTMCell"), device)
    special = engine.special_of(built(engine.recurrence), np.dtype("f4"))
    engine.of_team(special, UNITS)
    engine.chosen(special, 3)
    seen = weakref.ref(special)
    del special
    gc.collect()
    assert seen() is not None


def test_shards_of_masked_samples(device):
    """Seven samples in three shards, of which one has more: each block its own."""
    own = recurrence_of("GRUCell", truncate=3)
    mask = np.random.default_rng(0).random((7, 6)) < 0.6
    engine = ThereAndBack(own, device)
    for choice in (Choice("persistent", "block", 3, 2), Choice("persistent", "block", 7, 2)):
        engine.engine.choice = choice
        check(own, random_arguments(own, batch=7, steps=6, mask=mask), dtype=np.float32, engine=engine)


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (2, 0), (0, 3), (5, 2)])
def test_sizes(device, batch, steps):
    own = recurrence_of("LSTMCell")
    check(own, random_arguments(own, batch=batch, steps=steps), dtype=np.float32, engine=ThereAndBack(own, device))


@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
def test_a_mask_of_nothing_cuts_nothing(device, shape):
    own = recurrence_of("LSTMCell")
    arguments = random_arguments(own, batch=shape[0], steps=shape[1], mask=np.ones(shape, bool))
    check(own, arguments, dtype=np.float32, engine=ThereAndBack(own, device), inference=False)


def test_arrays_of_other_types_and_strides(device):
    """float64 parameters make everything float64; 32-bit integers and transposed arrays are read as they are."""
    x, h = rsref.Input((3,)), rsref.Input((3,))
    i = rsref.Input((), dtype="int")
    w = rsref.Parameter("w", np.random.default_rng(0).normal(size=(3, 3)))
    new = rsref.ops.tanh(x @ w.tensor + h * rsref.ops.expand_dims(rsref.ops.cast(i, "float"), 1))
    own = rsref.RecurrentModel([x, i], new, h, new).recurrence
    arguments = random_arguments(own, batch=2, steps=4)
    expected = arguments.forward(rsref.ReferenceEngine(own))[0][0]
    engine = ThereAndBack(own, device).engine
    values = arguments.sequences[0].astype(np.float32)
    memory = fake.OnDevice(device, np.ascontiguousarray(values.transpose(1, 2, 0)))
    base = device_array(memory, "x", device, 0)
    strided = DeviceArray(base.address, (2, 4, 3), base.dtype, memory, 0, (4, 24, 8))
    given = [strided, fake.OnDevice(device, arguments.sequences[1].astype(np.int32))]
    rest = [[fake.OnDevice(device, a) for a in group] for group in (arguments.states, arguments.parameters)]
    (y,), _, _ = engine.forward(given, [], *rest)
    assert y.dtype == np.float64
    np.testing.assert_allclose(fake.back(device, y), expected, rtol=0, atol=1e-6)


def test_nothing_is_copied_that_need_not_be_and_nobody_waits(device):
    own = recurrence_of("LSTMCell")
    arguments = random_arguments(own, batch=3, steps=5, mask=MASK).cast(np.float32)
    assert ThereAndBack(own, device).uploads(arguments) == 2  # the words of a call, forward and backward


def test_memory_is_given_back(device):
    own = recurrence_of("LSTMCell")
    engine = ThereAndBack(own, device)
    arguments = random_arguments(own, batch=3, steps=5).cast(np.float32)
    sizes = []
    for _ in range(3):
        _, _, tape = arguments.forward(engine)
        engine.backward(tape, [np.ones((3, 5, 4), np.float32)], [None, None])
        del tape
        gc.collect()
        sizes.append(len(device.api.memory))
    assert sizes[1] == sizes[2]


def test_engines_of_the_same_step_load_its_kernels_once(device):
    own = recurrence_of("LSTMCell")
    arguments = random_arguments(own, batch=3, steps=5, mask=MASK).cast(np.float32)
    loaded = []
    for choice in (UNITS, ALTERNATING, UNITS, ALTERNATING):
        engine = ThereAndBack(own, device)
        engine.engine.choice = choice
        (y,), _, tape = arguments.forward(engine)
        engine.backward(tape, [np.ones_like(y)], [None, None])
        loaded.append(device.api.used["cuModuleLoadData"])
    assert loaded[0] < loaded[1] == loaded[3]


@pytest.mark.parametrize(("mask", "tables", "waits"), [(None, 4, 1), (MASK, 0, 0)], ids=["whole", "masked"])
def test_tables_of_rows_are_copied_once_for_all_programs(device, mask, tables, waits):
    """A mask's are made on the device; the host's own would be read by nobody."""
    own = recurrence_of("LSTMCell")
    engine = ThereAndBack(own, device)
    engine.engine.choice = GRID
    arguments = random_arguments(own, batch=3, steps=5, mask=mask).cast(np.float32)
    given = [engine._there(getattr(arguments, name)) for name in ("sequences", "constants", "states", "parameters")]
    (own_mask,) = engine._there([mask])
    (y,), _, tape = engine.engine.forward(*given, mask=own_mask)
    engine.engine.backward(tape, [y], [None, None])
    engine.engine.forward(*given, mask=own_mask, taped=False)
    assert device.api.used.get("cuMemAlloc", 0) == tables
    assert device.api.used.get("cuStreamSynchronize", 0) == waits
    held = len(device.api.memory)
    del engine, tape, y
    gc.collect()
    assert len(device.api.memory) <= held - tables


def test_threads_may_call_one_engine_at_once(device):
    """Also where the words of a recorded graph are each call's own."""
    own = recurrence_of("LSTMCell")
    engine = ThereAndBack(own, device)
    engine.engine.choice = ALTERNATING
    given = [random_arguments(own, batch=3, steps=5, seed=seed).cast(np.float32) for seed in range(2)]
    expected = [arguments.forward(engine)[0][0] for arguments in given]
    assert not np.array_equal(*expected)

    def many(i):
        return [np.array_equal(given[i].forward(engine)[0][0], expected[i]) for _ in range(10)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert all(all(found) for found in pool.map(many, range(2)))
    finally:
        sys.setswitchinterval(interval)


def test_results_are_the_same_bit_by_bit(device):
    own = recurrence_of("LSTMCell", 9, 5)
    arguments = random_arguments(own, batch=4, steps=6).cast(np.float32)
    engine = ThereAndBack(own, device)
    engine.engine.choice = GRID
    found = []
    for device.api.backwards in (False, True):  # the order in which threads run must not show
        (y,), _, tape = arguments.forward(engine)
        found.append([y, *engine.backward(tape, [np.ones_like(y)], [None, None]).parameters])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("choice", [None, GRID, UNITS, ALTERNATING], ids=str)
def test_an_index_out_of_range_is_found_when_asked_for(device, choice):
    """Until then the first entry is used, and blocks wait for each other as ever."""
    own, table = looking_up()
    engine = ThereAndBack(own, device)
    engine.engine.choice = choice
    for index in (2, 3):
        (y,), _, _ = engine.forward([np.full((2, 3), index)], [], [np.zeros((2, 2))], [table])
        expected = np.cumsum(np.broadcast_to(table[index % 3], (2, 3, 2)), axis=1)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
        if index == 2:
            engine.engine.check_indices()
        else:
            engine.forward([np.full((2, 3), 4)], [], [np.zeros((2, 2))], [table])
            for wrong in (3, 4):
                with pytest.raises(IndexError, match=f"index {wrong} is out of range for an axis of size 3"):
                    engine.engine.check_indices()
    engine.engine.check_indices()


def test_what_is_wrong_is_said(device):
    own = recurrence_of("LSTMCell")
    arguments = random_arguments(own, batch=3, steps=5).cast(np.float32)
    engine = ThereAndBack(own, device).engine
    with pytest.raises(TypeError, match="sequence 0 is a ndarray that is not on a GPU"):
        arguments.forward(engine)
    there = ThereAndBack(own, device)
    (y,), _, tape = arguments.forward(there)
    with pytest.raises(ValueError, match="output 0 has shape"):
        there.backward(tape, [y[:, :2]], [None, None])
    with pytest.raises(ValueError, match="2 final state gradients"):
        there.backward(tape, [y], [None])
    with pytest.raises(ValueError, match="strategy must be one of"):
        ThereAndBack(own, device, strategy="fastest")


def test_explain(device):
    engine = ThereAndBack(recurrence_of("LSTMCell"), device).engine
    for words in ("hoisted", "fused into one loop", "a batch of 16: persistent: 2 blocks"):
        assert words in engine.explain()


def test_a_capsule_takes_an_array_elsewhere_and_gives_it_back(device):
    own = recurrence_of("LSTMCell")
    engine = ThereAndBack(own, device)
    arguments = random_arguments(own, batch=3, steps=5).cast(np.float32)
    given = [engine._there(getattr(arguments, name)) for name in ("sequences", "constants", "states", "parameters")]
    (y,), _, _ = engine.engine.forward(*given, taped=False)
    expected = fake.back(device, y)
    other = np.from_dlpack(y)
    held = len(device.api.memory)
    del y
    gc.collect()
    np.testing.assert_array_equal(other, expected)
    assert len(device.api.memory) == held
    del other
    gc.collect()
    assert len(device.api.memory) == held - 1
