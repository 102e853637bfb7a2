"""Threads that share the units of a sample: the same answers as alone, with every cell, on compiled code."""

import ctypes
import re
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from numba import types

import rsref_fast
from rsref import Dense, Input, RecurrentModel, ops
from rsref.engine import ReferenceEngine
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import crew, interpreted, kernels, objects
from rsref_fast.cpu.build import object_of
from rsref_fast.cpu.crew_native import COUNTS, LOST, NEXT, PAUSE, PLAN, SHORT, UNTIL
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.kernels import Interpreted
from rsref_fast.cpu.meeting import SLICE, wait_for
from rsref_fast.cpu.ordering import LATE, ON_TIME
from rsref_fast.cpu.plan import forward_plan
from rsref_fast.cpu.pointers import ADDRESSES
from rsref_fast.cpu.splitting import Split, split_of
from rsref_fast.cpu.turns import Turns
from rsref_fast.packing import whole_batch
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.made import recurrence_of


@pytest.mark.covering("values")
@pytest.mark.parametrize(
    ("cell", "units"), [("LSTMCell", 64), ("LSTMCell", 70), ("LayerNormLSTMCell", 70), ("GRUCell", 64)]
)
@pytest.mark.parametrize("split", [Split(1, 2), Split(1, 3), Split(2, 2), Split(3, 1, 3), Split(3, 2, 2)], ids=str)
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


