"""The strategy whose products are cuBLAS's, on a fake device with a fake library, against the oracle."""

import gc
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

import rsref_fast
from rsref import Dense, Input, Parameter, RecurrentModel, RecurrentSequential, cells, ops, set_random_seed
from rsref.testing import step_graphs
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.programs import backward_source, forward_source
from rsref_fast.cuda import kernels, shares
from rsref_fast.cuda.alternating import cut
from rsref_fast.cuda.choice import Choice
from rsref_fast.cuda.engine import CudaEngine
from rsref_fast.cuda.inspection import ARCHITECTURES, built
from rsref_fast.cuda.library import can
from rsref_fast.cuda.products import products_in
from rsref_fast.cuda.target import CUDA
from tests.cuda import fake
from tests.cuda.fake_blas import Blas
from tests.cuda.on_device import ThereAndBack
from tests.fast.agreement import check
from tests.fast.attending import attending
from tests.fast.made import MASK, recurrence_of
from tests.fast.steps import recurrence

CALLS = re.compile(r"^ +(\w+)\(", re.MULTILINE)


@pytest.fixture(autouse=True)
def device(monkeypatch):
    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)
    return fake.new_device(Blas)


def forced(own, device):
    return ThereAndBack(own, device, products="cublas")


def nested():
    set_random_seed(0)
    inner = RecurrentSequential([cells.GRUCell(3), cells.GRUCell(3)], state_sync=True)
    outer = RecurrentSequential()
    for part in (inner.get_cell(), Dense(5, activation="relu"), cells.LSTMCell(4)):
        outer.add(part)
    outer.build((None, None, 3))
    return outer.recurrence


def readout():
    set_random_seed(0)
    layer = RecurrentSequential([cells.GRUCell(4), Dense(2)], readout=True, readout_activation="tanh")
    layer.build((None, None, 2))
    return layer.recurrence


STEPS = {"nested cells": nested, "readout": readout}
for cell in ("LSTM", "GRU", "RHN", "LayerNormLSTM", "AttentionDecoder"):
    STEPS[cell] = lambda name=f"{cell}Cell": recurrence_of(name)


@pytest.mark.parametrize("name", STEPS)
def test_against_the_oracle(device, name):
    """In float64; twice, with other arrays at other places: what is recorded must not remember the first ones."""
    own = STEPS[name]()
    engine = forced(own, device)
    first, second = (random_arguments(own, batch=3, steps=5, seed=s) for s in range(2))
    check(own, first, dtype=np.float64, engine=engine, inference=name == "LSTM")
    done = len(device.library.api.done)
    assert done > 5
    check(own, second, dtype=np.float64, engine=engine, inference=name == "LSTM")
    assert len(device.library.api.done) == 2 * done


@pytest.mark.parametrize(
    ("name", "team"),
    [
        ("LSTM", "grid"),
        ("AttentionDecoder", "grid"),
        *((n, "units") for n in ("LSTM", "LayerNormLSTM", "nested cells")),
    ],
)
def test_beside_steps_that_are_one_launch(device, name, team):
    """Products outside of the steps are the library's, at the addresses of the call; those inside are not."""
    own = STEPS[name]()
    engine = forced(own, device)
    engine.engine.choice = Choice("persistent", team, 1, 2, "cublas")
    for number in range(2):
        arguments = random_arguments(own, batch=3, steps=5, seed=number)
        check(own, arguments, dtype=np.float64, engine=engine, inference=name == "LSTM")
    assert device.library.api.done
    assert name != "LSTM" or (3, 16, 4, 1.0) not in device.library.api.done  # a step's
    assert not any(name.startswith("cuGraph") for name in device.api.used)


@pytest.mark.parametrize("name", ["LSTM", "readout"])
def test_in_single_precision(device, name):
    own = STEPS[name]()
    check(own, random_arguments(own, batch=3, steps=5), dtype=np.float32, engine=forced(own, device), inference=False)
    assert device.library.api.done


@pytest.mark.parametrize("options", [{"truncate": 2}, {"zero_output_for_mask": True}], ids=str)
def test_masks_and_cuts(device, options):
    """A mask is the device's own: how many rows a step has, no library is told."""
    own = recurrence_of("LSTMCell", **options)
    engine = forced(own, device)
    check(own, random_arguments(own, batch=3, steps=5), dtype=np.float32, engine=engine, inference=False)
    done = len(device.library.api.done)
    assert done
    arguments = random_arguments(own, batch=3, steps=5, mask=MASK)
    for engine.engine.choice in (None, Choice("alternating", "grid", 1, 2, "cublas")):
        check(own, arguments, dtype=np.float32, engine=engine, inference=False)
        assert len(device.library.api.done) == done
    assert "with a mask, which only the device reads: our tiles" in engine.engine.explain()


