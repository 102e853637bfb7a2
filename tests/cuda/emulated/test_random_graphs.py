"""Random steps as the GPU's kernels against the oracle."""

import gc

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from rsref.testing import step_graphs
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.splitting import Split
from tests.covering import examples
from tests.cuda.kernels import Emulated, EmulatedOwned
from tests.fast.agreement import check

PARTS, EACH = 5, 10


@pytest.mark.parametrize("kind", [Emulated, EmulatedOwned])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("part", range(PARTS))
def test_values_and_gradients(part, dtype, kind):
    """200 graphs in all, half of them in float32, and half by blocks that have parts; each test has its own seed.

    What keeps nothing for backward is compiled for some of these graphs.
    """
    gc.freeze()  # Hypothesis has all objects looked through, three times a test, and Numba has many

    @seed(part * 4 + (dtype is np.float64) * 2 + (kind is Emulated))
    @settings(
        max_examples=EACH, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )  # fmt: skip
    @given(example=step_graphs(max_ops=6))
    def run(example):
        engine = FastEngine(example.recurrence, kind)
        check(
            example.recurrence, example.arguments, dtype=dtype, engine=engine, split=Split(1, 1),
            inference=part < examples(2, 1), least=1.0,
        )  # fmt: skip

    run()
