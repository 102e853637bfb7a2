"""Sequences that lie in memory with the time first: read where they lie, and answers lie so, too."""

from dataclasses import replace

import numpy as np
import pytest

import rsref_fast
from rsref import Input, cells, ops, set_random_seed
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.splitting import Split
from tests.fast.agreement import check
from tests.fast.picking import PICKED, recurrence_of

MASK = np.random.default_rng(3).random((3, 11)) < 0.6


def turned(a):
    """Return the same values as a view of (time, batch, ...)."""
    return np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1)


def lies_time_first(a):
    return a.swapaxes(0, 1).flags.c_contiguous and not a.flags.c_contiguous


def recurrence(cell="LSTMCell", **options):
    set_random_seed(0)
    layer = getattr(cells, cell)(5).get_layer(return_sequences=True, **options)
    layer.build((None, None, 4))
    return layer.recurrence


def arguments_of(own, **options):
    found = random_arguments(own, **options)
    return replace(found, sequences=[turned(a) for a in found.sequences])


def gradients_of(engine, tape, d_outputs, states):
    found = engine.backward(tape, d_outputs, [None] * states)
    return [*found.sequences, *found.constants, *found.states, *found.parameters]


@pytest.mark.parametrize("split", [None, Split(3, 1), Split(1, 2), Split(2, 2), Split(3, 1, 2)], ids=str)
@pytest.mark.parametrize("options", [{}, {"truncate": 4}], ids=str)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_against_the_oracle(checkpoint, options, split):
    own = recurrence("GRUCell", **options)
    engine = rsref_fast.compile(own, target="interpreter", threads=2, checkpoint=checkpoint)
    for batch, steps in ((3, 11), (7, 2), (2, 30)):
        check(own, arguments_of(own, batch=batch, steps=steps), engine=engine, split=split)


def test_as_machine_code():
    pytest.importorskip("numba")
    own = recurrence()
    check(own, arguments_of(own, batch=300, steps=7), target="cpu", threads=2, dtype=np.float32)


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_answers_are_the_same_bit_by_bit_and_lie_as_the_sequences(checkpoint, target):
    if target == "cpu":
        pytest.importorskip("numba")
    own = recurrence()
    engine = rsref_fast.compile(own, target=target, threads=2, checkpoint=checkpoint)
    plain = random_arguments(own, batch=70, steps=9) if target == "cpu" else random_arguments(own, batch=6, steps=9)
    ys, ends, tape = plain.forward(engine)
    expected = gradients_of(engine, tape, ys, len(ends))
    for dy in (ys[0], turned(ys[0]), np.asfortranarray(ys[0])):
        given = replace(plain, sequences=[turned(a) for a in plain.sequences])
        own_ys, own_ends, tape = given.forward(engine)
        found = gradients_of(engine, tape, [dy], len(own_ends))
        for a, b in zip((*own_ys, *own_ends, *found), (*ys, *ends, *expected), strict=True):
            np.testing.assert_array_equal(a, b)
        assert [lies_time_first(a) for a in (own_ys[0], found[0], ys[0], expected[0])] == [True, True, False, False]


def test_nothing_is_copied():
    own = recurrence()
    engine = rsref_fast.compile(own, target="interpreter")
    given = arguments_of(own, batch=3, steps=4)
    _, _, tape = given.forward(engine)
    assert np.shares_memory(tape.arguments[0][0], given.sequences[0])


def test_sequences_that_lie_differently():
    """One alone decides nothing: all must have the time first."""
    x, z, i, h = Input((4,)), Input((4,)), Input((), dtype="int"), Input((4,))
    new = ops.tanh(x * h + ops.expand_dims(ops.cast(i, "float"), 1)) + z
    own = Recurrence(StepGraph(sequences=[x, z, i], states=[h], outputs=[new, ops.greater(new, 0.0)], new_states=[new]))
    engine = rsref_fast.compile(own, target="interpreter")
    plain = random_arguments(own, batch=3, steps=5)
    for lying in ((0,), (1, 2), (0, 1, 2)):
        given = [turned(a) if k in lying else a for k, a in enumerate(plain.sequences)]
        arguments = replace(plain, sequences=given)
        check(own, arguments, engine=engine)
        outputs, _, _ = arguments.forward(engine)
        assert [lies_time_first(y) for y in outputs] == [len(lying) == 3] * 2
        assert [y.dtype.kind for y in outputs] == ["f", "b"]


@pytest.mark.parametrize("name", PICKED)
def test_steps_that_pick_samples_by_their_number(name):
    own = recurrence_of(name)
    engine = rsref_fast.compile(own, target="interpreter", threads=2)
    for batch in (3, 5):
        check(own, arguments_of(own, batch=batch, steps=4), engine=engine)


@pytest.mark.parametrize("zero", [False, True])
def test_with_a_mask(zero):
    """Rows are packed anyway: the sequences are copied, and answers lie as they always do."""
    own = recurrence(zero_output_for_mask=zero)
    engine = rsref_fast.compile(own, target="interpreter")
    given = arguments_of(own, batch=3, steps=11, mask=MASK)
    check(own, given, engine=engine)
    assert not lies_time_first(given.forward(engine)[0][0])


def test_frozen_weights_tell_them_apart():
    own = recurrence()
    plain = random_arguments(own, batch=3, steps=4)
    frozen = rsref_fast.compile(own, target="interpreter").freeze(plain.parameters)
    (expected,), ends = frozen(plain.sequences, [], plain.states)
    for lay in (turned, np.copy, turned):
        (y,), own_ends = frozen([lay(plain.sequences[0])], [], plain.states)
        assert lies_time_first(y) is (lay is turned)
        for a, b in zip((y, *own_ends), (expected, *ends), strict=True):
            np.testing.assert_array_equal(a, b)