def test_which_products_are_the_librarys(device):
    """Five steps of three samples in blocks of eight rows: three blocks."""
    own = recurrence_of("LSTMCell", 4, 2)
    arguments = random_arguments(own, batch=3, steps=5).cast(np.float32)
    engine = forced(own, device)
    (y,), _, tape = arguments.forward(engine)
    done = device.library.api.done
    blocks = [6, 6, 3]
    hoisted = [(rows, 16, 2, 0.0) for rows in blocks]
    assert sorted(done) == sorted([*hoisted, *[(3, 16, 4, 1.0)] * 5])
    done.clear()
    engine.backward(tape, [np.ones_like(y)], [None, None])
    sunk = [p for rows in blocks for p in ((rows, 2, 16, 0.0), (2, 16, rows, 1.0), (4, 16, rows, 1.0))]
    assert sorted(done) == sorted([*sunk, *[(3, 4, 16, 0.0)] * 5])
    done.clear()
    engine.engine.choice = Choice("alternating", "grid", 1, 2, "tiles")
    (again,), _, _ = arguments.forward(engine)
    np.testing.assert_allclose(again, y, rtol=0, atol=1e-6)
    assert not done


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (2, 0), (0, 3)])
def test_sizes(device, batch, steps):
    own = recurrence_of("GRUCell")
    engine = forced(own, device)
    check(own, random_arguments(own, batch=batch, steps=steps), dtype=np.float32, engine=engine, inference=False)


@pytest.mark.parametrize("mine", ["all", "all but one", "packed ones", "none"])
def test_some_by_the_library_and_some_by_tiles(device, monkeypatch, mine):
    """Weights are packed for tiles alone; what else is computed of weights once a call is so in any case."""
    x, h = Input((3,)), Input((3,))
    rng = np.random.default_rng(0)
    a, b = (Parameter(name, rng.normal(size=shape)) for name, shape in (("a", (3, 6)), ("b", (3, 3))))
    w = a.tensor @ ops.transpose(a.tensor)  # once a call, and not the library's
    gaps = a.tensor if mine == "all" else a.tensor[:, ::2]
    new = ops.tanh(x @ w + ops.sum(x @ ops.transpose(b.tensor) @ gaps, 1, keepdims=True) + h @ b.tensor)
    own = RecurrentModel(x, new, h, new).recurrence
    wanted = {"none": lambda product: False, "packed ones": lambda product: can(product) and product.packed}
    monkeypatch.setattr(shares, "can", wanted.get(mine, can))
    engine = forced(own, device)
    check(own, random_arguments(own, batch=3, steps=4), dtype=np.float64, engine=engine, inference=False)
    assert bool(device.library.api.done) == (mine != "none")


@pytest.mark.parametrize("backward", [False, True])
def test_a_product_is_a_piece_of_its_own(backward):
    """Also where it need not wait for the call before it; and no call is lost."""
    compiled = built(attending(outputs=True))
    text = (backward_source(compiled, 16, CUDA) if backward else forward_source(compiled, 16, True, CUDA)).text
    pieces, products = cut(text, backward, apart=True), products_in(text)
    assert products
    every = []
    for place in ("start", "before", "step", "after", "end"):
        for piece in getattr(pieces, place):
            own = pieces.text.split(f"def {piece.entry}(")[1].split("\n\n\n")[0]
            called = CALLS.findall(own)
            assert [name in products for name in called] == ([True] if piece.product else [False] * len(called))
            every += called
    whole = CALLS.findall(text.split("def shard(")[1].split("\n\n\n")[0])
    assert sorted(every) == sorted(name for name in whole if name != "meet")


def test_nothing_is_packed_that_only_the_library_reads(device):
    own = recurrence_of("LSTMCell")
    arguments = random_arguments(own, batch=3, steps=5).cast(np.float32)
    launched = {}
    for products in ("tiles", "cublas"):
        engine = ThereAndBack(own, device, strategy="alternating", products=products)
        before = len(device.api.launches)
        arguments.forward(engine)
        launched[products] = len(device.api.launches) - before
    # the hoisted products of three blocks and those of the steps are not launches of ours, nor is packing; one a block
    # makes the pointers for its steps
    assert launched["cublas"] == launched["tiles"] - 3 - 5 - 1 + 3


