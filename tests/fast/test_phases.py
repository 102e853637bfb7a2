"""A time loop split into phases: the same answers and gradients, and the products between loops are of all rows."""

from collections import Counter

import numpy as np
import pytest

import rsref_fast
from rsref import Input, RecurrentModel, RecurrentSequential, cells, ops, set_random_seed
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter
from rsref.testing.arguments import random_arguments
from rsref_fast import phases
from rsref_fast.cpu import checkpoint
from rsref_fast.cpu.kernels import Interpreted
from rsref_fast.cpu.splitting import Split
from rsref_fast.layout import Section
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.made import MASK

UNITS, FEATURES = 4, 3


@pytest.fixture(autouse=True)
def any_weights_are_worth_a_loop(monkeypatch):
    monkeypatch.setattr(phases, "WEIGHTS", 1)


def stacked(*names, **options):
    set_random_seed(0)
    layer = RecurrentSequential([getattr(cells, name)(UNITS) for name in names], **options)
    layer.build((None, None, FEATURES))
    return layer.recurrence


def inputs(count):
    return [Input((UNITS,)) for _ in range(count)]


def residual():
    """Both cells' answers are answered, added up."""
    x, h, s = inputs(3)
    y, new_h = cells.GRUCell(UNITS)([x, h])
    z, new_s = cells.GRUCell(UNITS)([y, s])
    return RecurrentModel(x, y + z, [h, s], [new_h, new_s]).recurrence


def state_before():
    """The second cell reads what the first one's state was before the step."""
    x, h, s = inputs(3)
    _, new_h = cells.SimpleRNNCell(UNITS)([x, h])
    z, new_s = cells.SimpleRNNCell(UNITS)([ops.tanh(h), s])
    return RecurrentModel(x, z, [h, s], [new_h, new_s]).recurrence


def delayed():
    """A state is another one's value of the step before, and both are read by a third."""
    x, h, old, s = inputs(4)
    _, new_h = cells.SimpleRNNCell(UNITS)([x, h])
    z, new_s = cells.SimpleRNNCell(UNITS)([new_h * old, s])
    return RecurrentModel(x, z, [h, old, s], [new_h, h, new_s]).recurrence


def added_to():
    """A state is added to another one, also as it is: back, its gradient is read in the other one's loop."""
    x, h, s = inputs(3)
    y, new_h = cells.SimpleRNNCell(UNITS)([x, h])
    z, _ = cells.SimpleRNNCell(UNITS)([y, s])
    return RecurrentModel(x, y, [h, s], [new_h, y + z]).recurrence


def beside():
    """Two cells that do not read each other, and one that reads both."""
    x, h, k, s = inputs(4)
    _, new_h = cells.GRUCell(UNITS)([x, h])
    _, new_k = cells.SimpleRNNCell(UNITS)([x, k])
    z, new_s = cells.SimpleRNNCell(UNITS)([new_h * new_k, s])
    return RecurrentModel(x, z, [h, k, s], [new_h, new_k, new_s]).recurrence


def summed():
    """A running sum of what a cell answers: no product, so no loop of its own."""
    x, h, s = inputs(3)
    y, new_h = cells.SimpleRNNCell(UNITS)([x, h])
    return RecurrentModel(x, s + y, [h, s], [new_h, s + y]).recurrence


def constant_handed_on():
    """A state becomes a constant at each step: its gradient is added to the constant's in the loop that carries it."""
    x, c, h, s, k = inputs(5)
    y, new_h = cells.SimpleRNNCell(UNITS)([x, h])
    z, new_s = cells.SimpleRNNCell(UNITS)([y, s])
    return Recurrence(
        StepGraph(sequences=[x], constants=[c], states=[h, s, k], outputs=[z], new_states=[new_h, new_s, c])
    )


def fed_back():
    """The first cell reads what the second one had: there is one loop."""
    x, h, s = inputs(3)
    y, new_h = cells.SimpleRNNCell(UNITS)([x + s, h])
    z, new_s = cells.SimpleRNNCell(UNITS)([y, s])
    return RecurrentModel(x, z, [h, s], [new_h, new_s]).recurrence


DRAWN = {
    "LSTM, GRU": (lambda: stacked("LSTMCell", "GRUCell"), 2, 2),
    "three": (lambda: stacked("LSTMCell", "LayerNormGRUCell", "LSTMCell"), 3, 3),
    "truncated": (lambda: stacked("GRUCell", "LSTMCell", truncate=2), 2, 2),
    "zeros": (lambda: stacked("GRUCell", "LSTMCell", zero_output_for_mask=True), 2, 2),
    "residual": (residual, 2, 2),
    "state before": (state_before, 2, 2),
    "delayed": (delayed, 2, 1),
    "added to": (added_to, 2, 1),
    "beside": (beside, 2, 2),
    "summed": (summed, 1, 1),
    "constant handed on": (constant_handed_on, 2, 2),
    "fed back": (fed_back, 1, 1),
}
"""Steps, and in how many loops each way.

Back through `delayed` and `added_to`, the gradient of one state is read in a later loop.
"""


def compiled(engine):
    (special,) = engine._special.values()
    return special.compiled


