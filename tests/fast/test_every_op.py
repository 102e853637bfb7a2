"""Every op, forward and backward, in the generated source run by Python itself."""

import numpy as np
import pytest

import rsref_fast
from rsref import Dense, Input, Parameter, RecurrentModel, ops
from rsref.engine import ReferenceEngine
from rsref.ops.base import REGISTRY, Op, apply, register
from rsref.ops.pointwise import Pointwise
from rsref.tensor import constant
from rsref.testing.arguments import Arguments, random_arguments
from rsref_fast.cpu.splitting import Split
from rsref_fast.program import build
from tests.fast.agreement import check
from tests.fast.steps import STEPS, recurrence
from tests.tolerances import assert_close

MASK = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)


@pytest.mark.parametrize("name", STEPS)
def test_values_and_gradients(name):
    own = recurrence(name)
    engine = rsref_fast.compile(own, target="interpreter")
    for mask in (None, MASK):
        for shards, team in ((1, 1), (2, 1), (1, 2), (2, 3)):
            arguments = random_arguments(own, batch=3, steps=4, mask=mask)
            check(own, arguments, engine=engine, split=Split(shards, team))


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: ops.sum(x, 1),
        lambda x: ops.einsum("btf,bth->bfh", x, x),
        lambda x: ops.softmax(x, 1),
        lambda x: ops.log_softmax(x, 1),
        lambda x: ops.sparsemax(x, 1),
        lambda x: ops.standardize(x, 1),
        lambda x: ops.isfinite(ops.logsumexp(x, 1)),  # of nothing it is the logarithm of 0
    ],
)
def test_an_axis_of_no_places(draw):
    x = Input((None, 3))
    own = RecurrentModel(x, draw(x), decode=True, output_length=2).recurrence
    check(own, Arguments(constants=[np.zeros((2, 0, 3))], steps=2))


def test_products_of_parameters():
    """Weights that are themselves a product, which is computed once a call, and whose gradient is one of sums."""
    rng = np.random.default_rng(0)
    a, b = (Parameter(name, rng.normal(size=shape)) for name, shape in (("a", (3, 5)), ("b", (5, 3))))
    x, h = Input((3,)), Input((3,))
    new = ops.tanh(x @ (a.tensor @ b.tensor) + h @ (a.tensor @ b.tensor))
    own = RecurrentModel(x, new, h, new).recurrence
    engine = rsref_fast.compile(own, target="interpreter")
    for mask in (None, MASK):
        for shards, team in ((1, 1), (2, 3)):
            arguments = random_arguments(own, batch=3, steps=4, mask=mask)
            check(own, arguments, engine=engine, split=Split(shards, team))


def test_gradients_of_parameters_that_are_joined():
    """Each is a part of what is summed, the first one at its beginning, and is not summed in its own memory."""
    x, h = Input((4,)), Input((4,))
    parts = [Parameter(name, np.arange(1.0, 3.0)).tensor for name in "ab"]
    new = ops.tanh(x + h * ops.concatenate(parts, 0))
    own = RecurrentModel(x, new, h, new).recurrence
    check(own, random_arguments(own, batch=3, steps=4), threads=2)


def test_what_integers_and_bools_read_gets_no_gradient():
    """A counter and a switch, by which a float state is weighed, and a parameter that turns the switch."""
    x, h, n, on = Input((3,)), Input((3,)), Input((3,), dtype="int"), Input((3,), dtype="bool")
    limit = Parameter("limit", np.zeros(3))
    new = ops.where(on, ops.tanh(x + h), h * ops.cast(n, "float"))
    own = RecurrentModel(x, new, [n, h, on], [n + 1, new, ops.logical_xor(on, x > limit.tensor)]).recurrence
    for mask in (None, MASK):
        check(own, random_arguments(own, batch=3, steps=4, mask=mask), threads=2)


def used(name):
    graph = recurrence(name).graph
    leaves = (*graph.sequences, *graph.constants, *graph.states)
    compiled = build(graph, {leaf: (2, *leaf.shape[1:]) for leaf in leaves})
    derivative = compiled.derivative
    from rsref.graph import topological_order

    tensors = [*derivative.graph.order, *topological_order(derivative.results)]
    return {t.op.name for t in tensors if t.op is not None}


def test_no_op_is_left_out():
    assert set(ops.REGISTRY) == set().union(*map(used, STEPS))


