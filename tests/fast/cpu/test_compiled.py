"""Machine code against the oracle: every op, every cell, and random steps, in both precisions."""

import copy
import pickle
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

import rsref
import rsref_fast
from rsref import Input, RecurrentModel, cells, ops, set_random_seed
from rsref.engine import ReferenceEngine
from rsref.graph import StepGraph
from rsref.ops.pointwise import Pointwise
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter
from rsref.testing import step_graphs
from rsref.testing.arguments import Arguments, random_arguments
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.attending import attending
from tests.fast.made import CELLS, MASK, recurrence_of
from tests.fast.steps import STEPS, recurrence

PRECISIONS = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


@pytest.mark.parametrize("name", STEPS)
def test_every_op(name):
    """In float32; float64 has the same source but for the functions, which test_vector_math compares.

    What keeps nothing for backward has the same loops: it is compiled where it is frozen or a stream, and here with
    `--every`.
    """
    own = recurrence(name)
    arguments = random_arguments(own, batch=3, steps=4)
    check(own, arguments, target="cpu", threads=2, dtype=np.float32, inference=examples(True, False))


@pytest.mark.covering("values")
@PRECISIONS
@pytest.mark.parametrize("name", CELLS)
def test_every_cell(name, dtype):
    own = recurrence_of(name)
    engine = rsref_fast.compile(own, threads=2)
    for mask in (None, MASK):
        arguments = random_arguments(own, batch=3, steps=5, mask=mask)
        check(own, arguments, dtype=dtype, engine=engine, inference=examples(True, False))


@pytest.mark.parametrize(
    ("units", "dtype"),
    examples([*product([1, 17, 64], [np.float64, np.float32])], [(1, np.float64), (17, np.float32), (64, np.float64)]),
)
def test_sizes_that_fill_no_block(units, dtype):
    own = recurrence_of("LSTMCell", units, 9)
    engine = rsref_fast.compile(own)
    for batch in (1, 2, 7, 33):
        for engine.threads in (1, 2, 3):
            arguments = random_arguments(own, batch=batch, steps=7)
            check(own, arguments, dtype=dtype, engine=engine, inference=examples(True, units == 17))


@pytest.mark.parametrize("part", range(examples(2, 1)))
def test_random_graphs(part):
    """The generated source is tested on many more in tests/fast; here it is the compiler that is.

    What keeps nothing for backward is compiled for ops and cells.
    """

    @seed(1000 + part)
    @settings(
        max_examples=examples(6, 2),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(example=step_graphs())
    def run(example):
        check(example.recurrence, example.arguments, target="cpu", threads=2, inference=False, least=1.0)

    run()


def test_results_do_not_depend_on_how_often_or_with_how_many_callers():
    from concurrent.futures import ThreadPoolExecutor

    own = recurrence_of("GRUCell", 64, 9)
    engine = rsref_fast.compile(own, threads=2)
    arguments = random_arguments(own, batch=9, steps=20)
    ys, _, tape = arguments.forward(engine)
    d = [np.ones_like(ys[0])]
    expected = [ys[0], *engine.backward(tape, d, [None]).parameters]

    def once(_):
        ys, _, tape = arguments.forward(engine)
        return [ys[0], *engine.backward(tape, d, [None]).parameters]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(once, range(24)):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)


def test_arrays_of_all_kinds(tmp_path):
    """Kernels find each array's memory in NumPy's object: scalars have none, subclasses and mapped files may differ."""
    x, h = Input((4,)), Input((4,))
    scale = Parameter("scale", np.float64(0.7))
    new = ops.tanh(x * scale.tensor + h)
    own = RecurrentModel(x, new, h, new).recurrence
    rng = np.random.default_rng(0)
    given, state = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 4))
    (expected,), _, _ = ReferenceEngine(own).forward([given], [], [state], [np.float64(0.7)])
    mapped = np.memmap(tmp_path / "x", float, "w+", shape=given.shape)
    mapped[...] = given
    fixed = given.copy()
    fixed.flags.writeable = False
    cut = np.concatenate([given, given])[1::2]
    engine = rsref_fast.compile(own)
    for array in (
        given,
        mapped,
        fixed,
        given.view(np.recarray),
        np.asfortranarray(given),
        np.flip(given)[::-1, ::-1, ::-1],
    ):
        for number in (np.float64(0.7), np.array(0.7)):
            (y,), _, tape = engine.forward([array], [], [state], [number])
            np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)
            (d,) = engine.backward(tape, [y], [None]).parameters
            assert d.shape == ()
    (y,), _, _ = engine.forward([cut], [], [state], [np.float64(0.7)])
    np.testing.assert_allclose(y, ReferenceEngine(own).forward([cut], [], [state], [np.float64(0.7)])[0][0], atol=1e-14)