@pytest.mark.covering("values")
@pytest.mark.parametrize("way", [{"threads": 1}, {"threads": 2}, {"split": Split(1, 3)}], ids=str)
@pytest.mark.parametrize("name", DRAWN)
def test_against_the_oracle(monkeypatch, name, way):
    """In blocks of all rows, and of few, so that a block is a step or two."""
    draw, forward, backward = DRAWN[name]
    own = draw()
    for rows in (None, 4):
        monkeypatch.setattr(Interpreted, "block_rows", rows)
        for mask in (None, MASK):
            engine = check(own, random_arguments(own, batch=3, steps=5, mask=mask), **way)
        programs = compiled(engine).forward, compiled(engine).inference, compiled(engine).backward
        assert [len(p.layout.phases) for p in programs] == [forward, forward, backward]


@pytest.mark.parametrize("name", ["three", "truncated", "state before"])
def test_with_checkpoints(monkeypatch, name):
    monkeypatch.setattr(checkpoint, "ROOTS", 1)
    own = DRAWN[name][0]()
    for mask in (None, MASK):
        engine = rsref_fast.compile(own, target="interpreter", checkpoint=True)
        check(own, random_arguments(own, batch=3, steps=5, mask=mask), engine=engine)


@pytest.mark.parametrize("dtype", examples([np.float64, np.float32], [np.float32]))
def test_as_machine_code(dtype):
    """In shards, and by a team."""
    pytest.importorskip("numba")
    own = stacked("LSTMCell", "GRUCell")
    engine = rsref_fast.compile(own, threads=2)
    for split in (None, Split(1, 2)):
        for mask in (None, MASK):
            given = random_arguments(own, batch=3, steps=5, mask=mask)
            check(own, given, engine=engine, dtype=dtype, split=split, inference=examples(True, False))


def test_what_is_between_two_loops():
    """The second cell's product with what the first one answers; going back, that with its weights transposed."""
    own = stacked("LSTMCell", "GRUCell")
    engine = check(own, random_arguments(own, batch=3, steps=5))
    for program, width in ((compiled(engine).forward, 3 * UNITS), (compiled(engine).backward, UNITS)):
        units = program.units_of(Section.BEFORE, 1)
        (product,) = [t for unit in units for t in unit.tensors if t.op.name == "matmul"]
        assert product.shape == (None, width)
        assert not any(product in unit.tensors for unit in program.units[Section.LOOP])
    assert engine.source.count("for s in range(k, last):") == 2
    assert "between loops: for a block of steps, before loop 2" in engine.explain()


def test_few_weights_are_not_worth_a_loop(monkeypatch):
    own = stacked("LSTMCell", "GRUCell")
    for least, loops in ((UNITS * 3 * UNITS, 2), (UNITS * 3 * UNITS + 1, 1)):
        monkeypatch.setattr(phases, "WEIGHTS", least)
        engine = check(own, random_arguments(own, batch=3, steps=5))
        assert len(compiled(engine).forward.layout.phases) == loops


def random_step(rng):
    """A few states, each computed of some that are computed before it, and of some as they were before the step."""
    count = int(rng.integers(2, 5))
    x, states, new = Input((UNITS,)), inputs(count), []
    for i in range(count):
        others = [*(states if rng.random() < 0.15 else states[: i + 1]), *new, *new, *new]
        given = [x, states[i], *(others[k] for k in rng.integers(len(others), size=int(rng.integers(3))))]
        terms = []
        for term in given:
            term = ops.tanh(term) if rng.random() < 0.3 else term
            weights = Parameter(f"w{i}{len(terms)}", rng.normal(0, 0.4, (UNITS, UNITS)))
            terms.append(term @ weights.tensor if rng.random() < 0.7 else term)
        total = sum(terms[1:], terms[0])
        gate = new[int(rng.integers(len(new)))] if new and rng.random() < 0.3 else 1.0
        new.append(ops.tanh(total) * gate if rng.random() < 0.8 else total * 0.5)
    handed = [states[i - 1] if rng.random() < 0.1 else state for i, state in enumerate(new)]
    outputs = [new[-1], ops.concatenate([*new, states[0]], -1)][: int(rng.integers(1, 3))]
    options = {"truncate": [None, 2][int(rng.integers(2))], "zero_output_for_mask": bool(rng.integers(2))}
    return RecurrentModel(x, outputs, states, handed, **options).recurrence


@pytest.mark.parametrize("part", range(4))
def test_random_steps(monkeypatch, part):
    way = [{"threads": 1}, {"threads": 2}, {"split": Split(1, 2)}, {"split": Split(1, 3)}][part]
    loops = Counter()
    for seed in range(examples(200, 20)):
        rng = np.random.default_rng([part, seed])
        monkeypatch.setattr(Interpreted, "block_rows", [None, 2, 6][seed % 3])
        own = random_step(rng)
        mask = rng.random((3, 6)) < 0.7 if seed % 2 else None
        engine = check(
            own, random_arguments(own, batch=3, steps=6, mask=mask, seed=seed), inference=seed % 4 < 2, **way
        )
        loops.update(len(p.layout.phases) for p in (compiled(engine).forward, compiled(engine).backward))
    assert loops[1] < 0.6 * loops.total()
    assert loops[3]
