"""Arrays of another kind than their leaf: converted where nothing is cut off, else refused, by every engine alike."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import rsref_fast
from rsref import Input, RecurrentModel, ops
from rsref.engine import ReferenceEngine
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter

ENGINES = {
    "reference": ReferenceEngine,
    "interpreter": lambda own: rsref_fast.compile(own, target="interpreter"),
    "cpu": rsref_fast.compile,
}
MASK = np.array([[True, True, False], [False, True, True]])


@pytest.fixture(params=ENGINES)
def make(request):
    if request.param == "cpu":
        pytest.importorskip("numba")
    return ENGINES[request.param]


def step():
    """A step with a leaf of each kind: h' = h / 2 + w x + (n if b)."""
    x, n, b, h = Input((2,)), Input((), dtype="int"), Input((), dtype="bool"), Input((2,))
    weight = Parameter("w", np.ones(2))
    added = ops.cast(ops.where(ops.equal(b, ops.greater(n, -1)), n, 0), "float")  # every number but zero is true
    new = 0.5 * h + weight.tensor * x + ops.expand_dims(added, 1)
    return RecurrentModel([x, n, b], new, h, new).recurrence


GIVEN = {
    "x": [[[1, 0]] * 3, [[2, 1]] * 3],
    "n": [[1, 2, 3], [4, 5, 6]],
    "b": [[2, 0, 1], [0, 3, 1]],
    "h": [[3, 1], [5, 7]],
}


