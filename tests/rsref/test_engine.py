"""The reference engine against a plain loop over rows and steps, differentiated by complex steps."""

import itertools
import re

import numpy as np
import pytest

from rsref import Input, Parameter, Recurrence, ReferenceEngine, StepGraph, ops
from rsref.testing import Arguments, directional_derivative, relative_error
from tests.tolerances import TOLERANCES, assert_close

BATCH, STEPS = 4, 5
MASKS = {
    "none": None,
    "full": np.ones((4, 5), bool),
    "right": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]], bool),
    "left": np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 1, 1, 1, 1]], bool),
    "middle": np.array([[1, 0, 1, 0, 1], [0, 1, 0, 0, 1], [1, 1, 0, 0, 1], [0, 0, 1, 0, 0]], bool),
    "empty rows": np.array([[0, 0, 0, 0, 0], [1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 1, 0]], bool),
    "empty steps": np.array([[1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 0], [1, 0, 1, 0, 0]], bool),
    "nothing": np.zeros((4, 5), bool),
}
modes = pytest.mark.parametrize(
    ("mask", "zero", "truncate"), [*itertools.product(MASKS, (False, True), (None, 2)), ("middle", False, 1)]
)


def recurrence(**options):
    """Two states of ranks 2 and 3, a constant, a float, an int and a bool sequence, two outputs unlike the states."""
    rng = np.random.default_rng(0)
    x, k, b = Input((3,)), Input((), dtype="int"), Input((3,), dtype="bool")
    m, h, c = Input((4, 3)), Input((3,)), Input((2, 3))
    W, U, table = (
        Parameter(name, rng.normal(size=shape)).tensor for name, shape in (("W", (3, 3)), ("U", (3, 3)), ("t", (5, 3)))
    )
    h_new = ops.tanh(x @ W + h @ U + ops.embedding(k, table))
    c_new = c * ops.sigmoid(h_new)[:, None] + ops.where(b, x, 0.5)[:, None] * m[:, :2]
    read = ops.einsum("bn,bnd->bd", ops.softmax(ops.einsum("bnd,bd->bn", m, h_new)), m)
    graph = StepGraph(
        sequences=[x, k, b], constants=[m], states=[h, c], outputs=[ops.sum(c_new, -1), read], new_states=[h_new, c_new]
    )
    return Recurrence(graph, **options)


def plain_step(x, k, b, m, h, c, W, U, table):
    """The same step for one row, in plain NumPy."""
    h = np.tanh(x @ W + h @ U + table[k])
    c = c / (1 + np.exp(-h)) + np.where(b, x, 0.5) * m[:2]
    weights = np.exp(m @ h) / np.exp(m @ h).sum()
    return [c.sum(-1), weights @ m], [h, c]


def plain_run(arrays, mask, zero_output_for_mask=False, truncate=None):
    """Row by row and step by step; truncation drops the states' imaginary part, which carries the derivative."""
    x, k, b, m, h0, c0, *weights = arrays
    steps = x.shape[1]
    rows, ends = [], []
    for row in range(len(x)):
        states, outputs = [h0[row], c0[row]], [np.zeros(2), np.zeros(3)]
        kept = []
        for t in range(steps):
            if truncate and t and t % truncate == 0:
                states = [s.real for s in states]
            if mask is None or mask[row, t]:
                outputs, states = plain_step(x[row, t], k[row, t], b[row, t], m[row], *states, *weights)
            elif zero_output_for_mask:
                outputs = [np.zeros(2), np.zeros(3)]
            kept.append(outputs)
        rows.append(kept)
        ends.append(states)
    return [np.array([[o[i] for o in row] for row in rows]) for i in (0, 1)], [np.array(s) for s in zip(*ends)]


def sample(mask=None, batch=BATCH, steps=STEPS):
    rng = np.random.default_rng(1)
    return Arguments(
        sequences=[
            rng.normal(size=(batch, steps, 3)),
            rng.integers(0, 5, (batch, steps)),
            rng.integers(0, 2, (batch, steps, 3)).astype(bool),
        ],
        constants=[rng.normal(size=(batch, 4, 3))],
        states=[rng.normal(size=(batch, 3)), rng.normal(size=(batch, 2, 3))],
        parameters=[p.value for p in recurrence().graph.parameters],
        mask=mask,
    )


