"""Gradients of parameters are added up where they are answered: memory that nobody has filled, and NaN here."""

import math

import numpy as np
import pytest

import rsref_fast
from rsref import ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Input, Parameter
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.kernels import Interpreted
from rsref_fast.cpu.source import FIRST_SLOT
from rsref_fast.cpu.splitting import Split
from rsref_fast.packing import whole_batch
from tests.fast.agreement import check
from tests.fast.made import recurrence_of

SPLITS = [Split(1, 1), Split(2, 1), Split(3, 1), Split(1, 2), Split(2, 2), Split(3, 1, 2), Split(3, 2, 3)]


@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "LayerNormLSTMCell"])
def test_the_first_block_begins_and_the_others_add(monkeypatch, cell):
    monkeypatch.setattr(Interpreted, "block_rows", 4)
    own = recurrence_of(cell, 5, 3)
    engine = rsref_fast.compile(own, target="interpreter")
    mask = np.random.default_rng(0).random((3, 7)) < 0.7
    for split in SPLITS:
        for given in (None, mask):
            check(own, random_arguments(own, batch=3, steps=7, mask=given), engine=engine, split=split)


def test_who_has_no_steps_adds_nothing():
    own = recurrence_of("LSTMCell", 5, 3)
    engine = rsref_fast.compile(own, target="interpreter")
    alone = np.zeros((3, 3, 4), bool)
    alone[range(3), range(3), 1:3] = True
    for split in SPLITS:
        check(own, random_arguments(own, batch=3, steps=0), engine=engine, split=split)
        for mask in (*alone, np.zeros((3, 4), bool)):
            check(own, random_arguments(own, batch=3, steps=4, mask=mask), engine=engine, split=split)


def test_parameters_that_have_one_gradient():
    """Two biases that are added to the same sum, and two weights of which one is transposed: one is a copy."""
    first, second = (Parameter(f"b{i}", np.full(4, 0.1 * i)) for i in range(2))
    rng = np.random.default_rng(3)
    weights, turned = Parameter("w", rng.normal(0, 0.5, (3, 4))), Parameter("v", rng.normal(0, 0.5, (4, 3)))
    x, h = Input((3,)), Input((4,))
    product = ops.matmul(x, weights.tensor) + ops.matmul(x, ops.transpose(turned.tensor))
    new = ops.tanh(product + first.tensor + second.tensor + h)
    own = Recurrence(StepGraph(sequences=[x], states=[h], outputs=[new], new_states=[new]))
    engine = rsref_fast.compile(own, target="interpreter")
    for split in SPLITS:
        check(own, random_arguments(own, batch=3, steps=4), engine=engine, split=split)
    (special,) = engine._special.values()
    places = list(special.backward.results.values())
    assert len(places) == len(set(places)) < 4


def test_no_memory_of_their_own():
    """All but the first threads' sums are elsewhere."""
    own = recurrence_of("LSTMCell", 64, 3)
    engine = rsref_fast.compile(own, target="interpreter")
    check(own, random_arguments(own, batch=4, steps=3), engine=engine)
    (special,) = engine._special.values()
    assert sorted(special.backward.results.values()) == [0, 1, 2]
    source = special.backward
    plan = special.call(whole_batch, (4, 3, 3, None), Split(3, 1)).backward
    sums = [FIRST_SLOT + i for i, memory in enumerate(source.memory) if memory.name in source.results]
    arrays = [{places[slot].array for slot in sums} for _, places in plan.shards]
    scratch = plan.arrays - 1
    assert arrays[1:] == [{scratch}, {scratch}]
    assert len(arrays[0] - {scratch}) == 3
    sizes = [sum(places[slot].bytes for slot in sums) for _, places in plan.shards]
    assert sizes == [8 * sum(math.prod(p.shape) for p in own.graph.parameters)] * 3
