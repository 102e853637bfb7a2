"""Training with little memory: what the oracle answers, stretch by stretch."""

import numpy as np
import pytest

import rsref_fast
from rsref import cells, set_random_seed
from rsref.engine import ReferenceEngine
from rsref.testing.arguments import random_arguments
from tests.fast.agreement import check

MASK = np.random.default_rng(3).random((3, 11)) < 0.6
MASK[1] = False


def recurrence(cell, **options):
    set_random_seed(0)
    layer = getattr(cells, cell)(5).get_layer(**options)
    layer.build((None, None, 4))
    return layer.recurrence


@pytest.mark.parametrize("options", [{}, {"truncate": 2}, {"truncate": 5}, {"zero_output_for_mask": True}], ids=str)
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "RWACell"])
def test_against_the_oracle(cell, mask, options):
    own = recurrence(cell, **options)
    engine = rsref_fast.compile(own, target="interpreter", checkpoint=True)
    for steps in (1, 2, 11) if mask is None else (11,):
        check(own, random_arguments(own, batch=3, steps=steps, mask=mask), engine=engine)


def test_forward_keeps_a_few_states_only():
    own = recurrence("LSTMCell")
    engine = rsref_fast.compile(own, target="interpreter", checkpoint=True)
    _, _, tape = random_arguments(own, batch=2, steps=100).forward(engine)
    assert [part.stretch for part in tape.parts] == [(0, 25), (25, 50), (50, 75), (75, 100)]
    assert all(a.shape == (2, 5) for part in tape.parts for a in part.arguments[2])
    assert [part.kept is None for part in tape.parts] == [True] * 3 + [False]


def test_no_stretch_needs_more_memory_than_the_last_left():
    own = recurrence("LSTMCell")
    engine = rsref_fast.compile(own, target="interpreter", checkpoint=True)
    for steps in range(60):
        _, _, tape = random_arguments(own, batch=1, steps=steps).forward(engine)
        lengths = [end - begin for begin, end in (part.stretch for part in tape.parts)]
        assert sum(lengths) == steps
        assert max(lengths) == lengths[-1] <= 3 * max(1, steps) ** 0.5


def test_tapes_of_other_engines_are_named():
    graph = recurrence("GRUCell")
    given = random_arguments(graph, batch=2, steps=30)
    engines = [rsref_fast.compile(graph, target="interpreter", checkpoint=c) for c in (False, True)]
    tapes = [given.forward(engine)[2] for engine in (*engines, ReferenceEngine(graph))]
    for engine, tape, words in (
        (engines[0], tapes[1], "got that of an engine with checkpoint=True"),
        (engines[1], tapes[0], "got that of an engine without checkpoint=True"),
        (engines[1], tapes[2], r"got rsref\.engine\.Tape"),
    ):
        with pytest.raises(TypeError, match=f"takes the tape that forward answered; {words}"):
            engine.backward(tape, [None], [None])


def test_backward_may_be_asked_twice():
    own = recurrence("LSTMCell")
    engine = rsref_fast.compile(own, target="interpreter", checkpoint=True)
    ys, _, tape = random_arguments(own, batch=2, steps=20).forward(engine)
    first, second = (engine.backward(tape, [np.cos(ys[0])], [None, None]) for _ in range(2))
    for a, b in zip(
        (*first.sequences, *first.states, *first.parameters), (*second.sequences, *second.states, *second.parameters)
    ):
        np.testing.assert_array_equal(a, b)


def test_no_steps():
    own = recurrence("LSTMCell")
    check(
        own,
        random_arguments(own, batch=2, steps=0),
        engine=rsref_fast.compile(own, target="interpreter", checkpoint=True),
    )
