"""The checks of the ops can fail: each deliberate mistake turns the very check red that must find it."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rsref import ops
from rsref.tensor import Spec
from tests.rsref.ops import checks
from tests.rsref.ops.drawn import leaf
from tests.rsref.ops.samples import Sample
from tests.rsref.ops.test_every_op import CASES, OPS

# Ops whose gradient is zero or absent have nothing to get wrong.
WITH_GRADIENT = sorted(
    name for name, op in OPS.items() if 0 not in op.constant_operands and name not in ("cast", "one_hot")
)


class Mutant:
    """An op with one method replaced, and a name of its own."""

    def __init__(self, op, **methods):
        self.op, self.methods, self.name = op, methods, f"mutant of {op.name}"

    def __getattr__(self, name):
        return self.methods.get(name) or getattr(self.op, name)


def turns_red(check, mutant, name, *rest):
    """Assert that a check of some sample fails for the mutant: the search ends at the first."""

    @settings(max_examples=20, database=None, phases=[Phase.generate], derandomize=True)
    @given(data=st.data())
    def search(data):
        check(mutant, CASES[name], data.draw(CASES[name].draw), *rest)

    with pytest.raises(AssertionError):
        search()


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_a_flipped_sign_of_any_gradient_is_found(name):
    op = OPS[name]
    mutant = Mutant(op, vjp=lambda *a, **attrs: -np.asarray(op.vjp(*a, **attrs)))
    turns_red(checks.check_gradient, mutant, name)


@pytest.mark.parametrize("name", sorted(OPS))
def test_a_wrong_value_of_any_op_is_found(name):
    op = OPS[name]

    def forward(*operands, **attrs):
        y = np.asarray(op.forward(*operands, **attrs))
        return ~y if y.dtype == bool else y + 1

    turns_red(checks.check_forward, Mutant(op, forward=forward), name)


@pytest.mark.parametrize("name", ["matmul", "softmax", "add", "take", "sum"])
def test_a_wrong_shape_rule_is_found(name):
    op = OPS[name]

    def infer(*operands, **attrs):
        spec = op.infer(*operands, **attrs)
        return Spec((*spec.shape, 1), spec.dtype)

    turns_red(lambda *a: checks.check_inference(*a, iter([False] * 24)), Mutant(op, infer=infer), name)


def test_a_wrong_dtype_rule_is_found():
    mutant = Mutant(OPS["less"], infer=lambda *a: OPS["add"].infer(*a))
    turns_red(lambda *a: checks.check_inference(*a, iter([False] * 24)), mutant, "less")


def test_a_transposed_operand_in_the_gradient_is_found():
    op = OPS["matmul"]

    def vjp(wrt, g, y, a, b):
        return op.vjp(wrt, g, y, a, np.swapaxes(b, -1, -2) if b.shape[-1] == b.shape[-2] else b)

    turns_red(checks.check_gradient, Mutant(op, vjp=vjp), "matmul")


def test_a_gradient_that_is_not_summed_over_broadcast_axes_is_found():
    mutant = Mutant(OPS["add"], vjp=lambda wrt, g, y, *operands: g)
    turns_red(checks.check_gradient, mutant, "add")


def test_a_gradient_that_draws_something_else_is_found():
    op = OPS["maximum"]

    def vjp(wrt, g, y, a, b):
        return op.vjp(wrt, g, y, a, b) if isinstance(g, np.ndarray) else g * (a > b)

    turns_red(checks.check_drawn_gradient, Mutant(op, vjp=vjp), "maximum")


def test_a_wrong_second_order_is_found():
    op = OPS["square"]

    def vjp(wrt, g, y, x):  # right on arrays, but the factor x is drawn as if it were fixed
        return g * 2 * ops.stop_gradient(x)

    sample = Sample((np.array([0.4, -1.2]),))
    checks.check_gradient(Mutant(op, vjp=vjp), CASES["square"], sample)
    with pytest.raises(AssertionError):
        checks.check_second_order(Mutant(op, vjp=vjp), CASES["square"], sample)


def test_float64_in_float32_is_found():
    op = OPS["tanh"]
    turns_red(checks.check_float32, Mutant(op, forward=lambda x: np.float64(op.forward(x))), "tanh")
    turns_red(checks.check_float32, Mutant(op, vjp=lambda *a: np.float64(op.vjp(*a))), "tanh")


def test_a_wrong_gradient_of_a_composition_is_found(monkeypatch):
    x = leaf(np.array([0.4, -1.2]))
    drawn = ops.tanh(x) * x
    monkeypatch.setattr(OPS["tanh"], "derivatives", (lambda g, y: g * (1 + y * y),))
    with pytest.raises(AssertionError):
        checks.check_pull_back(drawn, {x: np.array([0.4, -1.2])})
