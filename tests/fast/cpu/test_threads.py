"""Threads: how many, the same answers with any number, and forks."""

import gc
import os
import signal
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rsref_fast
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import crew, objects
from rsref_fast.cpu.programs import forward_source
from rsref_fast.packing import whole_batch
from tests.fast.made import recurrence_of


@pytest.fixture
def engine():
    return rsref_fast.compile(recurrence_of("GRUCell", 64, 9))


def answers(engine, arguments):
    ys, _, tape = arguments.forward(engine)
    found = engine.backward(tape, [np.cos(ys[0])], [None])
    return [ys[0], found.sequences[0], *found.parameters]


def test_the_number_of_threads(engine, monkeypatch):
    assert rsref_fast.get_num_threads() >= 1
    arguments = random_arguments(engine.recurrence, batch=64, steps=40)
    try:
        found = {}
        for number in (1, 2, 3):
            rsref_fast.set_num_threads(number)
            assert rsref_fast.get_num_threads() == number
            found[number] = answers(engine, arguments)
            assert len(arguments.forward(engine)[2].call.shards) == number
        for number in (2, 3):
            for a, b in zip(found[number], found[1], strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * (np.abs(b).max() or 1))
    finally:
        rsref_fast.set_num_threads(None)


def test_what_is_remembered_of_a_source_is_of_no_other_one(engine):
    """Two threads may both generate a program; were its frames known by its place in memory, another's would be found.

    So whoever remembers them holds it.
    """
    engine.check()
    (special,) = engine._special.values()
    source = forward_source(special.compiled, special.width, True)
    special.frames(source, whole_batch(2, 3, 1, None)[0], True, 96)
    alive = weakref.ref(source)
    del source
    gc.collect()
    assert alive() is not None


def test_small_calls_stay_in_the_callers_thread(engine):
    arguments = random_arguments(engine.recurrence, batch=2, steps=1)
    assert len(arguments.forward(engine)[2].call.shards) == 1


def child_agrees(engine, arguments, expected, first=lambda: None):
    """Whether a forked child answers the same, within 20 seconds. first: what it does before."""
    child = os.fork()
    if not child:
        same = False
        try:
            signal.alarm(20)  # ends a child that waits
            first()
            same = all(np.array_equal(a, b) for a, b in zip(answers(engine, arguments), expected, strict=True))
        finally:  # whatever is raised: the child is not to go on with the tests
            os._exit(0 if same else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_computes_the_same(engine):
    arguments = random_arguments(engine.recurrence, batch=64, steps=40)
    rsref_fast.set_num_threads(2)
    try:
        assert child_agrees(engine, arguments, answers(engine, arguments))
    finally:
        rsref_fast.set_num_threads(None)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_holds_a_lock_does_not_wait(engine):
    arguments = random_arguments(engine.recurrence, batch=2, steps=3)
    expected = answers(engine, arguments)
    with crew._lock, objects._lock:
        assert child_agrees(engine, arguments, expected, first=crew._found.clear)


def test_several_threads_go_back_through_one_checkpointed_tape(engine):
    """The first one lets go of the last stretch's tape: the others run forward again for it."""
    sparing = rsref_fast.compile(engine.recurrence, checkpoint=True, threads=1)
    arguments = random_arguments(engine.recurrence, batch=8, steps=60)
    ys, _, tape = arguments.forward(sparing)
    assert len(tape.parts) > 1
    expected = answers(engine, arguments)[1:]
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(sparing.backward, tape, [np.cos(ys[0])], [None]) for _ in range(8)]
    for found in (run.result() for run in runs):
        for own, right in zip([found.sequences[0], *found.parameters], expected, strict=True):
            np.testing.assert_allclose(own, right, rtol=0, atol=1e-12 * (np.abs(right).max() or 1))
