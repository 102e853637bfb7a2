"""Steps of which a part depends on no step: it is gone back through once a call, and all gradients are the oracle's."""

import numpy as np
import pytest

import rsref_fast
from rsref import Dropout, Input, RecurrentModel, cells, ops
from rsref.cells import AttentionDecoderCell
from rsref.tensor import Parameter
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.splitting import Split
from rsref_fast.layout import Section
from rsref_fast.prologue import parted
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.attending import attending, reading_integers

MASK = np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)


@pytest.mark.parametrize("outputs", [False, True])
def test_against_the_oracle(outputs):
    own = attending(outputs)
    engine = rsref_fast.compile(own, target="interpreter")
    for mask in (None, MASK):
        for split in (None, Split(2, 1), Split(1, 2), Split(2, 1, 2)):
            check(own, random_arguments(own, batch=3, steps=4, mask=mask), engine=engine, split=split)


@pytest.mark.parametrize("dtype", examples([np.float64, np.float32], [np.float32]))
def test_as_machine_code(dtype):
    pytest.importorskip("numba")
    own = attending()
    arguments = random_arguments(own, batch=3, steps=4)
    check(own, arguments, target="cpu", threads=2, dtype=dtype, inference=examples(True, False))


def test_a_single_precision_memory_beside_double_precision_weights():
    own = attending()
    arguments = random_arguments(own, batch=2, steps=3)
    arguments.constants[0] = arguments.constants[0].astype(np.float32)
    engine, given = rsref_fast.compile(own, target="interpreter"), arguments
    exact = engine.reference.forward(
        given.sequences, [given.constants[0].astype(float), given.constants[1]], given.states, given.parameters
    )
    found = engine.forward(given.sequences, given.constants, given.states, given.parameters)
    np.testing.assert_allclose(found[0][0], exact[0][0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_part_that_reads_integers_alone_is_computed_as_the_step_is(dtype):
    own = reading_integers()
    engine = check(own, random_arguments(own, batch=2, steps=3), dtype=dtype)
    assert engine.parted is not None
    ys, _, _ = random_arguments(own, batch=2, steps=3).cast(dtype).forward(engine)
    assert ys[0].dtype == dtype


def test_the_product_with_the_memory_is_no_part_of_the_step():
    layer = AttentionDecoderCell(4).get_layer(decode=True, output_length=3)
    layer.build((None, 5, 3))
    parts = parted(layer.recurrence.graph)
    assert "matmul" in [t.op.name for t in parts.first.order if t.op is not None]
    assert {*parts.of_first} & {*parts.of_step} == set()
    engine = rsref_fast.compile(layer, target="interpreter")
    arguments = random_arguments(layer.recurrence, batch=2, steps=3)
    ys, _, tape = arguments.forward(engine)
    engine.backward(tape, [np.ones_like(y) for y in ys], [None] * len(arguments.states))
    backward = next(iter(engine.parted.step._special.values())).compiled.backward
    loop = [unit for unit in backward.units[Section.LOOP] if unit.tensors[0].op.name == "matmul"]
    assert all(len(unit.shape) == 2 or 1 in unit.tensors[0].inputs[0].shape for unit in loop)
    assert "in two parts, what depends on no step" in engine.explain()


def test_a_step_with_dropout_keeps_its_masks():
    """One mask for the whole sequence, one for each step."""
    x, memory, h = Input((4,)), Input((5, 4)), Input((4,))
    keys = memory @ Parameter("key", np.random.default_rng(0).normal(size=(4, 4))).tensor
    new = Dropout(0.3)(x) + ops.einsum("btd,bd->bd", keys, Dropout(0.3, per="sequence")(h))
    layer = RecurrentModel(x, new, h, new, constants=memory)
    layer.build((None, None, 4), (None, 5, 4))
    assert parted(layer.recurrence.graph) is not None
    check(layer.recurrence, random_arguments(layer.recurrence, batch=3, steps=4))


def test_places_folded_into_the_batch():
    """What has several entries a sample stays in the step, beside what has one and is taken out of it."""
    memory, h, w, v = Input((3, 4)), Input((5,)), *(Parameter(n, np.eye(4, 5)) for n in "wv")
    keys = ops.reshape(memory, (-1, 4)) @ w.tensor
    asked = ops.reshape(ops.broadcast_to(ops.expand_dims(h, 1), (None, 3, 5)), (-1, 5))
    new = ops.sum(ops.reshape(ops.tanh(keys + asked), (-1, 3, 5)) * (memory @ v.tensor), 1)
    own = RecurrentModel([], new, h, new, constants=memory, decode=True, output_length=3).recurrence
    assert [t.shape for t in parted(own.graph).first.outputs] == [(None, 3, 5)]
    check(own, random_arguments(own, batch=2, steps=3))


@pytest.mark.parametrize(("batch", "places", "expected"), [(16, 50, Split(2, 1)), (1, 600, Split(1, 2))])
def test_it_is_shared_out_among_threads(monkeypatch, batch, places, expected):
    """As many as are set, and not only where an engine was told of them."""
    monkeypatch.setattr("rsref_fast.threads._number", 2)
    layer = cells.AttentionDecoderCell(64).get_layer(decode=True, output_length=2)
    layer.build((None, places, 64))
    own = layer.recurrence
    engine = rsref_fast.compile(own, target="interpreter")
    x = np.random.default_rng(0).normal(size=(batch, places, 64)).astype(np.float32)
    states = [np.zeros((batch, *state.shape[1:]), np.float32) for state in own.graph.states]
    *_, tape = engine.forward([], [x, np.ones((batch, places), bool)], states, layer.get_weights(), steps=2)
    assert tape.first.split == expected


def test_what_is_cheap_stays_in_the_step():
    layer = cells.LSTMCell(4).get_layer()
    layer.build((None, None, 3))
    assert parted(layer.recurrence.graph) is None
    x, c, h = Input((3,)), Input((3,)), Input((3,))
    cheap = RecurrentModel(x, h, h, x + ops.tanh(c) * h, constants=c)
    assert parted(cheap.recurrence.graph) is None


@pytest.mark.parametrize("target", examples(["interpreter", "cpu"], ["interpreter"]))
def test_a_product_with_one_column(target):
    """It is a loop of its own, as is the gradient of its column."""
    if target == "cpu":
        pytest.importorskip("numba")
    x, h, c = Input((2, 20)), Input((20,)), Input((2, 1))
    rng = np.random.default_rng(0)
    column, row = Parameter("column", rng.normal(size=(20, 1))), Parameter("row", rng.normal(size=(1, 20)))
    new = ops.tanh((h @ column.tensor) @ row.tensor + ops.sum(c, 1))
    layer = RecurrentModel(x, new, [h, c], [new, x @ column.tensor])
    layer.build((None, None, 2, 20))
    for split in (Split(2, 1), Split(1, 2)):
        own = layer.recurrence
        engine = check(own, random_arguments(own, batch=3, steps=4), target=target, threads=2, split=split)
    assert "total += " in engine.source