def test_a_layer_runs_on_the_engine():
    set_random_seed(0)
    x, h = rsref.Input((3,)), rsref.Input((4,))
    new = rsref.ops.tanh(rsref.layers.add([rsref.layers.Dense(4)(x), rsref.layers.Dense(4)(h)]))
    slow = rsref.RecurrentModel(x, new, h, new, return_sequences=True)
    fast = rsref.RecurrentModel(x, new, h, new, return_sequences=True, engine=rsref_fast.compile)
    values = np.random.default_rng(0).normal(size=(5, 6, 3))
    expected = fast(values)
    np.testing.assert_allclose(expected, slow(values), rtol=0, atol=1e-12)
    y, tape = fast.forward(values)
    special = tape.tape.special
    for call in copy.deepcopy(special).calls.values():  # a copy outlives what it is copied from
        assert call.forward.address == call.forward.words.__array_interface__["data"][0]
    for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        np.testing.assert_array_equal(copied(values), expected)
    engine, states, weights = rsref_fast.compile(slow), [np.zeros((5, 4))], slow.get_weights()
    for made in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        np.testing.assert_array_equal(made.forward([values], [], states, weights)[0][0], expected)
        np.testing.assert_array_equal(
            pickle.loads(pickle.dumps(made.freeze(weights)))([values], [], states)[0][0], expected
        )
    copied, held = copy.deepcopy((fast, tape))
    for a, b in zip(copied.backward(held, y).weights, fast.backward(tape, y).weights, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(TypeError, match="a tape of a compiled engine cannot be pickled"):
        pickle.dumps(tape)  # backward ran in another process what was no code there


@pytest.mark.parametrize(("entries", "index"), [(3, 3), (3, -4), (3, 2**62), (0, 0)])
@pytest.mark.parametrize("target", ["cpu", "interpreter"])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_out_of_range_is_refused(target, threads, entries, index):
    """The first such index is named; of an axis of no entries nothing is read."""
    x, h = rsref.Input((), dtype="int"), rsref.Input((2,))
    table = rsref.Parameter("table", np.ones((entries, 2)))
    own = rsref.RecurrentModel(x, rsref.ops.embedding(x, table.tensor) + h, h, h).recurrence
    engine = rsref_fast.compile(own, target=target, threads=threads)
    given = np.array([[index, 9, 9], [9, 9, 9]])
    with pytest.raises(IndexError, match=f"index {index} is out of range for an axis of size {entries}$"):
        engine.forward([given], [], [np.zeros((2, 2))], [table.value])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@PRECISIONS
def test_what_is_no_number_goes_where_the_oracle_lets_it_go(bad, dtype):
    own = recurrence_of("LSTMCell", 64 if dtype is np.float64 else 17, 9)
    arguments = random_arguments(own, batch=4, steps=5)
    arguments.sequences[0][1, 2, 0] = bad
    check(own, arguments, target="cpu", dtype=dtype, inference=False)


@pytest.mark.parametrize("target", ["cpu", "interpreter"])
def test_functions_and_searches_of_what_is_no_number(target):
    """Each pair of numbers by each function, and their gradients."""
    special = [np.nan, np.inf, -np.inf, 0.0, 1.5, -2.5]
    x = Input((6,))
    a, b = ops.expand_dims(x, 2), ops.expand_dims(x, 1)
    pairs = [ops.maximum(a, b), ops.minimum(a, b), a**b, ops.floor_divide(a, b), ops.remainder(a, b)]
    single = [ops.sign(x), ops.absolute(x), ops.floor(x), ops.ceil(x), ops.round(x), ops.isfinite(x)]
    left_out = [ops.sparsemax(x), ops.sparsemax(x[:, 1:])]
    bools = Pointwise("bools", lambda x: ((x > 0) + (x > 1)) * x + (x > 0) * (x < 2), (lambda g: g,), "float")
    single.append(bools(x))
    own = Recurrence(StepGraph(sequences=[x], outputs=[*pairs, *single, *left_out]))
    values = np.array(
        [special, [1.0, 1.0, -np.inf, -np.inf, 0.9, 0.0], [-np.inf] * 6, [*[1.0] * 5, np.inf], [1e20, *[1.0] * 5]]
    )
    check(own, Arguments(sequences=[values[:, None]]), target=target, inference=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 7, 16, 45, 70])
def test_the_greatest_of_long_rows(width, dtype):
    """In vectors and what is left over: wherever it stands, and wherever something is no number."""
    x = Input((width,))
    own = Recurrence(StepGraph(sequences=[x], outputs=[ops.max(x, 1), ops.min(x, 1)]))
    rng = np.random.default_rng(width)
    rows = rng.standard_normal((4 * width, width)).astype(dtype)
    for i, special in enumerate([np.inf, -np.inf, np.nan, 3.0]):
        rows[i * width + np.arange(width), np.arange(width)] = special
    (greatest, least), _, _ = rsref_fast.compile(own).forward([rows[:, None]], [], [], [], taped=False)
    np.testing.assert_array_equal(greatest[:, 0], rows.max(1))
    np.testing.assert_array_equal(least[:, 0], rows.min(1))


