"""One step at a time against the oracle's whole sequence."""

import copy
import ctypes
import gc
import pickle
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import rsref_fast
from rsref import Dropout, Input, RecurrentModel, RecurrentSequential, cells, ops, set_random_seed
from rsref.engine import ReferenceEngine
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import splitting, stream
from rsref_fast.cpu.direct import direct_step
from rsref_fast.cpu.splitting import Split
from tests.fast.attending import attending


def recurrence(cell):
    set_random_seed(0)
    layer = getattr(cells, cell)(6).get_layer()
    layer.build((None, None, 4))
    return layer.recurrence


@pytest.mark.covering("values")
@pytest.mark.parametrize("split", [None, Split(2, 2)], ids=str)
@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "RWACell", "AttentionCell", "keys"])
@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_against_the_whole_sequence(cell, target, split):
    drawn = {"AttentionCell": attention, "keys": attending}
    own = drawn[cell]() if cell in drawn else recurrence(cell)
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


@pytest.mark.parametrize(("close", "way"), [(0.0, "_alone"), (1e9, "_close")])
def test_compiled_steps_choose_their_way(monkeypatch, close, way):
    monkeypatch.setattr(splitting, "FLOPS_A_CALL", 0)
    monkeypatch.setattr(stream, "CLOSE", close)
    rsref_fast.set_num_threads(2)
    own = recurrence("GRUCell")
    arguments = random_arguments(own, batch=1, steps=6)
    (expected,), _, _ = arguments.forward(ReferenceEngine(own))
    step = rsref_fast.compile(own).stream([], arguments.states, arguments.parameters)
    rsref_fast.set_num_threads(None)
    np.testing.assert_allclose(step(arguments.sequences[0][:, 0])[0], expected[:, 0], rtol=0, atol=1e-12)
    other = {"_alone": step._close, "_close": step._alone}[way]
    ctypes.memset(other.where, 0, ctypes.sizeof(other.where))  # who reads these addresses does not come back
    for t in range(1, 6):
        np.testing.assert_allclose(step(arguments.sequences[0][:, t])[0], expected[:, t], rtol=0, atol=1e-12)


def attention():
    """A step with a constant: it reads a memory by similarity."""
    x, h, memory = Input((4,)), Input((4,)), Input((7, 4))
    scores = ops.softmax(ops.sum(memory * ops.expand_dims(x + h, 1), -1))
    new = ops.tanh(ops.sum(memory * ops.expand_dims(scores, -1), 1) + h)
    return RecurrentModel(x, new, h, new, constants=memory).recurrence


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_what_depends_on_no_step_is_computed_when_a_stream_begins(target):
    own = attending()
    arguments = random_arguments(own, batch=3, steps=5)
    engine = rsref_fast.compile(own, target=target)
    engine.stream(arguments.constants, arguments.states, arguments.parameters, batch=3)
    assert [bool(e._special) for e in (engine, engine.parted.first, engine.parted.step)] == [False, True, True]
    with pytest.raises(ValueError, match="2 constant arrays are needed; got 1"):
        engine.stream(arguments.constants[:1], arguments.states, arguments.parameters, batch=3)
    with pytest.raises(ValueError, match="3 parameter arrays are needed; got 1"):
        engine.stream(arguments.constants, arguments.states, arguments.parameters[:1], batch=3)


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


def mixed():
    """A step with inputs of all kinds, several outputs, and nothing else that changes."""
    x, on, at, h = Input((2, 3)), Input((), dtype="bool"), Input((3,), dtype="int"), Input((3,))
    y = ops.sum(x, 1) + ops.where(ops.expand_dims(on, -1), 1.0 * at, h)
    return RecurrentModel([x, on, at], [y, at, ops.logical_not(on)], h, y).recurrence


GIVEN = {"x": np.arange(12.0).reshape(2, 2, 3), "on": np.array([True, False]), "at": np.arange(6).reshape(2, 3)}
OTHERS = [
    {"x": GIVEN["x"].astype(np.float32)}, {"x": np.asfortranarray(GIVEN["x"])}, {"x": GIVEN["x"][:, ::-1]},
    {"x": GIVEN["x"].view(np.recarray)}, {"x": GIVEN["x"].astype(">f8")}, {"on": GIVEN["on"].astype(int)},
    {"at": GIVEN["at"].astype(np.int32)},
]  # fmt: skip
FAULTS = [
    {"x": GIVEN["x"].reshape(2, 6)}, {"x": GIVEN["x"].reshape(2, 3, 2)}, {"x": GIVEN["x"][:1]}, {"x": 1.0}, {"x": None},
    {"on": GIVEN["on"][:, None]},
]  # fmt: skip


