"""What engines keep between calls: enough to be fast, and not for ever."""

import numpy as np

import rsref_fast
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import memory
from tests.fast.made import recurrence_of


def waiting():
    return sorted(piece.size for _, piece in memory._waiting)


def test_memory_that_nobody_takes_again_is_given_back(monkeypatch):
    monkeypatch.setattr(memory, "_waiting", [])
    large = [memory.Arena(1 << 24) for _ in range(memory.KEPT + 2)]
    del large
    assert waiting() == [1 << 24] * memory.KEPT
    small = memory.Arena(100)  # the newest is kept, in place of the oldest
    kept = small.bytes
    del small
    assert waiting() == [100, *[1 << 24] * (memory.KEPT - 1)]
    for _ in range(memory.TURNS + 1):
        assert memory.Arena(90).bytes is kept
    assert waiting() == [100]


def test_checks_of_many_sizes_are_not_all_remembered(monkeypatch):
    monkeypatch.setattr("rsref_fast.cpu.engine.REMEMBERED", 3)
    engine = rsref_fast.compile(recurrence_of("SimpleRNNCell"), target="interpreter")
    for steps in (1, 2, 3, 4, 5, 1):
        ys, _, _ = random_arguments(engine.recurrence, batch=1, steps=steps).forward(engine)
        assert np.isfinite(ys[0]).all()
        assert len(engine._checked) <= 3
