"""Threads that share the units of a sample: the same answers as alone, with every cell, on compiled code."""

import threading

import numpy as np
import pytest

import rsref_fast
from rsref import cells, set_random_seed
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import interpreted
from rsref_fast.cpu.splitting import Split, split_of
from tests.fast.agreement import check


def recurrence(cell, units=70, **options):
    set_random_seed(1)
    layer = getattr(cells, cell)(units).get_layer(**options)
    layer.build((None, None, 9))
    return layer.recurrence


@pytest.mark.parametrize("cell", ["LSTMCell", "LayerNormLSTMCell", "GRUCell"])
@pytest.mark.parametrize("split", [Split(1, 2), Split(1, 3), Split(2, 2)], ids=str)
def test_against_the_oracle(cell, split):
    own = recurrence(cell, truncate=3)
    mask = np.random.default_rng(0).random((3, 7)) < 0.7
    for m in (None, mask):
        check(own, random_arguments(own, batch=3, steps=7, mask=m), target="cpu", split=split)


def answers(engine, arguments):
    ys, _, tape = arguments.forward(engine)
    found = engine.backward(tape, [np.cos(ys[0])], [None] * len(engine.recurrence.graph.states))
    return [ys[0], found.sequences[0], *found.parameters]


def test_one_sample_is_split_among_threads_and_answers_are_repeatable():
    own = recurrence("LSTMCell", 256)
    engine = rsref_fast.compile(own, threads=2)
    arguments = random_arguments(own, batch=1, steps=30)
    assert arguments.forward(engine)[2].split == Split(1, 2)
    first = answers(engine, arguments)
    for _ in range(20):
        for a, b in zip(answers(engine, arguments), first, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("units", "expected"), [(64, Split(2, 1)), (1200, Split(1, 2))], ids=str)
def test_threads_share_weights_that_no_cache_holds(units, expected):
    own = recurrence("GRUCell", units)
    engine = rsref_fast.compile(own, target="interpreter", threads=2)
    special = engine.specialised([np.zeros((64, 1, 9))], [], [np.zeros((64, units))], np.dtype(np.float32))
    assert split_of(None, 2, special, 64, 64) == expected


def test_more_callers_than_processors():
    own = recurrence("LSTMCell")
    engine = rsref_fast.compile(own)
    engine.split = Split(1, 3)
    arguments = random_arguments(own, batch=2, steps=9)
    expected, found = answers(engine, arguments), []
    threads = [threading.Thread(target=lambda: found.append(answers(engine, arguments))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for own_answers in found:
        for a, b in zip(own_answers, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_meeting_left_out_is_seen(monkeypatch):
    """The interpreter lets one thread run far ahead of the others.

    Of 24 columns a thread has other ones in a product than in a loop, so that it reads what another one writes.
    """
    own = recurrence("LSTMCell", 24)
    arguments = random_arguments(own, batch=1, steps=4)
    check(own, arguments, split=Split(1, 2))
    source = rsref_fast.compile(own, target="interpreter").source
    names = [line.strip() for line in source.splitlines() if line.strip() == "meet(N)"]
    assert len(names) > 10
    original = interpreted.load
    seen = []
    for left_out in ("matmul", "fused"):

        def load(text, dtype, left_out=left_out):
            lines = text.splitlines()
            kept = [
                line
                for before, line in zip(["", *lines], lines)
                if line.strip() != "meet(N)" or not before.strip().startswith(left_out)
            ]
            return original("\n".join(kept), dtype)

        monkeypatch.setattr(interpreted, "load", load)
        try:
            check(own, arguments, split=Split(1, 2))
        except AssertionError:
            seen.append(left_out)
    assert seen == ["matmul", "fused"]