def test_what_is_just_as_expected_needs_no_interpreter():
    """Compiled code takes it; what it leaves to Python has the same answers, or the errors."""
    own, states = mixed(), [np.ones((2, 3))]
    step = rsref_fast.compile(own).stream([], states, [], batch=2)
    expected, _, _ = ReferenceEngine(own).forward([a[:, None] for a in GIVEN.values()], [], states, [])
    first = step._direct(*GIVEN.values())
    for y, right in zip(first, expected, strict=True):
        assert (y.dtype, y.shape) == (right.dtype, right[:, 0].shape)
        np.testing.assert_allclose(y, right[:, 0], rtol=1e-12)
    np.testing.assert_allclose(step.states[0], expected[0][:, 0], rtol=1e-12)
    kept = [y.copy() for y in first]
    for other in OTHERS:
        given = [*(GIVEN | other).values()]
        assert step._direct(*given) is None
        step.reset(states)
        for y, right in zip(step(*given), ReferenceEngine(own).forward([a[:, None] for a in given], [], states, [])[0]):
            np.testing.assert_allclose(y, right[:, 0], rtol=1e-6)
    for y, before in zip(first, kept):
        np.testing.assert_array_equal(y, before)
    held = step.states
    for fault in FAULTS:
        with pytest.raises((TypeError, ValueError), match=r"input [01]"):
            step(*(GIVEN | fault).values())
    for some in ((), (GIVEN["x"],), (*GIVEN.values(), GIVEN["x"])):
        with pytest.raises(ValueError, match=f"takes 3 inputs a step; got {len(some)}"):
            step(*some)
    np.testing.assert_array_equal(step.states, held)


def test_a_step_without_inputs():
    h = Input((2,))
    own = Recurrence(StepGraph(states=[h], outputs=[h], new_states=[h * 2.0]))
    step = rsref_fast.compile(own).stream([], [np.ones((1, 2))], [])
    assert [step._direct()[0].tolist() for _ in range(3)] == [[[1, 1]], [[2, 2]], [[4, 4]]]


def test_compiled_steps_hold_what_python_holds():
    """References are counted, an error of making an answer is raised, and the memory outlives the stream."""
    step = rsref_fast.compile(mixed()).stream([], [np.ones((2, 3))], [], batch=2)
    given = [*GIVEN.values()]
    watched = [*given, None, *step._outputs]
    before = [sys.getrefcount(w) for w in watched]
    for _ in range(1000):
        answer = step._direct(*given)
        step._direct(*given, None)
    assert [sys.getrefcount(y) for y in answer] == [3, 3, 3]  # of the list, this loop, and the call
    after = [sys.getrefcount(w) for w in watched]
    assert [b - a for a, b in zip(before, after) if abs(b - a) > 100] == []
    alone, direct = step._alone, step._direct
    del step
    gc.collect()
    for y, right in zip(direct(*given), answer):
        assert y.shape == right.shape

    def failing():
        raise MemoryError("no room")

    first = SimpleNamespace(copy=lambda: answer[0])
    again = direct_step(alone, alone, 0.0, [], [first, SimpleNamespace(copy=failing)])
    count = sys.getrefcount(answer[0])
    with pytest.raises(MemoryError, match="no room"):
        again()
    after_error = sys.getrefcount(answer[0])
    assert after_error == count


def test_other_threads_of_python_run_meanwhile():
    """Python's lock is not held while kernels run: of two threads neither waits for the other's steps to end."""
    own = recurrence("LSTMCell")
    arguments = random_arguments(own, batch=2, steps=50)
    (expected,), _, _ = arguments.forward(ReferenceEngine(own))
    found = {}

    def run(name):
        step = rsref_fast.compile(own).stream([], arguments.states, arguments.parameters, batch=2)
        for _ in range(20):
            step.reset(arguments.states)
            found[name] = [step(arguments.sequences[0][:, t])[0] for t in range(50)]

    threads = [threading.Thread(target=run, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in range(4):
        np.testing.assert_allclose(np.stack(found[name], 1), expected, rtol=0, atol=1e-12)


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


def test_a_whole_number_beyond_64_bits_is_named():
    i, h = Input((2,), dtype="int"), Input((2,), dtype="int")
    layer = RecurrentModel(i, i + h, h, i + h)
    stream = rsref_fast.compile(layer, target="interpreter").stream([], [np.zeros((1, 2), int)], [])
    np.testing.assert_array_equal(stream(np.full((1, 2), 5, np.uint64))[0], [[5, 5]])
    with pytest.raises(ValueError, match=r"input 0 takes whole numbers up to \d+; got 18446744073709551615"):
        stream(np.full((1, 2), 2**64 - 1, np.uint64))


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
    with pytest.raises(TypeError, match=r"input 0 must be a plain array; got builtins\.list"):
        stream([[0.0] * 4])
    with pytest.raises(TypeError, match=r"input 0 must be a plain array; got numpy\.ma"):
        stream(np.ma.masked_less(np.zeros((1, 4), np.float32), 1.0))
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
    for batch, words in ((2.0, "batch must be a whole number; got 2.0"), (-1, "batch must not be negative; got -1")):
        with pytest.raises((TypeError, ValueError), match=words):
            rsref_fast.compile(own, target="interpreter").stream([], arguments.states, arguments.parameters, batch)


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
