"""Steps that pick samples of the batch by their number, against the oracle, on every way in which an engine runs."""

import numpy as np
import pytest

import rsref_fast
from rsref import Input, RecurrentModel, ops
from rsref.cells import LSTMCell
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import checkpoint
from rsref_fast.cpu.splitting import Split
from rsref_fast.numbered import picks_samples
from tests.fast.agreement import check
from tests.fast.picking import PICKED, integers_and_bools, recurrence_of

MASK = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 0]], bool)


@pytest.mark.parametrize("name", PICKED)
def test_against_the_oracle(name):
    own = recurrence_of(name)
    engine = rsref_fast.compile(own, target="interpreter", threads=2)
    for batch in (3, 2, 5):
        check(own, random_arguments(own, batch=batch, steps=4), engine=engine)


def test_as_machine_code():
    pytest.importorskip("numba")
    own = recurrence_of("rolled")
    check(own, random_arguments(own, batch=3, steps=4), target="cpu", threads=2)


@pytest.mark.parametrize("mean", [lambda x: ops.mean(x, axis=0, keepdims=True), lambda x: ops.sum(ops.sum(x, axis=0))])
def test_a_gradient_that_is_the_same_for_all_samples(mean):
    """It is one row, but the caller's array has one for each sample and step."""
    x, h, c = Input((2,)), Input((2,)), Input((2,))
    layer = RecurrentModel(x, [h, ops.broadcast_like(mean(c), c)], h, h + mean(x), constants=c)
    layer.build((None, None, 2))
    check(layer.recurrence, random_arguments(layer.recurrence, batch=3, steps=4))


def test_results_that_no_sample_changes():
    """An output or state of parameters alone has a row for each of a certain number of samples, at every step."""
    x, h, c = Input((2,)), Input((3,)), Input((3,))
    for batch in (1, 3):
        rows = Parameter("w", np.random.default_rng(0).normal(size=(batch, 3))).tensor
        own = Recurrence(StepGraph(sequences=[x], states=[h], outputs=[ops.tanh(rows), h], new_states=[rows]))
        check(own, random_arguments(own, batch=batch, steps=4), threads=2)
    for output in (ops.transpose(c), ops.matmul(ops.transpose(c), c)):
        own = Recurrence(StepGraph(sequences=[x], constants=[c], outputs=[output]))
        check(own, random_arguments(own, batch=3, steps=4))
    own = Recurrence(StepGraph(outputs=[ops.tanh(Parameter("w", np.ones((1, 3))).tensor)]))
    with pytest.raises(NotImplementedError, match="has no row for each sample"):
        rsref_fast.compile(own, target="interpreter").check()


def test_steps_drawn_for_a_certain_batch():
    x, h, w = Input(batch_shape=(4, 6)), Input(batch_shape=(4, 6)), Parameter("w", np.ones(6)).tensor
    new = ops.tanh(ops.reshape(ops.sin(ops.reshape(x, (4, 2, 3))), (4, 6)) + h * ops.broadcast_to(w, (4, 6)))
    for output in (new, ops.concatenate([x[1:], x[:1]], axis=0)):
        own = Recurrence(StepGraph(sequences=[x], states=[h], outputs=[output], new_states=[new]))
        engine = rsref_fast.compile(own, target="interpreter")
        engine.check()
        check(own, random_arguments(own, batch=4, steps=3), engine=engine)
        assert len(engine._special) == 2  # each precision
    assert not picks_samples(StepGraph(sequences=[x], outputs=[ops.softmax(x) - ops.mean(x, axis=0)]))


def test_masks_and_truncation():
    """A masked sample takes no part in a step: then another one has its number."""
    own = Recurrence(recurrence_of("rolled").graph, truncate=2)
    check(own, random_arguments(own, batch=3, steps=4, mask=MASK))
    check(own, random_arguments(own, batch=3, steps=4))


def test_a_step_in_which_no_sample_takes_part():
    """It is not run: there is no first sample to pick, and no largest one."""
    own = recurrence_of("gathered")
    check(own, random_arguments(own, batch=3, steps=4, mask=MASK & [True, False, True, True]))


def test_single_steps_have_the_engines_threads():
    """With a mask each step is a call, of an engine that knows what it has checked before."""
    own = recurrence_of("added up")
    engine = rsref_fast.compile(own, target="interpreter", threads=1)
    arguments = random_arguments(own, batch=3, steps=4, mask=MASK)
    for threads, split in ((1, None), (2, None), (None, Split(1, 3))):
        engine.threads, engine.split = threads, split
        _, _, tape = arguments.forward(engine)
        assert {piece.split for _, _, piece in tape.pieces} == {split or Split(1, threads)}
        assert engine.one_step() is engine.one_step()
        check(own, arguments, engine=engine, split=split)


def test_integers_and_bools():
    own = integers_and_bools()
    check(own, random_arguments(own, batch=4, steps=3))


def test_checkpoints_and_streams(monkeypatch):
    monkeypatch.setattr(checkpoint, "ROOTS", 1)  # so that there are stretches in between
    own = recurrence_of("reversed")
    arguments = random_arguments(own, batch=3, steps=10)
    expected, ends, _ = arguments.forward(rsref_fast.compile(own, target="interpreter"))
    check(own, arguments, engine=rsref_fast.compile(own, target="interpreter", checkpoint=True))
    pytest.importorskip("numba")
    stream = rsref_fast.compile(own).stream([], arguments.states, arguments.parameters, batch=3)
    for t in range(10):
        (y,) = stream(arguments.sequences[0][:, t])
        np.testing.assert_allclose(y, expected[0][:, t], rtol=1e-12)
    np.testing.assert_allclose(stream.states[0], ends[0], rtol=1e-12)


def test_what_picks_no_samples_is_compiled_for_any_number():
    layer = LSTMCell(3).get_layer()
    layer.build((None, None, 2))
    assert not picks_samples(layer.recurrence.graph)
    for places, expected in (((0, 0), False), ((1, 0), True), ((0, 1), True)):
        x = Input((2,))
        padded = ops.sum(ops.pad(x, [places, (1, 1)]))
        assert picks_samples(StepGraph(sequences=[x], outputs=[ops.expand_dims(padded, 0) + x])) is expected
    x, h = Input((None, 2)), Input((2,))
    layer = RecurrentModel(x, h, h, ops.sum(x[:, 1:], axis=1) + h)
    layer.build((None, None, None, 2))
    assert not picks_samples(layer.recurrence.graph)
