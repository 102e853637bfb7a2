"""Every op, every cell and random steps on a GPU, by each strategy, against the oracle."""

import gc

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from rsref.testing import step_graphs
from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import driver
from rsref_fast.cuda.choice import Choice
from tests.cuda.on_device import ThereAndBack
from tests.fast.agreement import check
from tests.fast.made import CELLS, MASK, recurrence_of
from tests.fast.steps import STEPS, recurrence

PARTS, EACH = 24, 10
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
CHOICES = {
    "grid": Choice("persistent", "grid", 1, 132),
    "units": Choice("persistent", "units", 1, 3, "tiles", 2),
    "alternating": Choice("alternating", "grid", 1, 132),
}
STRATEGIES = pytest.mark.parametrize("strategy", CHOICES)


def engine_of(own, strategy):
    engine = ThereAndBack(own, driver.current(), tile=None, rows=64)
    engine.engine.choice = CHOICES[strategy]
    return engine


@DTYPES
@STRATEGIES
@pytest.mark.parametrize("name", STEPS)
def test_ops(name, strategy, dtype):
    own = recurrence(name)
    engine = engine_of(own, strategy)
    mask = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
    for chosen in (None, mask):
        check(own, random_arguments(own, batch=3, steps=4, mask=chosen), dtype=dtype, engine=engine)


@DTYPES
@STRATEGIES
@pytest.mark.parametrize("name", CELLS)
def test_cells(name, strategy, dtype):
    own = recurrence_of(name)
    engine = engine_of(own, strategy)
    for mask in (None, None if name == "AttentionDecoderCell" else MASK):
        check(own, random_arguments(own, batch=3, steps=5, mask=mask), dtype=dtype, engine=engine)


@pytest.mark.parametrize("part", range(PARTS))
def test_random_steps(part):
    gc.freeze()  # Hypothesis has all objects looked through, three times a test, and Numba has many
    dtype = np.float64 if part % 2 else np.float32
    strategy = [*CHOICES][part // 2 % 3]

    @seed(part)
    @settings(
        max_examples=EACH, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )  # fmt: skip
    @given(example=step_graphs(max_ops=6))
    def run(example):
        engine = engine_of(example.recurrence, strategy)
        check(example.recurrence, example.arguments, dtype=dtype, engine=engine, least=1.0)

    run()
