"""Threads that share the units of a sample: the same answers as alone, with every cell, on compiled code."""

import re
import threading

import numpy as np
import pytest

import rsref_fast
from rsref import Dense, Input, RecurrentModel, ops
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import interpreted, kernels
from rsref_fast.cpu.kernels import Interpreted
from rsref_fast.cpu.splitting import Split, split_of
from rsref_fast.cpu.turns import Turns
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.made import recurrence_of


@pytest.mark.covering("values")
@pytest.mark.parametrize(
    ("cell", "units"), [("LSTMCell", 64), ("LSTMCell", 70), ("LayerNormLSTMCell", 70), ("GRUCell", 64)]
)
@pytest.mark.parametrize("split", [Split(1, 2), Split(1, 3), Split(2, 2)], ids=str)
def test_against_the_oracle(cell, units, split):
    own = recurrence_of(cell, units, 9, truncate=3)
    engine = rsref_fast.compile(own)
    mask = np.random.default_rng(0).random((3, 7)) < 0.7
    for m in (None, mask):
        arguments = random_arguments(own, batch=3, steps=7, mask=m)
        check(own, arguments, engine=engine, split=split, inference=examples(True, False))


def answers(engine, arguments):
    ys, _, tape = arguments.forward(engine)
    found = engine.backward(tape, [np.cos(ys[0])], [None] * len(engine.recurrence.graph.states))
    return [ys[0], found.sequences[0], *found.parameters]


def test_one_sample_is_split_among_threads_and_answers_are_repeatable():
    own = recurrence_of("LSTMCell", 64, 9)
    engine = rsref_fast.compile(own, threads=2)
    arguments = random_arguments(own, batch=1, steps=30)
    assert arguments.forward(engine)[2].split == Split(1, 2)
    first = answers(engine, arguments)
    for _ in range(20):
        for a, b in zip(answers(engine, arguments), first, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("units", "expected"), [(64, Split(2, 1)), (1200, Split(1, 2))], ids=str)
def test_threads_share_weights_that_no_cache_holds(units, expected):
    own = recurrence_of("GRUCell", units, 9)
    engine = rsref_fast.compile(own, target="interpreter", threads=2)
    special = engine.specialised([(64, 9), (64, units)], np.dtype(np.float32))
    assert split_of(None, 2, special, 64, 64) == expected


def test_more_callers_than_processors():
    own = recurrence_of("LSTMCell", 64, 9)
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


SPARED = ("copy_rows(", "cut_rows(", "if active <")
"""After these lines threads meet in branches that are rarely taken. Where that is all that they do there, what comes
next lets them meet again; and rows of samples that begin are nobody else's yet."""


def test_each_meeting_left_out_is_seen(monkeypatch):
    """The interpreter lets one thread run far ahead of the others, so that it reads what is not written, or too late.

    Two samples of different lengths, several blocks, some of one step, gradients that are cut: every branch is
    taken, but of the forward program the one without a tape.
    """
    monkeypatch.setattr(interpreted, "WIDTH", 8)
    monkeypatch.setattr(Interpreted, "block_rows", 2)
    own = recurrence_of("LSTMCell", 24, 9, truncate=3)
    mask = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0, 0]], bool)
    arguments = random_arguments(own, batch=2, steps=7, mask=mask)
    original, texts = interpreted.load, []
    monkeypatch.setattr(interpreted, "load", lambda text, dtype: texts.append(text) or original(text, dtype))
    check(own, arguments, split=Split(1, 2))
    missed, count = [], 0
    for text in texts:
        lines = text.splitlines()
        for number, line in enumerate(lines):
            before = lines[number - 1].strip()
            idle = text == texts[0] and before == "if not taped:"
            if line.strip() == "meet(N)" and not before.startswith(SPARED) and not idle:
                broken = "\n".join([*lines[:number], *lines[number + 1 :]])
                monkeypatch.setattr(
                    interpreted, "load", lambda t, dtype, a=text, b=broken: original(b if t == a else t, dtype)
                )
                count += 1
                if not any(_seen(monkeypatch, own, arguments, turn) for turn in (0, 1)):
                    missed.append("\n".join(lines[number - 3 : number + 4]))
    assert count > 6
    assert missed == []


def _seen(monkeypatch, own, arguments, turn):
    """Whether answers are wrong. turn: which thread runs first."""

    class Begun(Turns):
        def __init__(self, threads):
            super().__init__(threads)
            self.meetings, self.current = turn, 0 if turn else threads - 1

    monkeypatch.setattr(kernels, "Turns", Begun)
    try:
        check(own, arguments, split=Split(1, 2))
    except AssertionError:
        return True
    return False


def test_a_product_waits_for_all_of_the_row_that_it_writes_to(monkeypatch):
    """A projection's gradient lies beside that of what reads it, of which all is read to compute it."""
    monkeypatch.setattr(interpreted, "WIDTH", 1)
    x, h = Input((4,)), Input((4,))
    new = ops.tanh(x + Dense(4)(Dense(4)(h)) + Dense(4)(h))
    own = RecurrentModel(x, new, h, new).recurrence
    check(own, random_arguments(own, batch=1), split=Split(1, 2))


@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell"])
def test_a_step_takes_one_meeting(cell):
    """A unit's gates, and then its states, are computed by the same thread, and their gradients."""
    own = recurrence_of(cell, 64, 9)
    forward, backward = (text.split("    for s in range(")[1] for text in text_of(own))
    assert forward.split("following =")[0].count("meet(N)") == 1
    main = re.sub(r"(?m)^( +)if (active|cutting) .*\n(\1 .*\n)+", "", backward.split("    slot = 1 - slot")[0])
    assert main.count("meet(N)") == 1, main


def text_of(own):
    source = rsref_fast.compile(own, target="interpreter").source
    return source.split('"""Backward."""')