def test_a_formula_without_a_kernel_is_named():
    strange = ops.pointwise("strange", lambda x: np.cbrt(x), (lambda g, x: g,))
    try:
        from rsref import Input, RecurrentModel

        x, h = Input((3,)), Input((3,))
        own = RecurrentModel(x, strange(x + h), h, x).recurrence
        with pytest.raises(NotImplementedError, match=r"'strange' has no kernel: numpy\.cbrt; .*tanh.* have one"):
            check(own, random_arguments(own))
    finally:
        del ops.REGISTRY["strange"]


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: 2.0**x + abs(x) + 7 // (1 + abs(x)) - +x // 2,
        lambda x: np.square(np.where(x > 1, x, 2 * x)) - np.reciprocal(1 + np.square(x)),
        lambda x: np.where((True & (x > 0)) | (False ^ (x < -1)) | (False | (x == 0)), x, 3 * x),
    ],
)
def test_a_formula_with_pythons_operators(formula):
    own = ops.pointwise("own", formula, (lambda g, x: g,))
    try:
        x = Input((5,))
        step = RecurrentModel(x, own(x)).recurrence
        check(step, random_arguments(step))
    finally:
        del ops.REGISTRY["own"]


@pytest.mark.parametrize(
    ("formula", "named"), [(lambda x: np.gcd(x, 2), r"numpy\.gcd"), (lambda x: divmod(x, 2)[0], "'own'.*divmod")]
)
def test_an_operator_without_a_kernel_is_named(formula, named):
    own = ops.pointwise("own", formula, (lambda g, x: g,))
    try:
        x = Input((5,))
        with pytest.raises(NotImplementedError, match=named):
            rsref_fast.compile(RecurrentModel(x, own(x)).recurrence, target="interpreter").check()
    finally:
        del ops.REGISTRY["own"]


@pytest.mark.parametrize(
    "derivative",
    [lambda g, x: g * np.i0(x), lambda g, x: np.where(x == 0, g, 0), lambda g, x: g if np.all(x > 0) else -g],
)
def test_a_derivative_that_cannot_be_drawn_is_named(derivative):
    own = ops.pointwise("own", lambda x: x + 1, (derivative,))
    try:
        x = Input((5,))
        with pytest.raises(NotImplementedError, match="the gradient of op 'own' cannot be drawn: "):
            rsref_fast.compile(RecurrentModel(x, own(x)).recurrence, target="interpreter").check()
    finally:
        del ops.REGISTRY["own"]


def test_a_gradient_of_another_shape_than_the_operand_is_named(monkeypatch):
    monkeypatch.setattr(ops.REGISTRY["softmax"].__class__, "vjp", lambda self, wrt, g, y, *operands, **attrs: g[:, 0])
    x = Input((5,))
    with pytest.raises(ValueError, match=r"op 'softmax': .* operand 0 has shape \(None,\), the operand \(None, 5\)"):
        rsref_fast.compile(RecurrentModel(x, ops.softmax(x * 2)).recurrence, target="interpreter").check()


def test_a_product_over_no_features():
    x, h = Input((3, 0)), Input((3, 2))
    new = ops.tanh(Dense(2)(x) + h)
    own = RecurrentModel(x, new, h, new).recurrence
    check(own, random_arguments(own))


def test_a_new_pointwise_op_needs_no_kernel_of_its_own():
    hump = ops.pointwise("hump", lambda x: np.where(x < 1, x * np.exp(-x), 1 / x), (lambda g, x: g * x,))
    try:
        from rsref import Input, RecurrentModel

        x, h = Input((3,)), Input((3,))
        own = RecurrentModel(x, hump(x + h), h, x).recurrence
        check(own, random_arguments(own))
    finally:
        del ops.REGISTRY["hump"]


