"""Whether a team or one thread does a call: what was faster, tried seldom while nothing changes, soon if it does."""

import ctypes

import numpy as np
import pytest
from numba import types

import rsref_fast
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import crew, objects
from rsref_fast.cpu.build import object_of
from rsref_fast.cpu.crew_native import COUNTS, KNOWN, LOST, PLAN, UNTIL
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.plan import ALONE_NOW, EVERY, HEADER, LEFT, OWN, THEN, TOTAL, WENT
from rsref_fast.cpu.pointers import ADDRESSES
from rsref_fast.cpu.splitting import Split
from rsref_fast.cpu.trials import SELDOM, SOON, TRIAL, next_way
from tests.fast.made import recurrence_of


def _call(plan, times):
    alone = next_way(plan)
    plan[TOTAL] += times[alone]
    return alone


@pytest.fixture(scope="module")
def calls():
    """A function of a plan's words, the number of calls, and a team's and one thread's microseconds: who did them."""
    signature = types.int64(ADDRESSES, ADDRESSES)
    entry = objects.c_entry(objects.load(*object_of(plain(_call), signature)), "i64 %0, i64 %1")
    call = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 4)(entry)

    def of(plan, count, *times):
        table = 1000 * np.array(times)
        return [call(plan.ctypes.data, table.ctypes.data, 0) for _ in range(count)]

    return of


def test_the_faster_one_is_taken_and_the_other_tried_ever_less_often(calls):
    plan = np.zeros(HEADER, np.int64)
    found = calls(plan, 6 * SELDOM, 100, 130)
    trials = np.flatnonzero(found)
    first = [SOON - 1, 3 * SOON + TRIAL - 2, 7 * SOON + 2 * TRIAL - 3]
    assert trials[: 3 * TRIAL].tolist() == [start + k for start in first for k in range(TRIAL)]
    assert plan[EVERY] == SELDOM
    assert len(found) > sum(found) * 100


def test_one_thread_takes_over_where_it_is_faster_and_gives_back(calls):
    plan = np.zeros(HEADER, np.int64)
    first = calls(plan, 4 * SOON, 100, 60)
    assert first == [0] * (SOON - 1) + [1] * (TRIAL + SOON - 1) + [0] * TRIAL + [1] * (2 * SOON + 2 - 2 * TRIAL)
    calls(plan, 4 * SELDOM, 100, 60)
    assert (plan[ALONE_NOW], plan[OWN], plan[EVERY]) == (1, 60_000, SELDOM)
    later = calls(plan, 100, 30, 90)  # calls take longer than they did, and a trial is due
    assert later[:3] == [1] * 3
    assert sum(later[:20]) > 10 > sum(later[20:])
    assert plan[ALONE_NOW] == 0


def test_little_better_is_not_worth_a_change(calls):
    plan = np.zeros(HEADER, np.int64)
    calls(plan, 1000, 100, 91)
    assert plan[ALONE_NOW] == 0
    calls(plan, SELDOM, 100, 89)
    assert plan[ALONE_NOW] == 1


def test_the_fastest_call_of_a_trial_counts(calls):
    """And of the calls between two trials the fastest one at once. Then the next trial comes soon."""
    plan = np.zeros(HEADER, np.int64)
    calls(plan, 3 * SOON + TRIAL - 2, 100, 130)
    assert plan[EVERY] == 2 * SOON
    for time in (130, 60, 130, 130):
        assert calls(plan, 1, 100, time) == [1]
    assert calls(plan, 1, 100, 60) == [1]
    assert (plan[ALONE_NOW], plan[OWN], plan[EVERY], plan[LEFT]) == (1, 60_000, SOON, SOON - 1)
    calls(plan, 1, 100, 40)
    calls(plan, 1, 100, 60)
    assert plan[OWN] == 40_000


def test_a_call_that_took_long_by_chance_changes_nothing(calls):
    plan = np.zeros(HEADER, np.int64)
    calls(plan, 3 * SOON + 2 * TRIAL, 100, 130)
    before = plan[LEFT], plan[EVERY], plan[THEN]
    calls(plan, 1, 10**9, 130)
    assert calls(plan, 5, 100, 130) == [0] * 5
    assert (plan[LEFT] + 6, plan[EVERY], plan[THEN]) == before


@pytest.fixture
def free():
    """Teams may be replaced."""
    crew.runners()
    crew.keep_teams(False)
    yield
    crew.keep_teams(True)


def forget():
    """Forget that this machine is busy: else teams would be replaced because of it."""
    crew._control[[COUNTS, UNTIL]], crew._control[KNOWN] = 0, crew._control[LOST]


def test_who_did_a_call_cannot_be_seen_in_its_answers(free):
    """Through a trial, and back."""
    own = recurrence_of("LSTMCell", 64, 9)
    engine = rsref_fast.compile(own)
    engine.split = Split(1, 2)
    arguments = random_arguments(own, batch=1, steps=10)
    step = engine.stream([], arguments.states, arguments.parameters)
    way = step._alone
    context = ctypes.c_int64.from_address((way.where[-1] + way.plan.scratch + 63) // 64 * 64 + 8 * PLAN)
    both = {way.plan.address: 0, way.plan.alone.address: 1}
    expected, ran = None, []
    for _ in range(SOON + TRIAL):
        forget()
        step.reset(arguments.states)
        answers = step(arguments.sequences[0][:, 0])[0].copy()
        expected = answers if expected is None else expected
        np.testing.assert_array_equal(answers, expected)
        ran.append(both[context.value])
    assert ran[: SOON - 1 + TRIAL] == [0] * (SOON - 1) + [1] * TRIAL


def test_backward_goes_forwards_way(free):
    """What both take is noted together, and their answers are the same, bit by bit, whoever does them."""
    own = recurrence_of("GRUCell", 64, 9)
    engine = rsref_fast.compile(own)
    engine.split = Split(1, 2)
    arguments = random_arguments(own, batch=1, steps=10)
    expected, went = None, []
    for _ in range(SOON + TRIAL):
        forget()
        ys, _, tape = arguments.forward(engine)
        notes = tape.call.forward.words
        forward = int(notes[TOTAL])
        forget()
        found = engine.backward(tape, [np.cos(ys[0])], [None])
        assert tape.call.backward.leader is tape.call.forward
        assert notes[TOTAL] > forward > 0
        answers = [ys[0], found.sequences[0], *found.parameters]
        expected = answers if expected is None else expected
        for a, b in zip(answers, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        went.append(int(notes[WENT]))
    assert went[: SOON - 1 + TRIAL] == [0] * (SOON - 1) + [1] * TRIAL
    assert not tape.call.backward.words[LEFT : WENT + 1].any()  # it has no trials of its own
