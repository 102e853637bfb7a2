"""One step at a time against the oracle's whole sequence."""

import copy
import pickle

import numpy as np
import pytest

import rsref_fast
from rsref import Dropout, Input, RecurrentModel, RecurrentSequential, cells, ops, set_random_seed
from rsref.engine import ReferenceEngine
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import splitting, stream
from rsref_fast.cpu.splitting import Split


def recurrence(cell):
    set_random_seed(0)
    layer = getattr(cells, cell)(6).get_layer()
    layer.build((None, None, 4))
    return layer.recurrence


@pytest.mark.covering("values")
@pytest.mark.parametrize("split", [None, Split(2, 2)], ids=str)
@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "RWACell", "AttentionCell"])
@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_against_the_whole_sequence(cell, target, split):
    own = recurrence(cell) if cell != "AttentionCell" else attention()
    arguments = random_arguments(own, batch=3, steps=5)
    (expected,), ends, _ = arguments.forward(ReferenceEngine(own))
    engine = rsref_fast.compile(own, target=target)
    engine.split = split
    step = engine.stream(arguments.constants, arguments.states, arguments.parameters, batch=3)
    for _ in range(2):
        for t in range(5):
            (y,) = step(*(s[:, t] for s in arguments.sequences))
            np.testing.assert_allclose(y, expected[:, t], rtol=0, atol=1e-12)
        for a, b in zip(step.states, ends, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
        step.reset(arguments.states)


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_steps_that_follow_closely_are_shared_among_threads(monkeypatch, target):
    """Every other step counts as close: both ways read and write the same states."""
    monkeypatch.setattr(splitting, "FLOPS_A_CALL", 0)
    rsref_fast.set_num_threads(2)
    own = recurrence("GRUCell")
    arguments = random_arguments(own, batch=1, steps=6)
    (expected,), _, _ = arguments.forward(ReferenceEngine(own))
    step = rsref_fast.compile(own, target=target).stream([], arguments.states, arguments.parameters)
    rsref_fast.set_num_threads(None)
    assert step._close is not step._alone
    for t in range(6):
        monkeypatch.setattr(stream, "CLOSE", 1e9 if t % 2 else 0.0)
        np.testing.assert_allclose(step(arguments.sequences[0][:, t])[0], expected[:, t], rtol=0, atol=1e-12)


def attention():
    """A step with a constant: it reads a memory by similarity."""
    x, h, memory = Input((4,)), Input((4,)), Input((7, 4))
    scores = ops.softmax(ops.sum(memory * ops.expand_dims(x + h, 1), -1))
    new = ops.tanh(ops.sum(memory * ops.expand_dims(scores, -1), 1) + h)
    return RecurrentModel(x, new, h, new, constants=memory).recurrence


def test_each_stream_has_memory_of_its_own():
    """Weights that one has packed stay, whatever runs between its steps."""
    own = recurrence("GRUCell")
    engine = rsref_fast.compile(own)
    arguments = random_arguments(own, batch=1, steps=4)
    (expected,), _, _ = arguments.forward(ReferenceEngine(own))
    step = engine.stream([], arguments.states, arguments.parameters)
    for t in range(4):
        others = [3 * p for p in arguments.parameters]
        engine.stream([], arguments.states, others)(arguments.sequences[0][:, t])
        engine.forward(arguments.sequences, [], arguments.states, others, taped=False)
        np.testing.assert_allclose(step(arguments.sequences[0][:, t])[0], expected[:, t], rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_later_changes_are_not_seen(target):
    own = attention()
    arguments = random_arguments(own, batch=2, steps=3)
    (expected,), _, _ = arguments.forward(ReferenceEngine(own))
    given = [[a.copy() for a in group] for group in (arguments.constants, arguments.states, arguments.parameters)]
    step = rsref_fast.compile(own, target=target).stream(*given, batch=2)
    for group in given:
        for array in group:
            array[...] = np.nan
    for t in range(3):
        np.testing.assert_allclose(step(arguments.sequences[0][:, t])[0], expected[:, t], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "given",
    [
        lambda x: x,
        lambda x: np.asfortranarray(x),
        lambda x: np.stack([x, x], -1)[..., 1],
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.int8),
        lambda x: x.astype(x.dtype.newbyteorder()),
        lambda x: x.view(np.recarray),
    ],
)
def test_an_input_may_lie_anyhow(given):
    own = recurrence("LSTMCell")
    arguments = random_arguments(own, batch=2, steps=1)
    x = np.arange(8.0).reshape(2, 4)
    (expected,), _, _ = ReferenceEngine(own).forward([x[:, None]], [], arguments.states, arguments.parameters)
    step = rsref_fast.compile(own, target="interpreter").stream([], arguments.states, arguments.parameters, batch=2)
    np.testing.assert_allclose(step(given(x))[0], expected[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_a_state_of_bools_goes_on(target):
    """On at each step but every other one."""
    x, on = Input((2,)), Input((2,), dtype="bool")
    step = rsref_fast.compile(
        RecurrentModel(x, ops.where(on, x, -x), on, ops.logical_not(on)).recurrence, target=target
    ).stream([], [np.array([[True, False]])], [])
    ones = np.ones((1, 2))
    assert [step(ones)[0].tolist() for _ in range(3)] == [[[1, -1]], [[-1, 1]], [[1, -1]]]
    assert step.states[0].dtype == bool
    assert step.states[0].tolist() == [[False, True]]


def test_integers_are_bools_where_the_step_reads_bools():
    """Every number but zero is true, as the oracle takes them; a stream counted 2 for 2, cut 256 off, or refused."""
    x, on = Input((2,), dtype="bool"), Input((2,), dtype="bool")
    own = RecurrentModel(x, 1.0 * x + 10.0 * on, on, on).recurrence
    stream = rsref_fast.compile(own, target="interpreter").stream([], [np.zeros((1, 2), bool)], [])
    for dtype in (np.uint8, np.int8, np.uint16, np.int64):
        numbers = np.array([[0, 2 if dtype in (np.uint8, np.int8) else 256]], dtype)
        (expected,), _, _ = ReferenceEngine(own).forward([numbers[:, None]], [], [numbers], [])
        stream.reset([numbers])
        np.testing.assert_array_equal(stream(numbers)[0], expected[:, 0])
        np.testing.assert_array_equal(stream.states[0], [[False, True]])
    with pytest.raises(TypeError, match="state 0 holds bool; got dtype float64"):
        stream.reset([np.zeros((1, 2))])


def test_faults_have_names():
    own = recurrence("LSTMCell")
    arguments = random_arguments(own, batch=1, steps=1)
    stream = rsref_fast.compile(own, target="interpreter").stream([], arguments.states, arguments.parameters)
    with pytest.raises(ValueError, match="takes 1 inputs a step; got 0"):
        stream()
    with pytest.raises(ValueError, match=r"input 0 has shape \(4,\); expected \(1, 4\)"):
        stream(np.zeros(4))
    with pytest.raises(TypeError):
        stream(np.zeros((1, 4), complex))
    with pytest.raises(TypeError, match="input 0 must be an array; got list"):
        stream([[0.0] * 4])
    with pytest.raises(ValueError, match=r"states must have shapes \[\(1, 6\), \(1, 6\)\]; got \[\(2, 6\), \(2, 6\)\]"):
        stream.reset([np.zeros((2, 6))] * 2)
    with pytest.raises(ValueError, match=r"states must have shapes .*; got \[\(2,\), \(1, 6\)\]"):
        stream.reset([[0.0, 0.0], np.zeros((1, 6))])
    with pytest.raises(TypeError, match="state 1 holds float64; got dtype complex128"):
        stream.reset([np.ones((1, 6)), np.zeros((1, 6), complex)])
    np.testing.assert_array_equal(stream.states[0], arguments.states[0])
    with pytest.raises(TypeError, match=r"states\[1\] must be a NumPy array; got builtins.list"):
        rsref_fast.compile(own).stream([], [np.zeros((1, 6)), [[0.0] * 6]], arguments.parameters)
    for number in (complex, np.longdouble):
        with pytest.raises(TypeError, match="kernels compute with float32 or float64; got"):
            rsref_fast.compile(own).stream([], [np.zeros((1, 6), number)] * 2, arguments.parameters)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):  # compiled code knows where the states of this one are
        with pytest.raises(TypeError, match=r"cannot be copied: .*\.stream\(constants, stream\.states, parameters"):
            copied(stream)
    x, h = Input((None, 2)), Input((2,))
    open_length = RecurrentModel(x, h, h, h + ops.sum(x, 1)).recurrence
    with pytest.raises(NotImplementedError, match=r"known lengths; an input has shape \(None, None, 2\)"):
        rsref_fast.compile(open_length, target="interpreter").stream([], [np.zeros((1, 2))], [])
    with pytest.raises(ValueError, match="state"):
        rsref_fast.compile(own, target="interpreter").stream([], arguments.states[:1], arguments.parameters)


def test_dropout_masks_are_asked_for_by_name():
    layer = RecurrentSequential([cells.SimpleRNNCell(6, dropout=0.5), Dropout(0.5)])
    layer.build((None, None, 4))
    states, weights = [np.zeros((1, 6))], layer.get_weights()
    engine = rsref_fast.compile(layer, target="interpreter")
    with pytest.raises(ValueError, match=r"1 constant arrays .* got 0, for <Tensor noise.* dropout masks"):
        engine.stream([], states, weights)
    stream = engine.stream([np.ones((1, 4))], states, weights)
    with pytest.raises(ValueError, match=r"takes 2 inputs a step; got 1, for <Tensor input.*<Tensor noise.* dropout"):
        stream(np.ones((1, 4)))
    np.testing.assert_allclose(stream(np.ones((1, 4)), np.ones((1, 6)))[0], layer(np.ones((1, 1, 4))), atol=1e-12)


@pytest.mark.parametrize("target", ["cpu", "interpreter"])
def test_an_index_out_of_range_is_refused(target):
    x, h = Input((), dtype="int"), Input((2,))
    new = h + ops.take(np.arange(6.0).reshape(3, 2), x, 0)
    own = RecurrentModel(x, new, h, new).recurrence
    stream = rsref_fast.compile(own, target=target).stream([], [np.zeros((1, 2))], [])
    np.testing.assert_array_equal(stream(np.array([2]))[0], [[4.0, 5.0]])
    with pytest.raises(IndexError, match="index 3 is out of range for an axis of size 3"):
        stream(np.array([3]))
    np.testing.assert_array_equal(stream.states[0], [[4.0, 5.0]])
    np.testing.assert_array_equal(stream(np.array([1]))[0], [[6.0, 8.0]])
