"""Rounds: a team computes all steps of some samples, then those of others, where steps attend to much."""

import numpy as np
import pytest

import rsref
import rsref_fast
from rsref import Input, RecurrentModel, cells, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import interpreted, splitting
from rsref_fast.cpu.splitting import Split, split_of
from tests.fast.agreement import check
from tests.fast.cpu.test_wide import attention, given
from tests.fast.made import recurrence_of

SINGLE = np.dtype(np.float32)


def special_of(own, batch, *shapes):
    engine = rsref_fast.compile(own, target="interpreter")
    return engine.specialised([(batch, *shape) for shape in shapes], SINGLE)


def decoder(units=512, places=100):
    layer = cells.AttentionDecoderCell(units).get_layer(decode=True, output_length=4)
    layer.build((None, places, units))
    states = [state.shape[1:] for state in layer.recurrence.graph.states]
    return special_of(layer.recurrence, 64, (places, units), (places,), *states)


def test_what_a_step_attends_to():
    """Keys and values; not weights, nor a mask of few values, nor what is read before the loop only."""
    assert decoder().attended == 4 * 2 * 100 * 512
    assert decoder(32, 10).attended == 0  # not wide
    own = recurrence_of("LSTMCell", 64, 9)
    assert special_of(own, 2, (9,), (64,), (64,)).attended == 0


@pytest.mark.parametrize(
    ("batch", "threads", "steps", "expected"),
    [
        (64, 2, 100, Split(16, 1, 8)), (64, 1, 100, Split(8, 1, 8)), (64, 2, 1, Split(2, 1)),
        (16, 2, 100, Split(4, 1, 2)), (16, 4, 100, Split(4, 1)), (8, 2, 100, Split(2, 1)),
        (1000, 2, 9, Split(128, 1, 64)),
    ],
)  # fmt: skip
def test_how_many_rounds(batch, threads, steps, expected):
    assert split_of(None, threads, decoder(), batch, batch * steps) == expected


def test_who_attends_to_little_needs_one_round():
    own = recurrence_of("LSTMCell", 64, 9)
    special = special_of(own, 2, (9,), (64,), (64,))
    assert split_of(None, 2, special, 4096, 4096 * 100) == Split(2, 1)
    assert split_of(None, 2, decoder(32, 10), 4096, 4096 * 100) == Split(2, 1)


def test_samples_that_are_mixed_are_not_split():
    """Each step's mean over the batch needs all of them."""
    x, memory, h = Input((4,)), Input((1100, 4)), Input((4,))
    new = ops.tanh(x + ops.einsum("btd,bd->bd", memory, h) - ops.mean(h, 0, keepdims=True))
    own = RecurrentModel(x, new, h, new, constants=[memory]).recurrence
    special = special_of(own, 64, (4,), (1100, 4), (4,))
    assert special.attended > 0
    assert split_of(None, 2, special, 512, 51200) == Split(1, 2)
    assert split_of(Split(4, 1, 2), 2, special, 512, 51200) == Split(1, 1)


def test_weights_that_no_cache_holds_are_not_read_for_fewer_samples():
    assert split_of(None, 2, decoder(1400), 64, 6400) == Split(1, 2)


def test_teams_have_as_many_rounds_as_they_need():
    assert [Split(shards, 1, 3).teams for shards in (1, 3, 4, 5, 6, 7)] == [1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("threads", [1, 2])
def test_chosen_rounds_agree_with_the_oracle(monkeypatch, threads):
    monkeypatch.setattr(splitting, "ATTENDED", 1 << 16)
    own = attention()
    engine = rsref_fast.compile(own, threads=threads)
    arguments = given(own, 17, np.float64)
    check(own, arguments, engine=engine)
    *_, tape = arguments.forward(engine)
    assert tape.step.split == Split(4, 1, 4 // threads)
    assert "a batch of 256, 100 steps: 64 shards in" in engine.explain()


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_a_team_meets_before_it_uses_its_memory_again(monkeypatch, target):
    """What is computed once a call is read by threads that are still at the samples of the round before."""
    monkeypatch.setattr(interpreted, "WIDTH", 1)
    c = Input((3,))
    weights = [rsref.Parameter(name, np.full(3, 0.5)) for name in "vw"]
    new = ops.tanh(ops.sum(c, 1, keepdims=True) * weights[0].tensor + c * weights[1].tensor)
    own = Recurrence(StepGraph(constants=[c], outputs=[new]))
    engine = rsref_fast.compile(own, target=target)
    for batch, split in ((3, Split(3, 2, 3)), (5, Split(4, 3, 2)), (5, Split(5, 2, 5))):
        check(own, random_arguments(own, batch=batch, steps=3), engine=engine, split=split)


def test_a_team_keeps_its_memory_from_round_to_round():
    own = recurrence_of("LSTMCell", 64, 9)
    engine = rsref_fast.compile(own)
    arguments = random_arguments(own, batch=16, steps=5)
    sizes = []
    for split in (Split(8, 1), Split(8, 1, 4), Split(8, 1, 8)):
        engine.split = split
        call = arguments.forward(engine)[2].call
        sizes.append((call.forward.scratch, call.backward.scratch))
        assert call.forward.threads == call.backward.threads == split.teams
    prepared = [call.forward.prepared, call.backward.prepared]
    every, two, one = (np.subtract(size, prepared) for size in sizes)
    np.testing.assert_array_equal(every - 8 * one, 7 * (two - 2 * one))  # the sums of the first team are elsewhere
    assert (every > 7 * one).all()


@pytest.mark.parametrize("target", ["cpu", "interpreter"])
@pytest.mark.parametrize("sample", range(5))
def test_what_is_out_of_range_in_any_round_is_refused(target, sample):
    x, h = rsref.Input((), dtype="int"), rsref.Input((2,))
    table = rsref.Parameter("table", np.ones((3, 2)))
    own = rsref.RecurrentModel(x, rsref.ops.embedding(x, table.tensor) + h, h, h).recurrence
    engine = rsref_fast.compile(own, target=target)
    engine.split = Split(5, 1, 3)
    numbers = np.zeros((5, 2), int)
    numbers[sample] = 7, 8
    with pytest.raises(IndexError, match="index 7 is out of range for an axis of size 3"):
        engine.forward([numbers], [], [np.zeros((5, 2))], [table.value])
