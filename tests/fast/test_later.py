"""Gradients of wide constants that are outer products: added up for the steps of a block, as the oracle adds them."""

import numpy as np
import pytest

import rsref_fast
from rsref import Input, RecurrentModel, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter
from rsref.testing.arguments import random_arguments
from rsref_fast import wide
from rsref_fast.cpu import checkpoint, pieces
from rsref_fast.cpu.kernels import Interpreted
from rsref_fast.cpu.splitting import Split
from rsref_fast.layout import Section
from tests.covering import examples
from tests.fast.agreement import check

PLACES, UNITS, STEPS = 9, 10, 11
MASK = np.arange(STEPS) < np.array([STEPS, 3, 0, 8, 10])[:, None]


@pytest.fixture(autouse=True)
def nearly_everything_is_wide(monkeypatch):
    monkeypatch.setattr(wide, "WIDE", PLACES * UNITS)


def scores(h):
    return ops.softmax(h @ Parameter("weights", np.random.default_rng(1).normal(size=(UNITS, PLACES))).tensor, -1)


def average(weights, memory):
    return ops.einsum("bt,btf->bf", weights, memory)


def read_once(h, memory):
    """An average by weights that do not depend on the memory: its gradient is one outer product a step."""
    return average(scores(h), memory)


def read_twice(h, memory):
    """Dot-product attention: two outer products a step, of the scores' gradients and of the weights."""
    return ops.einsum("bt,btf->bf", ops.softmax(ops.einsum("bf,btf->bt", h, memory), -1), memory)


def of_a_sum(h, memory):
    """The gradient of a sum over places is the same at each of them: it is shown there, not computed."""
    return h * ops.sum(memory, 1)


def through_a_function(h, memory):
    """What the gradient is computed of is as wide as the memory: it stays in the step."""
    return ops.einsum(
        "bt,btf->bf", ops.softmax(ops.einsum("bf,btf->bt", h, ops.tanh(memory + ops.expand_dims(h, 1))), -1), memory
    )


def reader(draw):
    x, memory, h = Input((UNITS,)), Input((PLACES, UNITS)), Input((UNITS,))
    new = ops.tanh(x + draw(h, memory))
    layer = RecurrentModel(x, new, h, new, constants=memory, return_sequences=True)
    layer.build((None, None, UNITS))
    return layer.recurrence


def arguments_of(recurrence, mask=None):
    return random_arguments(recurrence, batch=5, steps=STEPS, mask=mask)


def added_later(engine):
    backward = next(iter((engine.parted.step if engine.parted else engine)._special.values())).compiled.backward
    assert all(backward.layout.section[tensor] is Section.AFTER for tensor in backward.layout.later)
    return len(backward.layout.later)


@pytest.mark.parametrize("rows", [None, 12], ids=["one block", "blocks"])
def test_against_the_oracle(monkeypatch, rows):
    """By one thread, in shards, by teams and in rounds, in blocks of a few steps or a single one."""
    monkeypatch.setattr(Interpreted, "block_rows", rows)
    own = reader(read_twice)
    engine = rsref_fast.compile(own, target="interpreter")
    for mask in (None, MASK):
        for split in (None, Split(2, 1), Split(1, 3), Split(2, 2), Split(2, 1, 2)):
            check(own, arguments_of(own, mask), engine=engine, split=split)
    assert added_later(engine) == 1


@pytest.mark.parametrize(("draw", "count"), [(read_once, 1), (read_twice, 1), (of_a_sum, 0), (through_a_function, 0)])
def test_what_is_added_later(draw, count):
    own = reader(draw)
    assert added_later(check(own, arguments_of(own, MASK))) == count


@pytest.mark.parametrize("dtype", examples([np.float64, np.float32], [np.float32]))
def test_as_machine_code(dtype):
    pytest.importorskip("numba")
    own = reader(read_twice)
    check(own, arguments_of(own, MASK), target="cpu", threads=2, dtype=dtype, inference=examples(True, False))


def test_with_checkpoints(monkeypatch):
    monkeypatch.setattr(checkpoint, "ROOTS", 1)
    own = reader(read_twice)
    check(own, arguments_of(own, MASK), engine=rsref_fast.compile(own, target="interpreter", checkpoint=True))


def test_what_somebody_else_reads_stays_in_the_step():
    """The gradient of a constant is part of that of a state."""
    x, memory, h = Input((UNITS,)), Input((PLACES, UNITS)), Input((PLACES, UNITS))
    weights = ops.expand_dims(ops.tanh(ops.sum(h, 2)), 2)
    new = ops.tanh(ops.expand_dims(x, 1) + weights * (memory + h))
    layer = RecurrentModel(x, new, h, new, constants=memory, return_sequences=True)
    layer.build((None, None, UNITS))
    own = layer.recurrence
    assert added_later(check(own, arguments_of(own, MASK))) == 0


def test_what_a_step_sums_stays_in_the_step():
    """Of the gradient of a constant, the sum is part of that of a state."""
    x, memory, h = Input((UNITS,)), Input((PLACES, UNITS)), Input((UNITS,))
    new = ops.tanh(x + average(scores(x), memory + ops.expand_dims(h, 1)))
    own = Recurrence(StepGraph(sequences=[x], constants=[memory], states=[h], outputs=[new], new_states=[new]))
    assert added_later(check(own, arguments_of(own, MASK))) == 0


def test_what_is_the_gradient_of_a_state_too_stays_in_the_step():
    x, memory, h, s = Input((UNITS,)), Input((PLACES, UNITS)), Input((UNITS,)), Input((PLACES, UNITS))
    weights = scores(h)
    new = ops.tanh(x + average(weights, memory + s)), ops.expand_dims(x, 1) * ops.expand_dims(weights, 2)
    own = Recurrence(StepGraph(sequences=[x], constants=[memory], states=[h, s], outputs=new[:1], new_states=new))
    assert added_later(check(own, arguments_of(own, MASK))) == 0


def test_what_is_added_later_is_not_added_in_pieces(monkeypatch):
    """Keys and values of different lengths: two loops after a block, each over all of its steps."""
    monkeypatch.setattr(pieces, "PIECE", 1)
    x, keys, values, h = Input((UNITS,)), Input((PLACES, UNITS)), Input((PLACES, UNITS + 1)), Input((UNITS,))
    weights = ops.softmax(ops.einsum("bf,btf->bt", h, keys), -1)
    new = ops.tanh(x + average(weights, values)[:, 1:])
    own = Recurrence(StepGraph(sequences=[x], constants=[keys, values], states=[h], outputs=[new], new_states=[new]))
    assert added_later(check(own, arguments_of(own, MASK))) == 2
