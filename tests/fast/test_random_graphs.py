"""Random steps: the generated source, run by Python itself, against the oracle. `python -m tests.fuzz` runs more."""

from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

import rsref_fast
from rsref import cells
from rsref.testing import step_graphs
from rsref.testing.arguments import random_arguments
from rsref_fast import wide
from rsref_fast.cpu import checkpoint, interpreted, pieces
from rsref_fast.cpu.kernels import Interpreted
from rsref_fast.cpu.splitting import Split
from tests.covering import examples
from tests.fast.agreement import check

PARTS, EACH = 10, 200


def for_graphs(number, count, mixing, compare):
    """Draw so many graphs, the same ones for a number, and compare what their examples give."""

    @seed(number)
    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(example=step_graphs(mixing=mixing))
    def run(example):
        compare(example.recurrence, example.arguments)

    run()


WAYS = [{"threads": 1}, {"threads": 2}, {"split": Split(1, 2)}, {"split": Split(1, 3)}, {"split": Split(3, 2, 2)}]
"""Alone, in shards, by teams, and by teams in rounds."""


@pytest.mark.parametrize("part", range(PARTS))
def test_values_and_gradients(monkeypatch, part):
    """2,000 graphs in all, a fifth of them in float32, a fifth across samples: each part has a seed of its own.

    What keeps nothing for backward is compared for a fifth of them, or all with `--every`. A panel has one column
    wherever a team computes, so that each thread has a part of nearly everything.
    """
    way, dtype = WAYS[part % len(WAYS)], np.float64 if part < 8 else np.float32
    if "split" in way:
        monkeypatch.setattr(interpreted, "WIDTH", 1)
        monkeypatch.setattr(Interpreted, "block_rows", 2 if part % 3 == 0 else None)
    for_graphs(
        part,
        EACH,
        part in (7, 9),
        partial(check, dtype=dtype, inference=examples(True, part in (0, 7)), sparse=True, least=1.0, **way),
    )


@pytest.mark.parametrize("mixing", [False, True])
def test_with_checkpoints(monkeypatch, mixing):
    monkeypatch.setattr(checkpoint, "ROOTS", 1)  # so that a few steps are several stretches

    def compare(own, arguments):
        engine = rsref_fast.compile(own, target="interpreter", checkpoint=True)
        check(own, arguments, engine=engine, sparse=True, least=1.0)

    for_graphs(PARTS, examples(EACH // 2, EACH // 4), mixing, compare)


@pytest.mark.parametrize("mixing", [False, True])
def test_in_pieces(monkeypatch, mixing):
    """What has three values a sample is wide, and a piece is as small as it can be, or two samples."""
    monkeypatch.setattr(wide, "WIDE", 3)
    monkeypatch.setattr(interpreted, "WIDTH", 1)
    for part, piece, way in ((PARTS + 1, 1, {"split": Split(1, 2)}), (PARTS + 2, 12, {"threads": 1})):
        monkeypatch.setattr(pieces, "PIECE", piece)
        for_graphs(part, examples(EACH // 4, EACH // 8), mixing, partial(check, sparse=True, least=1.0, **way))


@pytest.mark.parametrize("name", ["sigmoid", "multiply_packed", "cut_rows", "rows_at", "previous_at"])
def test_a_wrong_kernel_is_seen(monkeypatch, name):
    layer = cells.LSTMCell(3).get_layer(truncate=2)
    layer.build((None, None, 2))
    arguments = random_arguments(layer.recurrence)
    check(layer.recurrence, arguments)
    broken = {
        "sigmoid": lambda x: 0.999 / (1 + np.exp(-x)),
        "multiply_packed": lambda *a: interpreted.multiply_packed(*a[:-5], 1, *a[-4:]),
        "cut_rows": lambda *a: None,
        "rows_at": lambda count, width, source, *rest: source,
        "previous_at": lambda first, last, width, n0, off, source, *rest: source[n0 * width :],  # those after
    }[name]
    original = interpreted.namespace
    monkeypatch.setattr(interpreted, "namespace", lambda dtype: {**original(dtype), name: broken})
    with pytest.raises(AssertionError):
        check(layer.recurrence, arguments)
