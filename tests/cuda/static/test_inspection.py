"""What kernels become on four architectures: no spills, no float64 in float32, within what a launch may need."""

import sys
from itertools import product

import numpy as np
import pytest

import rsref_fast
from rsref import cells
from rsref.recurrence import Recurrence
from rsref_fast.cuda import inspect
from rsref_fast.cuda.inspection import ARCHITECTURES, occupancy
from rsref_fast.cuda.tile import USUAL
from rsref_fast.cuda.words import SLOTS
from rsref_fast.prologue import parted
from tests.covering import examples
from tests.fast.attending import attending
from tests.fast.made import recurrence_of
from tests.fast.picking import integers_and_bools

BOTH = ("forward", "backward")
FITTED = list(product(["LSTMCell", "LayerNormGRUCell", "SimpleRNNCell"], ARCHITECTURES, [BOTH]))
ONE_EACH = [
    ("LSTMCell", "sm_75", ("backward",)),
    ("SimpleRNNCell", "sm_80", ("forward",)),
    ("LayerNormGRUCell", "sm_90", ("backward",)),
    ("SimpleRNNCell", "sm_100", ("backward",)),
]
"""Each architecture once. An LSTM's forward program fits in the page on GPUs, which tests run."""


@pytest.mark.parametrize(("name", "arch", "programs"), examples(FITTED, ONE_EACH))
def test_kernels_fit(name, arch, programs):
    """`benchmarks.cuda_static` has every cell."""
    found = inspect(recurrence_of(name, 64, 64), arch, programs=programs)
    back = "backward" in programs
    entries = {"prepare", "shard"} | ({"fold"} if back else set())
    entries |= (
        {"finish"} if back and name == "LayerNormGRUCell" else set()
    )  # for sums that are no gradients as they are
    assert {k.entry for k in found.kernels} == entries
    assert {k.team for k in found.kernels} == {"grid", "units", "block"}
    fit(found)


def fit(found):
    for k in found.kernels:
        where = f"{k.program} {k.entry} of a {k.team} on {found.arch}"
        assert k.spilled == 0, where
        assert k.doubles == 0, where
        assert 0 < k.registers <= 255, where
        assert k.shared <= 48 * 1024, where
        assert k.blocks >= 1, where
        assert ".nc." not in k.ptx, f"{where}: a cache that does not see what other blocks write"
    assert any(k.cooperative for k in found.kernels)
    assert str(found)


def test_kernels_of_a_step_that_picks_samples_fit():
    own = integers_and_bools()
    with pytest.raises(ValueError, match="picks samples by their number"):
        inspect(own)
    found = inspect(own, programs=examples(BOTH, ("backward",)), batch=5)
    fit(found)
    assert {k.team for k in found.kernels} == {"grid"}
    assert "a batch of 5: alternating" in str(found)


def test_kernels_of_a_step_in_parts_fit():
    """As training has them: see `rsref_fast.prologue`; by default the steps alone."""
    parts = parted(attending().graph)
    for graph in examples((parts.first, parts.step), (parts.step,)):
        fit(inspect(Recurrence(graph), programs=examples(BOTH, ("backward",))))


def test_float64_is_what_is_counted():
    found = inspect(recurrence_of("SimpleRNNCell"), dtype=np.float64, programs=("forward",), entries=("shard",))
    assert max(k.doubles for k in found.kernels) > 0


def test_tensor_cores_are_reckoned_with_for_float32_alone():
    own = recurrence_of("LSTMCell", 512, 512)

    def choice(dtype, **options):
        return inspect(own, dtype=dtype, entries=(), **options).choice(64)

    assert choice(np.float64) == choice(np.float64, tile=USUAL)
    assert choice(np.float32) != choice(np.float32, tile=USUAL)