def test_who_takes_less_computes_it(device):
    """On an H100: the library large products outside of the steps; nobody loads it for the smallest cells."""
    device.limits = ARCHITECTURES["sm_90"]
    small = CudaEngine(recurrence_of("LSTMCell", 8, 8), device)
    assert small.chosen(small.special_of(built(small.recurrence), np.dtype("f4")), 1).products == "tiles"
    assert device._library is None
    found = CudaEngine(recurrence_of("LSTMCell", 768, 768), device).explain().split("a batch of ")
    one, few, _, many = found[1:]
    for text in (one, few, many):
        assert "persistent: one cooperative launch, 96 blocks that hold weights of their own" in text
        assert "step by step" not in text
    for text in (few, many):
        assert "forward, hoisted, rows x columns x terms 8,192 x 3,072 x 768: cuBLAS\n" in text
        assert "backward, sunk, rows x columns x terms 768 x 3,072 x 8,192: cuBLAS" in text
    larger = CudaEngine(recurrence_of("LSTMCell", 2048, 2048), device).explain()
    by = "alternating: a launch for each part of a step, 132 blocks, products by cuBLAS where that takes less"
    assert by in larger.split("a batch of ")[4]
    assert "forward, step by step, rows x columns x terms 256 x 8,192 x 2,048: our tiles\n" in larger


def test_what_is_no_product_of_two_matrices_is_said_to_be_ours(device):
    text = forced(attending(), device).engine.explain()
    assert "backward, step by step, einsum: n x 4: loops of our own" in text
    assert "forward, step by step, rows x columns x terms 16 x 4 x 3: cuBLAS" in text


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_random_steps(device, dtype):
    gc.freeze()

    @seed(3 if dtype == np.float64 else 4)
    @settings(
        max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )
    @given(example=step_graphs(max_ops=6))
    def run(example):
        engine = forced(example.recurrence, device)
        check(example.recurrence, example.arguments, dtype=dtype, engine=engine, inference=False, least=1.0)

    run()


def test_samples_that_mix(device):
    """With a mask, step by step: the host knows who takes part."""
    own = recurrence("across samples")
    arguments = random_arguments(own, batch=3, steps=2, mask=np.array([[1, 1], [0, 1], [0, 0]], bool))
    check(own, arguments, dtype=np.float64, engine=forced(own, device), inference=False)
    assert device.library.api.done


def test_samples_picked_by_number(device):
    """The whole batch is one sample of the program, and its rows are none of the steps'."""
    w = Parameter("w", np.random.default_rng(0).normal(size=(3, 3)))
    x, h = Input((3,)), Input((3,))
    new = ops.tanh(x[::-1] @ w.tensor + h)
    own = RecurrentModel(x, new, h, new).recurrence
    check(own, random_arguments(own, batch=4, steps=3), dtype=np.float64, engine=forced(own, device), inference=False)
    assert device.library.api.done


def test_results_are_the_same_bit_by_bit(device):
    own = recurrence_of("LSTMCell", 9, 5)
    arguments = random_arguments(own, batch=4, steps=6).cast(np.float32)
    engine = forced(own, device)
    found = []
    for device.api.backwards in (False, True):
        (y,), _, tape = arguments.forward(engine)
        found.append([y, *engine.backward(tape, [np.ones_like(y)], [None, None]).parameters])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_is_copied_that_need_not_be_and_nobody_waits(device):
    own = recurrence_of("LSTMCell")
    arguments = random_arguments(own, batch=3, steps=5).cast(np.float32)
    # for each pass the words of the call, and those of the graphs of three blocks
    assert forced(own, device).uploads(arguments) == 2 * (1 + 3)
    assert len(device.library.api.handles) == 1


def test_what_is_wrong_is_said(device):
    own = recurrence_of("LSTMCell")
    with pytest.raises(ValueError, match="products must be one of 'auto', 'cublas', 'tiles'; got 'cutlass'"):
        ThereAndBack(own, device, products="cutlass")
    with pytest.raises(ValueError, match='which strategy="persistent" has not'):
        ThereAndBack(own, device, strategy="persistent", products="cublas")
    with pytest.raises(ValueError, match=r'products is an option of target="cuda"; got \'tiles\' for target=\'cpu\''):
        rsref_fast.compile(own, products="tiles")


def test_without_the_library_tiles_compute_and_it_is_said(device):
    device = fake.new_device()
    own = recurrence_of("GRUCell")
    with pytest.raises(ImportError, match='products="cublas": cuBLAS is not there'):
        ThereAndBack(own, device, products="cublas")
    engine = ThereAndBack(own, device, strategy="alternating")
    check(own, random_arguments(own, batch=3, steps=4), dtype=np.float32, engine=engine, inference=False)
    assert "products: our tiles, for cuBLAS is not there" in engine.engine.explain()
    assert "products by our tiles" in engine.engine.explain()
    assert str(Choice("alternating", "grid", 1, 3)).endswith("products by our tiles")