@pytest.mark.parametrize(
    ("cell", "units", "dtype", "lengths"),
    [
        ("LSTMCell", 70, np.float64, [7, 7]),
        ("LSTMCell", 70, np.float32, [7, 7]),
        ("LayerNormLSTMCell", 70, np.float64, [7, 7]),
        ("GRUCell", 64, np.float64, [7, 7]),
        ("LSTMCell", 64, np.float32, [7]),
        ("GRUCell", 64, np.float32, [7, 4]),
        ("SimpleRNNCell", 128, np.float32, [7]),
    ],
)
def test_a_team_answers_what_one_thread_does(cell, units, dtype, lengths):
    """Bit by bit: so one may take the place of the other while a program runs."""
    own = recurrence_of(cell, units, 9)
    engine = rsref_fast.compile(own)
    mask = np.arange(7) < np.array(lengths)[:, None]
    arguments = random_arguments(own, batch=len(lengths), steps=7, mask=mask)
    names = ("sequences", "states", "parameters")
    arguments = replace(arguments, **{name: [a.astype(dtype) for a in getattr(arguments, name)] for name in names})
    found = []
    for team in (1, 2, 3):
        engine.split = Split(1, team)
        found.append(answers(engine, arguments))
    for others in found[1:]:
        for a, b in zip(others, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_who_hires_workers_gives_them_back():
    """In their order, so that each of them has the same part of the weights the next time."""
    own = recurrence_of("LSTMCell", 64, 9)
    engine = rsref_fast.compile(own)
    engine.split = Split(1, 3)
    arguments = random_arguments(own, batch=1, steps=2)
    found = []
    for _ in range(3):
        answers(engine, arguments)
        idle = [int(crew._control[16])]
        while idle[-1]:
            idle.append(ctypes.c_int64.from_address(idle[-1] + 8 * NEXT).value)
        found.append(idle)
    assert len(found[0]) >= 3  # two of them, and the end
    assert found == [found[0]] * 3


@pytest.fixture
def lost():
    """What says how much time teams have lost, as it was at first afterwards."""
    crew.runners()
    words = crew._control[LOST : PAUSE + 1]
    before = words.copy()
    words[:] = 0
    crew.keep_teams(False)
    yield words
    words[:] = before
    crew.keep_teams(True)


def ran(way):
    """Return the address of the plan that a step of a stream ran by."""
    context = (way.where[-1] + way.plan.scratch + 63) // 64 * 64
    return ctypes.c_int64.from_address(context + 8 * PLAN).value


def test_one_thread_takes_the_place_of_a_team_that_loses_time(lost):
    """For a while, which is longer each time, and only where a step takes little; the answers are the same."""
    own = recurrence_of("LSTMCell", 64, 9)
    arguments = random_arguments(own, batch=1, steps=10)
    (expected,), _, _ = arguments.forward(ReferenceEngine(own))
    engine = rsref_fast.compile(own)
    engine.split = Split(1, 2)
    step = engine.stream([], arguments.states, arguments.parameters)
    team, alone = step._alone.plan.address, step._alone.plan.alone.address
    assert (step._alone.plan.alone.split.team, step._alone.plan.alone.alone) == (1, None)
    for t, milliseconds, until, plan, pause in (
        (0, 0, None, team, 0), (1, 11, None, team, 0), (2, 11, None, alone, SHORT), (3, 0, 60, alone, SHORT),
        (4, 0, 0, team, SHORT), (5, 13, 0, alone, 2 * SHORT), (6, 0, 0, team, 2 * SHORT), (7, 13, 0, alone, 4 * SHORT),
        (8, 0, -60, team, 4 * SHORT), (9, 13, -60, alone, SHORT),
    ):  # fmt: skip
        lost[:2] = milliseconds * 10**6, 0  # what this test's own threads have lost does not count
        if until is not None:
            lost[UNTIL - LOST] = time.monotonic_ns() + until * 10**9
        np.testing.assert_allclose(step(arguments.sequences[0][:, t])[0], expected[:, t], rtol=0, atol=1e-12)
        assert (ran(step._alone), lost[PAUSE - LOST]) == (plan, pause), t
    special = engine.specialised([(1, 9), (1, 64), (1, 64)], np.dtype(np.float64))
    for batch, also_alone in ((1, True), (500, False)):
        plan = forward_plan(special, whole_batch(batch, 1, 1, None), 1, Split(1, 2), False)
        assert (plan.alone is not None) == also_alone


def test_little_lost_time_is_forgiven(lost):
    """By every call a quarter of what it should take, a hundred additions or multiplications in a nanosecond."""
    own = recurrence_of("LSTMCell", 64, 9)
    engine = rsref_fast.compile(own)
    engine.split = Split(1, 2)
    arguments = random_arguments(own, batch=1, steps=100)
    forgiven = 100 * 64 * (4 * 2 * (64 + 9) + 5 * 32) // 400  # products, and functions
    for counts in (5_000_000, 10_000_000 - forgiven, 0):
        lost[:2] = 5_000_000, 0
        engine.forward(arguments.sequences, [], arguments.states, arguments.parameters, taped=False)
        assert lost[COUNTS - LOST] == pytest.approx(counts, abs=0.05 * forgiven)  # there is more than products
    assert lost[PAUSE - LOST] == SHORT


def test_long_waits_are_lost_time():
    signature = types.int64(ADDRESSES, types.int64, ADDRESSES)
    entry = objects.c_entry(objects.load(*object_of(plain(_waiting), signature)), "i64 %0, i64 %1, i64 %2")
    wait = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(entry)
    board = np.zeros(64, np.int64)
    counter, own, found = (board[i : i + 2] for i in (0, 16, 32))
    places = [a.__array_interface__["data"][0] for a in (counter, own, found)]
    for noted, seconds, expected in ((True, 0.0, 0), (True, 0.05, SLICE), (True, 0.05, 2 * SLICE), (False, 0.05, 0)):
        counter[0], own[1] = 0 if seconds else 1, places[2] if noted else 0
        found[0] = 0 if not noted else found[0]
        thread = threading.Thread(target=wait, args=(places[0], 1, places[1]))
        thread.start()
        time.sleep(seconds)
        counter[0] = 1
        thread.join()
        assert found[0] == expected


def test_functions_count_as_work(monkeypatch):
    """Where there are no products, threads compute what is no addition."""
    monkeypatch.setattr("rsref_fast.threads._number", 2)
    x, h = Input((500,)), Input((500,))
    for new, functions, threads in ((ops.tanh(x + h), 1, 2), (ops.maximum(x, h), 0, 1)):
        engine = rsref_fast.compile(RecurrentModel(x, new, h, new).recurrence, target="interpreter")
        special = engine.specialised([(3, 500), (3, 500)], np.dtype(np.float32))
        assert special.work(3, 300) == 300 * (special.flops + 32 * 500 * functions)
        assert split_of(None, None, special, 3, 300) == Split(threads, 1)


def _waiting(counter, target, own):
    wait_for(counter, target, own)
    return 0


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


MEETING = r"(?m)^ +(?:meet|arrive)\(N\)$"
SPARED = ("copy_rows(", "cut_rows(", "if active <")
"""After these lines threads meet in branches that are rarely taken. Where that is all that they do there, what comes
next lets them meet again; and rows of samples that begin are nobody else's yet."""


@pytest.mark.parametrize("units", [24, 32])
def test_each_meeting_left_out_is_seen(monkeypatch, units):
    """The interpreter lets one thread run far ahead of the others, so that it reads what is not written, or too late.

    Two samples of different lengths, several blocks, some of one step, gradients that are cut: every branch is
    taken, but of the forward program the one without a tape. Of 32 units each thread begins with its own part of a row,
    and waits for the other's in the middle of a product.
    """
    monkeypatch.setattr(interpreted, "WIDTH", 8)
    monkeypatch.setattr(Interpreted, "block_rows", 2)
    own = recurrence_of("LSTMCell", units, 9, truncate=3)
    mask = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0, 0]], bool)
    arguments = random_arguments(own, batch=2, steps=7, mask=mask)
    original, texts = interpreted.load, []
    monkeypatch.setattr(interpreted, "load", lambda text, dtype: texts.append(text) or original(text, dtype))
    check(own, arguments, split=Split(1, 2))
    assert all(("arrive(N)" in text) == (units == 32) for text in texts)
    missed, count = [], 0
    for text in texts:
        lines = text.splitlines()
        for number, line in enumerate(lines):
            before = lines[number - 1].strip()
            idle = text == texts[0] and before.startswith("if not taped ")
            if line.strip() in ("meet(N)", "arrive(N)") and not before.startswith(SPARED) and not idle:
                late = line.strip() == "arrive(N)"
                following = lines[number + 1].replace(LATE, ON_TIME) if late else lines[number + 1]
                broken = "\n".join([*lines[:number], following, *lines[number + 2 :]])
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
    assert len(re.findall(MEETING, forward.split("following =")[0])) == 1
    main = re.sub(r"(?m)^( +)if (active|cutting) .*\n(\1 .*\n)+", "", backward.split("    slot = 1 - slot")[0])
    assert len(re.findall(MEETING, main)) == 1, main


def text_of(own):
    source = rsref_fast.compile(own, target="interpreter").source
    return source.split('"""Backward."""')