def test_a_step_has_as_few_meetings_as_it_needs():
    """An LSTM's step: the product, then the gates; backward the gates, then the product."""
    texts = inspect(recurrence_of("LSTMCell"), entries=()).sources
    loop = texts["inference"].split("for s in range(k, last):")[1].split("following = ")[0]
    assert loop.count("meet(N)") == 2
    loop = texts["backward"].split("for s in range(k - 1, first - 1, -1):")[1].split("if cutting")[0]
    assert loop.split("if active < n:")[1].count("meet(N)") == 3  # one of them where samples begin


def test_who_computes_products_is_told():
    """Whether or not cuBLAS is here: what is inspected need not be."""
    own = recurrence_of("LSTMCell", 1024, 1024)
    every = inspect(own, entries=(), products="cublas")
    assert str(every).count("step by step, rows x columns x terms 16 x 4,096 x 1,024: cuBLAS") == 2  # with and without
    some = str(inspect(own, entries=(), programs=["forward"]))
    assert "a batch of 16: persistent: one cooperative launch, 128 blocks that hold weights of their own" in some
    assert some.count("forward, hoisted, rows x columns x terms 8,192 x 4,096 x 1,024: cuBLAS") == 4
    large = str(inspect(recurrence_of("LSTMCell", 2048, 2048), entries=(), programs=["forward"]))
    assert "forward, step by step, rows x columns x terms 256 x 8,192 x 2,048: our tiles" in large
    assert "cuBLAS" not in str(inspect(own, entries=(), products="tiles"))


def test_occupancy():
    h100 = ARCHITECTURES["sm_90"]
    assert occupancy(h100, 256, 64, 0) == 4
    assert occupancy(h100, 256, 128, 0) == 2
    assert occupancy(h100, 256, 255, 0) == 1
    assert occupancy(h100, 256, 32, 100 * 1024) == 2
    assert occupancy(h100, 256, 32, 75 * 1024) == 3
    assert occupancy(h100, 256, 32, 76 * 1024) == 2
    assert occupancy(ARCHITECTURES["sm_75"], 256, 32, 0) == 4
    assert occupancy(ARCHITECTURES["sm_75"], 256, 32, 32 * 1024) == 2


def test_shared_memory_is_the_kernels_own():
    """On sm_90 the linker counts what the driver reserves as well."""
    for arch in ARCHITECTURES:
        (prepare,) = inspect(recurrence_of("LSTMCell"), arch, programs=["forward"], entries=["prepare"]).kernels
        assert prepare.shared == 8 * SLOTS


def test_errors():
    with pytest.raises(ValueError, match="arch must be one of"):
        inspect(recurrence_of("LSTMCell"), "sm_35")
    with pytest.raises(ValueError, match="programs must be some of 'forward'"):
        inspect(recurrence_of("LSTMCell"), programs=["forwards"])
    with pytest.raises(ValueError, match="dtype must be float32 or float64; got int32"):
        inspect(recurrence_of("LSTMCell"), dtype="int32")
    with pytest.raises(ValueError, match="products must be one of 'auto'"):
        inspect(recurrence_of("LSTMCell"), products="mkl")
    with pytest.raises(ValueError, match="not built"):
        inspect(cells.LSTMCell(3))
    with pytest.raises(ValueError, match="threads and checkpoint"):
        rsref_fast.compile(recurrence_of("LSTMCell"), target="cuda", threads=2)
    with pytest.raises(ValueError, match="strategy is an option"):
        rsref_fast.compile(recurrence_of("LSTMCell"), strategy="persistent")


def test_without_a_driver_one_sentence_says_so(monkeypatch):
    from cuda.bindings import driver as bindings

    from rsref_fast.cuda import driver

    def nothing(flags):
        raise RuntimeError("no driver here")

    monkeypatch.setattr(bindings, "cuInit", nothing)
    driver.current.cache_clear()
    with pytest.raises(ImportError, match="needs an NVIDIA GPU and its driver"):
        rsref_fast.compile(recurrence_of("LSTMCell"), target="cuda")


def test_without_numba_cuda_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr("rsref_fast.api.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs numba-cuda"):
        rsref_fast.compile(recurrence_of("LSTMCell"), target="cuda")
    assert "rsref_fast" in sys.modules