def run(given, engine=ReferenceEngine, **options):
    engine = engine(recurrence(**options))
    outputs, states, tape = given.forward(engine)
    cotangents = [np.cos(1.3 * np.arange(a.size)).reshape(a.shape).astype(a.dtype) for a in (*outputs, *states)]
    found = engine.backward(tape, cotangents[:2], cotangents[2:])
    return outputs, states, [*found.sequences, *found.constants, *found.states, *found.parameters], cotangents


def check_values(given, engine=ReferenceEngine, **options):
    outputs, states, *_ = run(given, engine, **options)
    expected_outputs, expected_states = plain_run(
        given.arrays(), given.mask, options.get("zero_output_for_mask", False)
    )
    for one, other in zip((*outputs, *states), (*expected_outputs, *expected_states), strict=True):
        assert_close(one, other)


def check_backward(given, engine=ReferenceEngine, **options):
    *_, gradients, cotangents = run(given, engine, **options)
    arrays = given.arrays()

    def loss(*moved):
        outputs, states = plain_run(moved, given.mask, **options)
        return [np.sum(g * y) for g, y in zip(cotangents, (*outputs, *states))]

    size = float(np.sqrt(sum(np.sum(g**2) for g in cotangents)))
    for i, (gradient, array) in enumerate(zip(gradients, arrays, strict=True)):
        assert (gradient is None) == (array.dtype.kind != "f")
        if gradient is None:
            continue
        assert gradient.shape == array.shape
        directions = [np.sin(1 + np.arange(a.size)).reshape(a.shape) if k == i else None for k, a in enumerate(arrays)]
        derivative = sum(float(d) for d in directional_derivative(loss, arrays, directions))
        error = relative_error(gradients, directions, derivative, size)
        assert error < TOLERANCES["complex step"], f"argument {i}: relative error {error:.1e}"


@modes
def test_values(mask, zero, truncate):
    check_values(sample(MASKS[mask]), zero_output_for_mask=zero, truncate=truncate)


@modes
def test_gradients(mask, zero, truncate):
    check_backward(sample(MASKS[mask]), zero_output_for_mask=zero, truncate=truncate)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", [name for name in MASKS if name != "none"])
def test_garbage_at_masked_steps_reaches_nothing(name, zero):
    clean, mask = sample(MASKS[name]), MASKS[name]
    spoiled = [np.array(s) for s in clean.sequences]
    for sequence, garbage in zip(spoiled, (np.nan, 10**9, True)):
        sequence[~mask] = garbage
    dirty = clean.replaced([*spoiled, *clean.arrays()[3:]])
    for expected, found in zip(run(clean, zero_output_for_mask=zero), run(dirty, zero_output_for_mask=zero)):
        for one, other in zip(expected, found, strict=True):
            assert (one is None) == (other is None)
            assert one is None or np.array_equal(one, other)


