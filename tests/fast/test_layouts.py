"""Calls whose arrays lie otherwise than those of the call before: an engine remembers calls by how arrays lie."""

from dataclasses import replace

import numpy as np
import pytest

import rsref_fast
from rsref import cells, set_random_seed
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.splitting import Split
from tests.fast.agreement import check


class Own(np.ndarray):
    """A user's kind of array."""


def spread(a):
    """Return a view of every other number of an array."""
    wide = np.full((*a.shape, 2), np.nan, a.dtype)
    wide[..., 0] = a
    return wide[..., 0]


def time_first(a):
    return np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1) if a.ndim == 3 else a


def swapped_bytes(a):
    return a.astype(a.dtype.newbyteorder())


WAYS = [np.asfortranarray, spread, time_first, swapped_bytes, lambda a: a.view(Own), np.copy]


@pytest.fixture
def own():
    set_random_seed(0)
    layer = cells.LSTMCell(5).get_layer(return_sequences=True)
    layer.build((None, None, 4))
    return layer.recurrence


def laid(arguments, group, way):
    return replace(arguments, **{group: [way(a) for a in getattr(arguments, group)]})


def alike(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_answers_are_the_same_bit_by_bit(own, target, masked):
    if target == "cpu":
        pytest.importorskip("numba")
    mask = np.arange(7) < np.array([[5], [7], [2]]) if masked else None
    arguments = random_arguments(own, batch=3, steps=7, mask=mask)
    engine = check(own, arguments, target=target, threads=2)
    frozen = engine.freeze(arguments.parameters)

    def answers(given):
        ys, ends, tape = given.forward(engine)
        d = engine.backward(tape, ys, ends)
        again, last = frozen(given.sequences, given.constants, given.states, mask)
        alike([*again, *last], [*ys, *ends])
        return [*ys, *ends, *d.sequences, *d.constants, *d.states, *d.parameters]

    expected = answers(arguments)
    for group in ("sequences", "states", "parameters"):
        for way in WAYS:
            alike(answers(laid(arguments, group, way)), expected)
            alike(answers(arguments), expected)


def test_gradients_may_lie_in_any_way(own):
    arguments = random_arguments(own, batch=3, steps=7)
    engine = rsref_fast.compile(own, target="interpreter")
    ys, ends, tape = arguments.forward(engine)
    expected = engine.backward(tape, ys, ends)
    for way in WAYS:
        found = engine.backward(tape, [way(y) for y in ys], [way(s) for s in ends])
        alike([*found.sequences, *found.parameters], [*expected.sequences, *expected.parameters])


def test_lists_that_are_answered_are_the_callers(own):
    arguments = random_arguments(own, batch=3, steps=7)
    engine = rsref_fast.compile(own, target="interpreter")
    ys, ends, tape = arguments.forward(engine)
    expected = engine.backward(tape, ys, ends).parameters
    d_ys, d_ends = [*ys], [*ends]
    ys.clear(), ends.clear(), arguments.sequences.clear(), arguments.states.clear(), arguments.parameters.clear()
    alike(engine.backward(tape, d_ys, d_ends).parameters, expected)


def test_another_split_is_heeded_by_the_next_call(own, monkeypatch):
    monkeypatch.setattr("rsref_fast.threads._number", 2)
    engine = rsref_fast.compile(own, target="interpreter")
    arguments = random_arguments(own, batch=3, steps=7)
    for threads, asked, split in (
        (None, None, Split(1, 1)),
        (2, None, Split(2, 1)),
        (3, None, Split(3, 1)),
        (3, Split(1, 2), Split(1, 2)),
        (None, None, Split(1, 1)),
    ):
        engine.threads, engine.split = threads, asked
        *_, tape = arguments.forward(engine)
        assert tape.split == split
