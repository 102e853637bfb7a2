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
from tests.fast.agreement import check

PARTS, EACH = 10, 250


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


@pytest.mark.parametrize("part", range(PARTS))
def test_values_and_gradients(part):
    """2,500 graphs in all, a fifth of them in float32, a fifth across samples: each part has a seed of its own."""
    dtype = np.float64 if part < 8 else np.float32
    for_graphs(part, EACH, part in (7, 9), partial(check, threads=1 + part % 2, dtype=dtype))


@pytest.mark.parametrize("mixing", [False, True])
def test_with_checkpoints(monkeypatch, mixing):
    monkeypatch.setattr(checkpoint, "ROOTS", 1)  # so that a few steps are several stretches

    def compare(own, arguments):
        check(own, arguments, engine=rsref_fast.compile(own, target="interpreter", checkpoint=True))

    for_graphs(PARTS, EACH, mixing, compare)


@pytest.mark.parametrize("mixing", [False, True])
def test_in_pieces(monkeypatch, mixing):
    """What has three values a sample is wide, and a piece is as small as it can be, or two samples."""
    monkeypatch.setattr(wide, "WIDE", 3)
    for part, piece in ((PARTS + 1, 1), (PARTS + 2, 12)):
        monkeypatch.setattr(pieces, "PIECE", piece)
        for_graphs(part, EACH // 2, mixing, partial(check, threads=1 + part % 2))


@pytest.mark.parametrize(("team", "rows"), [(2, 2), (3, None)])
@pytest.mark.parametrize("narrow", [False, True])
def test_by_teams(monkeypatch, team, rows, narrow):
    """A panel has one column, so that each thread has a part of nearly everything. narrow: what has three values a
    sample is wide. rows: of a block."""
    monkeypatch.setattr(interpreted, "WIDTH", 1)
    monkeypatch.setattr(Interpreted, "block_rows", rows)
    if narrow:
        monkeypatch.setattr(wide, "WIDE", 3)
        monkeypatch.setattr(pieces, "PIECE", 1)
    for_graphs(PARTS + 2 + team, EACH // 2, narrow, partial(check, split=Split(1, team)))


@pytest.mark.parametrize("name", ["sigmoid", "multiply_packed", "cut_rows", "gather_rows"])
def test_a_wrong_kernel_is_seen(monkeypatch, name):
    layer = cells.LSTMCell(3).get_layer(truncate=2)
    layer.build((None, None, 2))
    arguments = random_arguments(layer.recurrence)
    check(layer.recurrence, arguments)
    broken = {
        "sigmoid": lambda x: 0.999 / (1 + np.exp(-x)),
        "multiply_packed": lambda *a: interpreted.multiply_packed(*a[:-5], 1, *a[-4:]),
        "cut_rows": lambda *a: None,
        "gather_rows": lambda count, width, source, index, target: interpreted.copy_rows(count, width, source, target),
    }[name]
    original = interpreted.namespace
    monkeypatch.setattr(interpreted, "namespace", lambda dtype: {**original(dtype), name: broken})
    with pytest.raises(AssertionError):
        check(layer.recurrence, arguments)