@pytest.mark.covering("values")
@pytest.mark.parametrize(
    ("x", "n", "b", "h", "w"),
    [
        ("i8", "i8", "?", "f8", "f8"),
        ("?", "u1", "i4", "i8", "f4"),
        ("f4", "?", "u1", "u1", "i8"),
        ("i2", "i8", "?", "?", "f8"),
    ],
)
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_what_loses_nothing_is_converted(make, mask, x, n, b, h, w):
    given = {name: np.array(GIVEN[name]).astype(kind) for name, kind in zip("xnbh", (x, n, b, h))}
    weights = np.array([1, 3], w)
    engine = make(step())
    (y,), (end,), tape = engine.forward([given[name] for name in "xnb"], [], [given["h"]], [weights], mask)
    state, expected = given["h"].astype(float), []
    for t in range(3):
        added = np.where(given["b"][:, t] != 0, given["n"][:, t].astype(int), 0)
        new = 0.5 * state + weights * given["x"][:, t] + added[:, None]
        state = new if mask is None else np.where(mask[:, t, None], new, state)
        expected.append(new if mask is None else np.where(mask[:, t, None], new, expected[-1] if t else 0))
    np.testing.assert_allclose(y, np.stack(expected, 1), rtol=1e-6)
    np.testing.assert_allclose(end, state, rtol=1e-6)
    floats = [a.dtype for a in (*given.values(), weights) if a.dtype.kind == "f"]
    assert y.dtype == end.dtype == np.result_type(np.float32, *floats)
    found = engine.backward(tape, [None], [np.ones_like(end)])
    steps = np.ones((2, 3), bool) if mask is None else mask
    later = steps[:, ::-1].cumsum(1)[:, ::-1] - steps  # steps that follow
    d = np.where(steps, 0.5**later, 0)[:, :, None]
    np.testing.assert_allclose(found.sequences[0], weights * d, rtol=1e-6)
    np.testing.assert_allclose(found.states[0], np.broadcast_to(0.5 ** steps.sum(1)[:, None], (2, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.parameters[0], (given["x"] * d).sum((0, 1)), rtol=1e-6)
    assert all(a.dtype.kind == "f" for a in (found.sequences[0], found.states[0], found.parameters[0]))


@pytest.mark.parametrize(("place", "kind"), [(1, "int"), (2, "bool")])
def test_fractions_are_not_cut_off(make, place, kind):
    given = [np.ones((1, 3, 2)), np.ones((1, 3), int), np.ones((1, 3), bool)]
    given[place] = given[place].astype(float)
    with pytest.raises(TypeError, match=f"takes {kind} values; got dtype float64"):
        make(step()).forward(given, [], [np.zeros((1, 2))], [np.ones(2)])


class Foreign:
    """As much like an array as other libraries' are."""

    def __init__(self, a):
        self.dtype, self.shape, self.strides = a.dtype, a.shape, a.strides
        self.values = a

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_other_libraries_arrays_are_named(make):
    """Not taken as far as they happen to be enough like NumPy's."""
    engine, h = make(step()), np.zeros((1, 2))
    given = [np.ones((1, 3, 2)), np.ones((1, 3), int), np.ones((1, 3), bool)]
    for state, mask, name in ((Foreign(h), None, r"states\[0\]"), (h, Foreign(np.ones((1, 3), bool)), "mask")):
        with pytest.raises(TypeError, match=f"{name} must be a NumPy array; got .*Foreign"):
            engine.forward(given, [], [state], [np.ones(2)], mask)
    *_, tape = engine.forward(given, [], [h], [np.ones(2)])
    with pytest.raises(TypeError, match=r"gradient of output 0 must be a NumPy array; got .*Foreign"):
        engine.backward(tape, [Foreign(np.ones((1, 3, 2)))], [None])


@pytest.mark.parametrize(("op", "place"), [(ops.argmax, 1), (ops.argmin, 0)])
def test_integers_are_compared_as_integers(make, op, place):
    """As floats these two would be one number."""
    x = Input((2,), dtype="int")
    own = Recurrence(StepGraph(sequences=[x], outputs=[op(x, axis=-1)]))
    (y,), _, _ = make(own).forward([np.array([[[2**24, 2**24 + 1]]])], [], [], [])
    assert y.tolist() == [[place]]


WITHOUT_ASSERTIONS = """
import numpy as np
import rsref_fast
from rsref import cells
from rsref.testing.arguments import random_arguments
assert False, "python -O leaves this out"
cell = cells.GRUCell(3)
cell.build((None, 2))
engine = rsref_fast.compile(cell, target="interpreter")
ys, _, tape = random_arguments(engine.recurrence).forward(engine)
print(engine.backward(tape, [np.ones_like(y) for y in ys], [None]).states[0].shape)
"""


def test_without_assertions():
    command = [sys.executable, "-O", "-c", WITHOUT_ASSERTIONS]
    found = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("(")


@pytest.mark.parametrize("make", [None, rsref_fast.compile])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_layer_of_whole_numbers_alone_computes_in_its_precision(make, dtype):
    i, count = Input((3,), dtype="int"), Input((3,), dtype="int")
    layer = RecurrentModel(i, (i + count) * 0.1, count, count + i, return_sequences=True, dtype=dtype, engine=make)
    values = np.full((2, 4, 3), 2**24 + 1)
    for one in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        y = one(values, mask=[[True] * 4, [True, False, True, True]])
        assert y.dtype == dtype
        assert (y[0, 0] == np.asarray(2**24 + 1).astype(dtype) * np.dtype(dtype).type(0.1)).all()


@pytest.mark.parametrize("make", [ReferenceEngine, rsref_fast.compile])
def test_the_copy_of_an_engine_knows_a_tape_of_a_step_with_nan(make):
    x = Input((3,))
    engine = make(RecurrentModel(x, ops.median(x, axis=-1, keepdims=True) * x).recurrence)
    values = np.array([[[1.0, -2.0, 5.0]]])
    _, _, tape = engine.forward([values], [], [], [])
    (expected,) = engine.backward(tape, [np.ones((1, 1, 3))], []).sequences
    np.testing.assert_allclose(expected, [[[5.0, 1.0, 1.0]]])  # the median is 1, of which all answers make 4 more
    for copied in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        (found,) = copied.backward(tape, [np.ones((1, 1, 3))], []).sequences
        np.testing.assert_array_equal(found, expected)
    other = make(RecurrentModel(x, ops.median(x, axis=-1, keepdims=True) + x).recurrence)
    with pytest.raises(TypeError, match="got that of another recurrence"):
        other.backward(tape, [np.ones((1, 1, 3))], [])


@pytest.mark.parametrize("make", [None, rsref_fast.compile])
def test_a_formula_with_a_number_of_numpy_keeps_the_precision(make):
    scale = np.sqrt(2 / np.pi)  # of float64
    own = ops.pointwise("scaled", lambda x: np.tanh(scale * x), (lambda g, y: g * scale * (1 - y * y),))
    try:
        x, h = Input((3,)), Input((3,))
        new = own(x + 0.5 * h)
        layer = RecurrentModel(x, new, h, new, dtype="float32", engine=make, return_state=True, stateful=True)
        (y, state), tape = layer.forward(np.ones((2, 4, 3)))
        d = layer.backward(tape, [np.ones_like(y), None])
        assert y.dtype == state.dtype == layer.states[0].dtype == d.x.dtype == d.initial_state[0].dtype == np.float32
    finally:
        del ops.REGISTRY["scaled"]


WHOLE = {
    "bits": lambda x: (x & 6) | (3 ^ x),
    "the opposite of bits": lambda x: ~x + np.bitwise_and(x, 1) - ~(x > 2) * x,
    "functions of whole numbers": lambda x: np.maximum(np.sign(x), abs(x) // 3) + np.floor(-x) + np.square(x),
    "floats on the way": lambda x: np.where(np.sqrt(abs(x)) / 2 > 1.2, x, np.exp(x / 9) < 1.0),
}


FLOATS = {
    "a spike": lambda x: np.heaviside(x - 0.5, 0.25),
    "clipped": lambda x: np.clip(x, -0.5, 0.75) + 2 * np.clip(x, None, 0) + 3 * np.clip(x, 1, None),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", FLOATS)
def test_a_formula_of_functions_that_are_said_with_others(name, dtype):
    own = ops.pointwise("own", FLOATS[name])
    try:
        x = Input((9,))
        engines = [make(RecurrentModel(x, own(x)).recurrence) for make in (ReferenceEngine, rsref_fast.compile)]
        given = np.array([-2, -0.5, 0, -0.0, 0.5, 0.75, 2, np.inf, np.nan], dtype)[None, None]
        expected, found = (engine.forward([given], [], [], [])[0][0] for engine in engines)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(expected[0, 0], FLOATS[name](given[0, 0]))
    finally:
        del ops.REGISTRY["own"]


@pytest.mark.parametrize("name", WHOLE)
def test_a_formula_of_whole_numbers(name):
    own = ops.pointwise("own", WHOLE[name], (), "same")
    try:
        x = Input((9,), dtype="int")
        engines = [make(RecurrentModel(x, own(x)).recurrence) for make in (ReferenceEngine, rsref_fast.compile)]
        given = np.array([257, 6, 5, 1, 0, -1, -2, -7, 2**40])[None, None]
        expected, found = (engine.forward([given], [], [], [])[0][0] for engine in engines)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(expected[0, 0], WHOLE[name](given[0, 0]))
    finally:
        del ops.REGISTRY["own"]


REFUSED = {
    "if": (lambda x: x if x > 0 else 0 * x, "same", "the truth of an element, by if"),
    "a greatest number": (lambda x: max(x, 0 * x), "same", "write numpy.where, numpy.maximum"),
    "a chain of comparisons": (lambda x: np.where(-1 < x < 1, x, 0), "same", "the truth of an element"),
    "a method of arrays": (lambda x: x.clip(-1, 1), "same", "no attribute 'clip'"),
    "a number that no kernel has": (lambda x: x * 2**70, "same", "is no number of a kernel"),
    "a power of whole numbers": (lambda x: x**3, "same", "numpy.power of whole numbers"),
    "floats where there are none": (lambda x: x * 0.5, "same", "answers float where its kind says int"),
    "whole numbers where there are floats": (lambda x: np.where(x > 0, 1, 0), "float", "answers int where its kind"),
    "bits of floats": (lambda x: ~x, "float", "numpy.invert of floats"),
    "less than a bool": (lambda x: -x, "logical", "numpy.negative of bools"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_formula_that_no_kernel_computes_as_numpy_does_is_named(name):
    formula, kind, words = REFUSED[name]
    own = ops.pointwise("own", formula, (), kind)
    try:
        x = Input((3,), dtype="int")
        with pytest.raises(NotImplementedError, match=f"formula of 'own' .*{words}"):
            rsref_fast.compile(RecurrentModel(x, own(x)).recurrence).forward([np.ones((1, 1, 3), int)], [], [], [])
    finally:
        del ops.REGISTRY["own"]
