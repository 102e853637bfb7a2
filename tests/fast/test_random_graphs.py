"""Random steps: the generated source, run by Python itself, against the oracle. `python -m tests.fuzz` runs more."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from rsref import cells
from rsref.testing import step_graphs
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import interpreted
from tests.fast.agreement import check

PARTS, EACH = 10, 250


@pytest.mark.parametrize("part", range(PARTS))
def test_values_and_gradients(part):
    """2,500 graphs in all, a fifth of them in float32, a fifth across samples: each part has a seed of its own."""
    dtype = np.float64 if part < 8 else np.float32

    @seed(part)
    @settings(
        max_examples=EACH, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(example=step_graphs(mixing=part in (7, 9)))
    def run(example):
        check(example.recurrence, example.arguments, threads=1 + part % 2, dtype=dtype)

    run()


@pytest.mark.parametrize("name", ["sigmoid", "multiply_packed", "cut_rows", "gather_rows"])
def test_a_wrong_kernel_is_seen(monkeypatch, name):
    layer = cells.LSTMCell(3).get_layer(truncate=2)
    layer.build((None, None, 2))
    arguments = random_arguments(layer.recurrence)
    check(layer.recurrence, arguments)
    broken = {
        "sigmoid": lambda x: 0.999 / (1 + np.exp(-x)),
        "multiply_packed": lambda *a: interpreted.multiply_packed(*a[:-4], 1, *a[-3:]),
        "cut_rows": lambda *a: None,
        "gather_rows": lambda count, width, source, index, target: interpreted.copy_rows(count, width, source, target),
    }[name]
    original = interpreted.namespace
    monkeypatch.setattr(interpreted, "namespace", lambda dtype: {**original(dtype), name: broken})
    with pytest.raises(AssertionError):
        check(layer.recurrence, arguments)
