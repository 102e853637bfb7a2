"""Every activation is its published formula, applied number by number, and its gradient is the derivative."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsref import activations
from tests.covering import examples
from tests.rsref.ops.checks import check_pull_back
from tests.rsref.ops.drawn import evaluate, leaf, pull_back
from tests.rsref.ops.samples import elementwise
from tests.tolerances import assert_close


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def hard_sigmoid(x):
    return min(max(x / 6 + 0.5, 0), 1)


def elu(x, alpha=1.0):
    return x if x > 0 else alpha * (math.exp(x) - 1)


def soft_shrink(x):
    return math.copysign(max(abs(x) - 0.5, 0), x)


FORMULAS = {
    "linear": lambda x: x,
    "elu": elu,
    "selu": lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772),
    "celu": elu,
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * math.tanh(math.log(1 + math.exp(x))),
    "softsign": lambda x: x / (1 + abs(x)),
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": lambda x: x * hard_sigmoid(x),
    "hard_tanh": lambda x: min(max(x, -1), 1),
    "relu": lambda x: max(x, 0),
    "relu6": lambda x: min(max(x, 0), 6),
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "log_sigmoid": lambda x: math.log(sigmoid(x)),
    "exponential": math.exp,
    "tanh": math.tanh,
    "tanh_shrink": lambda x: x - math.tanh(x),
    "soft_shrink": soft_shrink,
    "hard_shrink": lambda x: x if abs(x) > 0.5 else 0.0,
    "sigmoid": sigmoid,
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "squareplus": lambda x: (x + math.sqrt(x * x + 4)) / 2,
    "sparse_plus": lambda x: 0 if x <= -1 else (x + 1) ** 2 / 4 if x < 1 else x,
    "sparse_sigmoid": lambda x: min(max((x + 1) / 2, 0), 1),
}
FORMULAS |= {"swish": FORMULAS["silu"], "hard_swish": FORMULAS["hard_silu"], "logsigmoid": FORMULAS["log_sigmoid"]}
OPTIONS = {
    "elu, alpha": (lambda x: activations.elu(x, 0.7), lambda x: elu(x, 0.7)),
    "celu, alpha": (lambda x: activations.celu(x, 0.7), lambda x: x if x > 0 else 0.7 * (math.exp(x / 0.7) - 1)),
    "gelu, approximate": (
        lambda x: activations.gelu(x, approximate=True),
        lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "threshold": (lambda x: activations.threshold(x, 0.3, -0.7), lambda x: x if x > 0.3 else -0.7),
    "leaky_relu, slope": (lambda x: activations.leaky_relu(x, 0.5), lambda x: x if x > 0 else 0.5 * x),
}
ROWS = {name: (activations.get(name), formula) for name, formula in FORMULAS.items()} | OPTIONS
OVER_AXES = {"softmax", "log_softmax", "sparsemax", "glu", "threshold"}
NOT_ANALYTIC = {"softsign", "hard_shrink"}


def test_every_activation_has_a_formula():
    assert set(activations.ACTIVATIONS) - OVER_AXES == set(FORMULAS) | ({"get"} & set(activations.ACTIVATIONS))


def check(function, formula, seed, method="complex"):
    x = np.random.default_rng(seed).normal(0, 2, (2, 3))
    tensor = leaf(x, (None, 3))
    drawn = function(tensor)
    expected = elementwise(formula)(x)
    assert_close(function(x), expected)
    assert_close(evaluate([drawn], {tensor: x})[drawn], expected)
    if drawn is not tensor:
        check_pull_back(drawn, {tensor: x}, method)


@pytest.mark.parametrize("name", list(ROWS))
@given(seed=st.integers(0, examples(99, 9)))
def test_value_and_gradient(name, seed):
    check(*ROWS[name], seed, "difference" if name in NOT_ANALYTIC else "complex")


def test_the_formulas_see_another_activation():
    with pytest.raises(AssertionError, match="relative error"):
        check(activations.silu, FORMULAS["mish"], 0)


@pytest.mark.parametrize(
    ("name", "slope"), [("elu", 1), ("celu", 1), ("celu, alpha", 1), ("selu", 1.0507009873554805 * 1.6732632423543772)]
)
def test_the_slope_at_0_is_that_of_the_curve_below(name, slope):
    x = np.zeros((1, 2))
    tensor = leaf(x)
    assert_close(pull_back(ROWS[name][0](tensor), np.ones((1, 2)), {tensor: x})[tensor], np.full((1, 2), slope))


def test_glu():
    x = np.random.default_rng(0).normal(size=(2, 6))
    tensor = leaf(x)
    drawn = activations.glu(tensor)
    assert_close(evaluate([drawn], {tensor: x})[drawn], x[:, :3] * elementwise(sigmoid)(x[:, 3:]))
    check_pull_back(drawn, {tensor: x})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [math.nan, math.inf, -math.inf], [-math.inf] * 3])
def test_sparsemax_of_what_is_no_number_is_none_as_softmax(bad, dtype):
    x = np.array([[*bad, *[1.0, -2.0, 3.0][len(bad) :]], [1.0, -math.inf, 1.0]], dtype)
    with np.errstate(invalid="ignore"):
        left_out = np.isnan(activations.softmax(x))
        y = activations.sparsemax(x)
    np.testing.assert_array_equal(np.isnan(y), left_out)
    np.testing.assert_array_equal(y[1], [0.5, 0.0, 0.5])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparsemax_of_great_values_sums_to_1(dtype):
    x = np.array([[1e20, 1.0, 2.0], [-1e20, -1e20, -2e20]], dtype)
    np.testing.assert_array_equal(activations.sparsemax(x), [[1, 0, 0], [0.5, 0.5, 0]])


@pytest.mark.parametrize("name", sorted(ROWS))
def test_large_values_stay_finite_and_float32(name):
    x = np.array([[-80.0, -1e-30, 0.0, 80.0]], np.float32)
    tensor = leaf(x)
    drawn = ROWS[name][0](tensor)
    value = evaluate([drawn], {tensor: x})[drawn]
    assert value.dtype == np.float32
    assert np.isfinite(value).all()


def test_get():
    assert activations.get(None) is activations.linear
    assert activations.get(math.sin) is math.sin
    with pytest.raises(ValueError, match=r"activation 'tahn' is unknown; known are .*tanh"):
        activations.get("tahn")