@pytest.mark.parametrize(("batch", "steps"), [(0, 3), (2, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_nothing_is_answered_by_nothing(batch, steps, masked):
    given = sample(np.zeros((batch, steps), bool) if masked else None, batch, steps)
    outputs, states, gradients, _ = run(given)
    assert [y.shape for y in outputs] == [(batch, steps, 2), (batch, steps, 3)]
    if not steps or not batch:
        for state, initial in zip(states, given.states):
            assert np.array_equal(state, initial)
        assert all(not gradient.any() for gradient in gradients[-3:])
    for gradient, array in zip(gradients, given.arrays()):
        assert gradient is None or gradient.shape == array.shape


def test_float32_end_to_end():
    mask = MASKS["middle"]
    double, single = run(sample(mask)), run(sample(mask).cast(np.float32))
    for expected, found in zip(double[:3], single[:3]):
        for one, other in zip(expected, found, strict=True):
            if one is not None:
                assert other.dtype == np.float32
                assert_close(other, one, "float32")


@pytest.mark.parametrize("place", [0, 3, 4, 5, 6, 7, 8])
def test_one_float64_argument_makes_all_float64(place):
    arrays = sample().cast(np.float32).arrays()
    arrays[place] = arrays[place].astype(np.float64)
    outputs, states, *_ = run(sample(MASKS["right"]).replaced(arrays))
    assert {a.dtype for a in (*outputs, *states)} == {np.dtype(np.float64)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_integers_for_floats_are_taken_as_floats(dtype):
    """All in one precision: integers do not make a product of float32 one of float64."""
    x, w = Input((2,)), Parameter("w", np.ones(2))
    engine = ReferenceEngine(Recurrence(StepGraph(sequences=[x], outputs=[x * w.tensor])))
    (y,), _, tape = engine.forward([np.array([[[1, 2]]])], [], [], [np.array([0.5, 4], dtype)])
    assert (y.dtype, y.tolist()) == (dtype, [[[0.5, 8]]])
    found = engine.backward(tape, [np.ones_like(y)], [])
    assert [g.dtype for g in (*found.sequences, *found.parameters)] == [dtype] * 2
    assert found.parameters[0].tolist() == [1, 2]
    assert [v.dtype for v in tape.values[0]] == [dtype] * 3


def test_gradients_of_what_is_given_out_twice_add_up():
    x = Input((2,))
    y = x * 2
    engine = ReferenceEngine(Recurrence(StepGraph(sequences=[x], outputs=[y, y])))
    outputs, _, tape = engine.forward([np.ones((1, 3, 2))], [], [], [])
    ones = np.ones_like(outputs[0])
    for given, slope in (([ones, ones], 4), ([ones, None], 2), ([None, ones], 2)):
        assert (engine.backward(tape, given, []).sequences[0] == slope).all()


def test_no_gradient_is_a_zero_gradient():
    engine = ReferenceEngine(recurrence())
    for mask in (None, MASKS["middle"]):
        outputs, states, tape = sample(mask).forward(engine)
        dy = np.ones_like(outputs[0])
        found = engine.backward(tape, [dy, None], [None, None])
        expected = engine.backward(tape, [dy, np.zeros_like(outputs[1])], [np.zeros_like(s) for s in states])
        for one, other in zip(found.parameters + found.states, expected.parameters + expected.states, strict=True):
            assert np.array_equal(one, other)


def test_the_arguments_and_the_gradients_given_are_left_alone():
    given = sample(MASKS["middle"])
    before = [a.copy() for a in given.arrays()]
    run(given)
    assert all(np.array_equal(one, other) for one, other in zip(before, given.arrays()))


def test_final_states_and_their_gradients_may_be_changed_in_place():
    x, a, b = Input((2,)), Input((2,)), Input((2,))
    graph = StepGraph(sequences=[x], states=[a, b], outputs=[a * x], new_states=[a + b, b])
    engine = ReferenceEngine(Recurrence(graph))
    initial = [np.full((1, 2), 2.0), np.full((1, 2), 3.0)]
    (y,), final_states, tape = engine.forward([np.ones((1, 2, 2))], [], initial, [])
    for state in final_states:
        state[:] = np.nan
    assert np.array_equal(initial[1], [[3, 3]])
    found = engine.backward(tape, [np.zeros_like(y)], [np.ones((1, 2)), None])
    found.states[0][:] = np.nan
    assert np.array_equal(found.states[1], [[2, 2]])
    assert np.array_equal(engine.backward(tape, [np.ones_like(y)], [None, None]).sequences[0], [[[2, 2], [5, 5]]])


def test_a_map_over_time_has_no_states():
    x = Input((3,))
    engine = ReferenceEngine(Recurrence(StepGraph(sequences=[x], outputs=[x * x])))
    a = np.random.default_rng(0).normal(size=(2, 4, 3))
    (y,), states, tape = engine.forward([a], [], [], [])
    assert_close(y, a * a)
    assert states == []
    assert_close(engine.backward(tape, [np.ones_like(y)], []).sequences[0], 2 * a)


def test_steps_without_sequences():
    h = Input((2,))
    engine = ReferenceEngine(Recurrence(StepGraph(states=[h], outputs=[h], new_states=[2 * h])))
    (y,), (end,), tape = engine.forward([], [], [np.array([[1.0, -1.0]])], [], steps=3)
    assert_close(y, np.array([[[1, -1], [2, -2], [4, -4]]]))
    assert_close(end, np.array([[8.0, -8.0]]))
    assert_close(engine.backward(tape, [np.ones_like(y)], [np.ones_like(end)]).states[0], np.array([[15.0, 15.0]]))


def test_states_that_swap_and_leaves_that_are_given_out():
    x, a, b = Input((1,)), Input((1,)), Input((1,))
    graph = StepGraph(sequences=[x], states=[a, b], outputs=[x, a], new_states=[b, a])
    engine = ReferenceEngine(Recurrence(graph))
    outputs, states, tape = engine.forward([np.ones((1, 3, 1))], [], [np.full((1, 1), 2.0), np.full((1, 1), 3.0)], [])
    assert outputs[1].ravel().tolist() == [2, 3, 2]
    assert [s.item() for s in states] == [3, 2]
    found = engine.backward(
        tape, [np.ones((1, 3, 1)), np.array([[[1.0], [10], [100]]])], [np.full((1, 1), 1000.0), None]
    )
    assert found.sequences[0].ravel().tolist() == [1, 1, 1]
    assert [s.item() for s in found.states] == [101, 1010]


def test_int_and_bool_outputs_and_states():
    k = Input((), dtype="int")
    count = Input((), dtype="int")
    graph = StepGraph(sequences=[k], states=[count], outputs=[count + k, k > 1], new_states=[count + 1])
    engine = ReferenceEngine(Recurrence(graph))
    outputs, (end,), tape = engine.forward([np.array([[0, 1, 2]])], [], [np.array([5])], [])
    assert outputs[0].tolist() == [[5, 7, 9]]
    assert outputs[1].tolist() == [[False, False, True]]
    assert end.tolist() == [8]
    found = engine.backward(tape, [None, None], [None])
    assert (found.sequences, found.states) == ([None], [None])


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (lambda a: {"sequences": a.sequences[:2]}, ["3 sequence arrays are needed; got 2"]),
        (lambda a: {"sequences": []}, ["steps is needed"]),
        (lambda a: {"constants": []}, ["1 constant arrays are needed; got 0, for <Tensor", "(None, 4, 3) float>"]),
        (lambda a: {"parameters": a.parameters[:1]}, ["3 parameter arrays are needed; got 1"]),
        (lambda a: {"sequences": [a.sequences[0][..., :2], *a.sequences[1:]]}, ["sequence", "(None, 3)", "(4, 2)"]),
        (lambda a: {"sequences": [a.sequences[0], a.sequences[1][:, 1:], a.sequences[2]]}, ["4 steps; 5 are run"]),
        (lambda a: {"sequences": [a.sequences[0], a.sequences[1][:, :0], a.sequences[2]]}, ["0 steps; 5 are run"]),
        (
            lambda a: {"sequences": [*a.sequences[:2], np.zeros(4)]},
            ["sequence", "takes (batch, time, ...); got shape (4,)"],
        ),
        (lambda a: {"steps": -1}, ["steps must not be negative; got -1"]),
        (lambda a: {"sequences": [a.sequences[0], a.sequences[1][1:], a.sequences[2]]}, ["batch 3 differs from 4"]),
        (lambda a: {"constants": [a.constants[0][:, 0]]}, ["constant", "(None, 4, 3)", "(4, 3)"]),
        (lambda a: {"states": [a.states[0], a.states[1][:2]]}, ["state", "batch 2 differs from 4"]),
        (lambda a: {"states": [a.states[1], a.states[0]]}, ["state", "(None, 3)", "(4, 2, 3)"]),
        (lambda a: {"parameters": [a.parameters[0][:1], *a.parameters[1:]]}, ["parameter", "W", "(3, 3)", "(1, 3)"]),
        (lambda a: {"mask": np.ones((4, 6), bool)}, ["mask", "(4, 5)", "(4, 6)"]),
    ],
)
def test_wrong_arrays_are_named(change, texts):
    given = sample()
    given = Arguments(**{**vars(given), **change(given)})
    with pytest.raises(ValueError, match=".*".join(map(re.escape, texts))):
        given.forward(ReferenceEngine(recurrence()))


def test_floats_of_several_precisions_are_computed_in_the_widest():
    """Sums of 2,000 products that float16 does not hold."""
    x, w = Input((2000,)), Parameter("w", np.ones((2000, 1)))
    engine = ReferenceEngine(Recurrence(StepGraph(sequences=[x], outputs=[x @ w.tensor])))
    ones = np.ones((1, 1, 2000))
    for dtypes, widest in ((("f2", "f2"), "f4"), (("f2", "f4"), "f4"), (("f4", "f8"), "f8")):
        outputs, _, tape = engine.forward([(64 * ones).astype(dtypes[0])], [], [], [w.value.astype(dtypes[1])])
        gradients = engine.backward(tape, [64 * np.ones((1, 1, 1))], [])
        assert outputs[0].dtype == gradients.parameters[0].dtype == gradients.sequences[0].dtype == widest
        assert outputs[0][0, 0, 0] == 128000
        assert (gradients.parameters[0] == 4096).all()


def test_steps_are_a_whole_number():
    for steps in (5.0, "5", True):
        with pytest.raises(TypeError, match="steps must be a whole number; got"):
            Arguments(**{**vars(sample()), "steps": steps}).forward(ReferenceEngine(recurrence()))


def test_wrong_gradients_are_named():
    engine = ReferenceEngine(recurrence())
    outputs, states, tape = sample().forward(engine)
    with pytest.raises(ValueError, match="2 output gradients are needed"):
        engine.backward(tape, [None], [None, None])
    with pytest.raises(ValueError, match=re.escape("output 1 has shape (4, 5, 3); its gradient has shape (4, 5, 2)")):
        engine.backward(tape, [None, outputs[0]], [None, None])
    with pytest.raises(ValueError, match=re.escape("final state 0 has shape (4, 3); its gradient has shape (4, 2, 3)")):
        engine.backward(tape, [None, None], [states[1], None])


def test_an_output_without_a_batch_axis_is_named():
    x, w = Input((3,)), Parameter("w", np.ones(3)).tensor
    engine = ReferenceEngine(Recurrence(StepGraph(sequences=[x], outputs=[w * 2])))
    with pytest.raises(ValueError, match=r"output .* of shape \(3,\) must begin with the batch, 2"):
        engine.forward([np.ones((2, 4, 3))], [], [], [np.ones(3)])


class DropsMask(ReferenceEngine):
    def forward(self, *arrays, mask=None, **options):
        return super().forward(*arrays, mask=None, **options)


class ForgetsToHold(ReferenceEngine):
    def _write_outputs(self, outputs, t, rows, values):
        for y, slot in zip(outputs, self.output_slots):
            if rows is None or len(rows):
                y[slice(None) if rows is None else rows, t] = values[slot]


class ForgetsHeldGradients(ReferenceEngine):
    def _output_gradients(self, d_outputs, held, t, rows):
        return super()._output_gradients(d_outputs, [np.zeros_like(h) for h in held], t, rows)


class FlipsStateGradients(ReferenceEngine):
    def _step_backward(self, tape, t, d_outputs, d_states):
        return super()._step_backward(tape, t, d_outputs, [-d for d in d_states])


class TransposesWeights(ReferenceEngine):
    def forward(self, sequences, constants, states, parameters, **options):
        moved = [p.T if p.shape[0] == p.shape[-1] else p for p in parameters]
        return super().forward(sequences, constants, states, moved, **options)


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (check_values, DropsMask),
        (check_values, ForgetsToHold),
        (check_values, TransposesWeights),
        (check_backward, DropsMask),
        (check_backward, ForgetsHeldGradients),
        (check_backward, FlipsStateGradients),
    ],
)
def test_a_broken_engine_is_seen(check, broken):
    given = sample(MASKS["middle"])
    check(given)
    with pytest.raises(AssertionError):
        check(given, broken)