def test_an_op_without_gradient_is_for_inference():
    """As the oracle does it: all that runs forward works, and backward names the op."""
    half = ops.pointwise("half", lambda x, scale: x * scale / 2, (None, lambda g, x: g * x / 2))
    try:
        x, h = Input((3,)), Input((3,))
        layer = RecurrentModel(x, half(Dense(3)(x) + h, h), h, ops.tanh(x + h))
    finally:
        del ops.REGISTRY["half"]
    engine, oracle = rsref_fast.compile(layer, target="interpreter"), ReferenceEngine(layer.recurrence)
    engine.check()
    assert "backward: not of output 0, since op 'half' has no gradient" in engine.explain()
    arguments = random_arguments(layer.recurrence, batch=2, steps=4)
    x, h, weights = arguments.sequences, arguments.states, arguments.parameters
    (expected,), (last,), _ = oracle.forward(x, [], h, weights)
    stream = engine.stream([], h, weights, batch=2)
    streamed = np.stack([stream(x_t)[0].copy() for x_t in x[0].swapaxes(0, 1)], 1)
    for taped in (False, True):
        assert_close(engine.forward(x, [], h, weights, taped=taped)[0][0], expected)
    assert_close(engine.freeze(weights)(x, [], h)[0][0], expected)
    assert_close(streamed, expected)
    assert_close(stream.states[0], last)
    for one in (engine, oracle, rsref_fast.compile(layer, target="interpreter", checkpoint=True)):
        outputs, states, tape = one.forward(x, [], h, weights)
        with pytest.raises(TypeError, match="op 'half' has no gradient with respect to operand 0"):
            one.backward(tape, outputs, states)
        found = one.backward(tape, [None], states)  # that of the final state does not flow through it
        assert_close(found.states[0], oracle.backward(oracle.forward(x, [], h, weights)[2], [None], states).states[0])


def test_a_state_without_gradient_leaves_no_backward():
    half = Pointwise("half", lambda x: x / 2, (None,), "float")
    x, h = Input((3,)), Input((3,))
    layer = RecurrentModel(x, x + h, h, half(h + x))
    engine = rsref_fast.compile(layer, target="interpreter")
    engine.check()
    assert "backward: none, since op 'half' has no gradient" in engine.explain()
    arguments = random_arguments(layer.recurrence, batch=2, steps=4)
    for one in (engine, ReferenceEngine(layer.recurrence)):
        outputs, _, tape = arguments.forward(one)
        with pytest.raises(TypeError, match="op 'half' has no gradient with respect to operand 0"):
            one.backward(tape, outputs, [None])


def test_an_op_without_gradient_may_read_what_needs_none():
    """Numbers that are fixed, and integers."""
    half = ops.pointwise("half", lambda x: x / 2, (None,))
    try:
        x, h, n = Input((3,)), Input((3,)), Input((3,), dtype="int")
        own = RecurrentModel([x, n], x * half(constant(np.ones(3))) + half(ops.cast(n, "float")) * h, h, x).recurrence
        check(own, random_arguments(own))
    finally:
        del ops.REGISTRY["half"]


def test_an_op_without_gradient_lets_that_of_other_outputs_flow():
    """As the oracle does it: backward names the op only if the gradient of an output is given that depends on it."""
    half = Pointwise("half", lambda x: x / 2, (None,), "float")
    x, h = Input((3,)), Input((3,))
    new = ops.tanh(x * h)
    recurrence = RecurrentModel(x, [half(new), new], h, new).recurrence
    arguments = random_arguments(recurrence, batch=2, steps=4)
    sequences, states = arguments.sequences, arguments.states
    oracle = ReferenceEngine(recurrence)
    outputs, _, tape = oracle.forward(sequences, [], states, [])
    expected = oracle.backward(tape, [None, outputs[1]], [None])
    for checkpoint in (False, True):
        engine = rsref_fast.compile(recurrence, target="interpreter", checkpoint=checkpoint)
        _, _, tape = engine.forward(sequences, [], states, [])
        with pytest.raises(TypeError, match="op 'half' has no gradient with respect to operand 0"):
            engine.backward(tape, outputs, [None])
        found = engine.backward(tape, [None, outputs[1]], [None])
        assert_close(found.sequences[0], expected.sequences[0])
        assert_close(found.states[0], expected.states[0])
    assert "backward: not of output 0, since op 'half'" in engine.explain()


def test_an_op_without_kernel_is_refused_by_name(monkeypatch):
    class Sorted(Op):
        name = "sorted"

        def infer(self, x):
            return x

        def forward(self, x):
            return np.sort(x, axis=-1)

        def vjp(self, wrt, g, y, *operands):
            return g

    monkeypatch.setattr("rsref.ops.base.REGISTRY", dict(REGISTRY))
    x, h = Input((3,)), Input((3,))
    new = apply(register(Sorted()), x + h)
    step = RecurrentModel(x, new, h, new).recurrence
    with pytest.raises(NotImplementedError, match="op 'sorted' has no kernel: run this step with the reference engine"):
        rsref_fast.compile(step, target="interpreter").check()