def test_the_largest_entry_is_the_largest_in_backward_too():
    """Forward rounds a product before it is added, since somebody reads it; computed again it would not be rounded."""
    rng = np.random.default_rng(0)
    x, h = Input((4,)), Input((4,))
    w = Parameter("w", rng.normal(size=4)).tensor
    product = x * w
    entries = product + h
    new = ops.tanh(entries - ops.max(entries, 1, keepdims=True))
    spread = ops.expand_dims(x, 2) * w
    places = spread + ops.expand_dims(h, 1)  # of few numbers
    hard = ops.where(ops.equal(places, ops.max(places, 2, keepdims=True)), places, 0.0)
    own = Recurrence(StepGraph(sequences=[x], states=[h], outputs=[product, new, spread, hard], new_states=[new]))
    check(own, random_arguments(own, batch=8, steps=5), target="cpu", dtype=np.float32)


def test_explain_and_source():
    engine = rsref_fast.compile(recurrence_of("LSTMCell"), threads=2)
    text = engine.explain()
    assert text.startswith("float32, (2,), (4,), (4,); 2 threads\n")
    for words in ("hoisted", "sunk", "fused into one loop", "flops", "bytes", "panels of", "share the units"):
        assert words in text
    assert "def shard(P, N, Q):" in engine.source
    backward = text[text.index("backward: blocks of") :]
    assert "panels0" in backward
    assert "a sample and step, kept" not in backward


def test_explain_before_any_call():
    """The step's own lengths are those of its arrays, if they are known."""
    engine = rsref_fast.compile(attending(), target="interpreter", threads=1)
    assert engine.explain().startswith("float32, (4,), (5, 3), (1,), (4,); 1 threads\n")
    x, h = Input((None, 2)), Input((2,))
    engine = rsref_fast.compile(RecurrentModel(x, h, h, h + ops.sum(x, 1)).recurrence, target="interpreter", threads=1)
    with pytest.raises(ValueError, match="the step leaves lengths open: call the engine once"):
        engine.explain()
    engine.forward([np.zeros((3, 4, 5, 2))], [], [np.zeros((3, 2))], [])
    assert engine.explain().startswith("float64, (5, 2), (2,); 1 threads\n")


def test_errors():
    with pytest.raises(TypeError, match="takes a Recurrence"):
        rsref_fast.compile(3)
    with pytest.raises(ValueError, match="target"):
        rsref_fast.compile(recurrence_of("GRUCell"), target="tpu")
    with pytest.raises(ValueError, match="not built"):
        rsref_fast.compile(cells.GRUCell(3))
    with pytest.raises(ValueError, match="threads must be a positive integer or None; got True"):
        rsref_fast.compile(recurrence_of("GRUCell"), threads=True)
    with pytest.raises(ValueError, match="threads"):
        rsref_fast.set_num_threads(0)
    assert rsref_fast.compile(recurrence_of("GRUCell"), threads=np.int64(2)).threads == 2
    with pytest.raises(TypeError, match="mask must be a NumPy array"):
        rsref_fast.compile(recurrence_of("GRUCell")).forward(
            [np.zeros((1, 1, 2))], [], [np.zeros((1, 4))], [], [[True]]
        )
    for make in (rsref_fast.compile, ReferenceEngine):
        with pytest.raises(TypeError, match=r"takes the tape that forward answered; got builtins\.NoneType"):
            make(recurrence_of("GRUCell")).backward(None, [None], [None])
        recurrence = recurrence_of("GRUCell")
        _, _, tape = make(recurrence).forward(**vars(random_arguments(recurrence)))
        with pytest.raises(TypeError, match="takes the tape that forward answered; got that of another"):
            make(recurrence_of("LSTMCell")).backward(tape, [None], [None, None])
    cell = cells.GRUCell(3)
    cell.build((None, 2))
    own = rsref_fast.compile(cell).recurrence
    check(own, random_arguments(own))


def test_numbers_that_kernels_do_not_compute_with():
    """Nothing is cut off unsaid: neither imaginary parts nor digits."""
    recurrence = recurrence_of("SimpleRNNCell")
    arguments = random_arguments(recurrence).cast(np.float32)
    engine = rsref_fast.compile(recurrence)
    states, parameters = arguments.states, arguments.parameters
    for dtype in (np.complex64, np.longdouble, np.dtype("U1")):
        with pytest.raises(TypeError, match=f"float32 or float64; got {np.dtype(dtype)}"):
            engine.forward([arguments.sequences[0].astype(dtype)], [], states, parameters)
    half = [arguments.sequences[0].astype(np.float16)]
    (own,), _, tape = engine.forward(half, [], states, parameters)
    (expected,), _, other = ReferenceEngine(recurrence).forward(half, [], states, parameters)
    assert own.dtype == np.float32
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-6)
    for made, kept in ((engine, tape), (ReferenceEngine(recurrence), other)):
        with pytest.raises(TypeError, match="output 0 is real; its gradient has dtype complex64"):
            made.backward(kept, [own.astype(np.complex64)], [None])
        with pytest.raises(TypeError, match="final state 0 is real"):
            made.backward(kept, [own], [np.ones(own[:, 0].shape, complex)])
