"""The functions of rsref.ops under NumPy's names: on arrays, drawn, and pulled back, they are NumPy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsref import Input, RecurrentModel, initializers, layers, ops
from rsref.ops.base import compatible
from rsref.tensor import constant
from tests.rsref.ops.checks import check_pull_back
from tests.rsref.ops.drawn import evaluate, leaf
from tests.tolerances import assert_close

# Each row: the shapes of the operands, and an expression in a module m, which is NumPy or rsref.ops.
AS_NUMPY = {
    "dot of vectors": ([(3,), (3,)], lambda m, a, b: m.dot(a, b)),
    "dot with a vector": ([(2, 3), (3,)], lambda m, a, b: m.dot(a, b)),
    "dot of matrices": ([(2, 3), (3, 4)], lambda m, a, b: m.dot(a, b)),
    "dot of ranks 3 and 2": ([(2, 4, 3), (3, 4)], lambda m, a, b: m.dot(a, b)),
    "dot of ranks 2 and 3": ([(2, 3), (4, 3, 2)], lambda m, a, b: m.dot(a, b)),
    "dot with a number": ([(2, 3), ()], lambda m, a, b: m.dot(a, b)),
    "tensordot over one axis": ([(2, 3), (3, 2)], lambda m, a, b: m.tensordot(a, b, 1)),
    "tensordot over two axes": ([(2, 3, 4), (3, 4, 2)], lambda m, a, b: m.tensordot(a, b)),
    "tensordot over pairs": ([(2, 3, 4), (4, 2, 3)], lambda m, a, b: m.tensordot(a, b, ((0, 2), (1, 0)))),
    "tensordot over one pair": ([(2, 3), (4, 3)], lambda m, a, b: m.tensordot(a, b, (-1, 1))),
    "outer product": ([(2,), (3,)], lambda m, a, b: m.tensordot(a, b, 0)),
    "matmul of vectors": ([(3,), (3,)], lambda m, a, b: m.matmul(a, b)),
    "matmul with a row": ([(3,), (2, 3, 4)], lambda m, a, b: m.matmul(a, b)),
    "matmul with a column": ([(2, 4, 3), (3,)], lambda m, a, b: m.matmul(a, b)),
    "@": ([(2, 3), (3, 2)], lambda m, a, b: a @ b + np.ones((2, 3)) @ b),
    "einsum without a result": ([(2, 3), (3, 4)], lambda m, a, b: m.einsum("ij,jk", a, b)),
    "einsum with dots": ([(2, 3, 4), (4, 2)], lambda m, a, b: m.einsum("...i,ij->...j", a, b)),
    "einsum with dots of two ranks": ([(2, 3, 4), (3, 4)], lambda m, a, b: m.einsum("...i,...i->...", a, b)),
    "einsum of one": ([(2, 3, 4)], lambda m, a: m.einsum("b i j -> j b", a)),
    "stack": ([(2, 3), (2, 3)], lambda m, a, b: m.stack([a, b], axis=1)),
    "stack at the end": ([(2, 3), (2, 3)], lambda m, a, b: m.stack([a, b], axis=-1)),
    "concatenate": ([(2, 3), (2, 1)], lambda m, a, b: m.concatenate([a, b, a], axis=1)),
    "concatenate, no axis named": ([(2, 3)], lambda m, a: m.concatenate([a, 2 * a])),
    "repeat": ([(2, 3)], lambda m, a: m.repeat(a, 2, axis=1)),
    "tile": ([(2, 3)], lambda m, a: m.tile(a, (1, 3))),
    "split": ([(2, 6)], lambda m, a: m.split(a, 3, axis=1)[1] * m.split(a, 3, axis=1)[2]),
    "split at places": ([(2, 6)], lambda m, a: m.split(a, [1, 4], axis=1)[1]),
    "transpose": ([(2, 3)], lambda m, a: m.transpose(a)),
    "transpose with axes": ([(2, 3, 4)], lambda m, a: m.transpose(a, (0, 2, 1))),
    "swapaxes": ([(2, 3, 4)], lambda m, a: m.swapaxes(a, 0, -1)),
    "moveaxis": ([(2, 3, 4)], lambda m, a: m.moveaxis(a, 1, -1)),
    "flip": ([(2, 3)], lambda m, a: m.flip(a, 1)),
    "squeeze": ([(2, 1, 3)], lambda m, a: m.squeeze(a, 1)),
    "expand_dims": ([(2, 3)], lambda m, a: m.expand_dims(a, (1, -1))),
    "broadcast_to": ([(2, 1)], lambda m, a: m.broadcast_to(a, (2, 3))),
    "reshape": ([(2, 6)], lambda m, a: m.reshape(a, (-1, 2, 3))),
    "pad with a number": ([(2, 3)], lambda m, a: m.pad(a, 1)),
    "pad with pairs": ([(2, 3)], lambda m, a: m.pad(a, ((0, 0), (2, 1)), constant_values=0.5)),
    "cumsum": ([(2, 3)], lambda m, a: m.cumsum(a, 1)),
    "take": ([(2, 3)], lambda m, a: m.take(a, [2, 0, -1, 2], 1)),
    "argmax": ([(2, 3)], lambda m, a: a * m.argmax(a, axis=1, keepdims=True)),
    "argmin": ([(2, 3)], lambda m, a: a[:, 0] * m.argmin(a, axis=-1)),
    "take of all": ([(2, 3)], lambda m, a: m.take(a, [[4, 0], [-1, 4]])),
    "argmax of all": ([(2, 3)], lambda m, a: a * m.argmax(a) + m.argmax(a, keepdims=True)),
    "argmin of all": ([(2, 3)], lambda m, a: a * m.argmin(a)),
    "sum of all": ([(2, 3)], lambda m, a: m.sum(a)),
    "sum, axes kept": ([(2, 3, 4)], lambda m, a: m.sum(a, (0, 2), keepdims=True)),
    "max": ([(2, 3)], lambda m, a: m.max(a, -1)),
    "amax and amin": ([(2, 3)], lambda m, a: m.amax(a, 1) - m.amin(a, axis=1)),
    "mean": ([(2, 3)], lambda m, a: m.mean(a, 1)),
    "mean of all": ([(2, 3)], lambda m, a: m.mean(a)),
    "var": ([(2, 3, 4)], lambda m, a: m.var(a, (1, 2))),
    "std": ([(2, 3)], lambda m, a: m.std(a, axis=1, keepdims=True)),
    "where": ([(2, 3), (3,)], lambda m, a, b: m.where(a > b, a, 2 * b)),
    "clip": ([(2, 3)], lambda m, a: m.clip(a, -0.5, 0.5)),
    "rint": ([(2, 3)], lambda m, a: m.rint(a) + a),
    "true_divide": ([(2, 3), (2, 3)], lambda m, a, b: m.true_divide(a, 2 + b * b)),
    "exponents of its own": ([(2, 3)], lambda m, a: m.power(a, 2) + m.power(a, 1) + m.power(a * a + 1, -0.5)),
    "operator **": ([(2, 3)], lambda m, a: a**3 + (a * a + 1) ** 0.5 + (a * a + 1) ** -1 + 2**a),
    "reflected operators": ([(2, 3)], lambda m, a: 1 + 2 * (1 - a) / (3 + a * a) - 2 / (4 + a * a) - (-a)),
    "reflected by arrays": ([(2, 3)], lambda m, a: np.ones(3) - np.arange(3.0) * a / (np.ones((2, 1)) * 2)),
    "comparisons": ([(2, 3)], lambda m, a: a * ((a < 0.3) & (a >= -0.3)) + a * ~(a <= 0) + 2 * a * ((a > 1) | (a < 0))),
    "^ and reflected signs": (
        [(2, 3)],
        lambda m, a: a * ((a < 0.3) ^ (a < 0)) + a * (True & (a < 0)) + (False | (a > 1)),
    ),
    "!=": ([(2, 3)], lambda m, a: a * (a != a[:, ::-1]) + a * (a != 0.5) + a * (np.zeros(3) != a)),
    "abs": ([(2, 3)], lambda m, a: abs(a + 5)),
    "item": ([(2, 3, 4)], lambda m, a: a[1]),
    "items": ([(2, 3, 4)], lambda m, a: a[0, -1, 2]),
    "last item": ([(2, 3, 4)], lambda m, a: a[:, -1]),
    "slice": ([(2, 3, 4)], lambda m, a: a[:, 1:, :-1]),
    "slice backwards": ([(2, 3, 4)], lambda m, a: a[:, ::-1, 3:0:-2]),
    "dots": ([(2, 3, 4)], lambda m, a: a[..., 1:3]),
    "dots between": ([(2, 3, 4)], lambda m, a: a[0, ..., 1]),
    "new axes": ([(2, 3)], lambda m, a: a[:, None, :, None]),
    "new axes and items": ([(2, 3, 4)], lambda m, a: a[None, 1, ..., None, 0]),
    "list": ([(2, 3, 4)], lambda m, a: a[:, [2, 0]]),
    "array and slice": ([(2, 3, 4)], lambda m, a: a[:, 1:, np.array([[0, 1], [3, -1]])]),
    "empty slice": ([(2, 3)], lambda m, a: a[:, 3:]),
    "numpy integer": ([(2, 3)], lambda m, a: a[:, np.int64(1)]),
}
# Functions of rsref.ops that NumPy does not have, each with an expression that says what it is.
OTHERS = {
    "unstack": ([(2, 3)], lambda a: ops.unstack(a, axis=1)[2], lambda a: a[:, 2]),
    "squeeze of all": ([(2, 1, 1)], lambda a: ops.squeeze(a), lambda a: a[:, 0, 0]),
    "broadcast_to keeps": ([(2, 1)], lambda a: ops.broadcast_to(a, (None, 3)), lambda a: a + np.zeros(3)),
    "reshape keeps": ([(2, 3)], lambda a: ops.reshape(a, (None, 3, 1)), lambda a: a[:, :, None]),
    "reshape of no rows": ([(0, 6)], lambda a: ops.reshape(a, (None, -1, 2)), lambda a: np.zeros((0, 3, 2))),
    "softmax of nothing": ([(2, 0)], ops.softmax, lambda a: a),
    "log_softmax of nothing": ([(2, 0)], ops.log_softmax, lambda a: a),
    "softmax": ([(2, 3)], ops.softmax, lambda a: np.exp(a) / np.exp(a).sum(1, keepdims=True)),
    "log_softmax": ([(2, 3)], lambda a: ops.log_softmax(a, 0), lambda a: a - np.log(np.exp(a).sum(0))),
    "logsumexp": ([(2, 3)], lambda a: ops.logsumexp(a, (0, 1)), lambda a: np.log(np.exp(a).sum())),
    "layer_normalization": (
        [(2, 3), (3,), (3,)],
        lambda a, gamma, beta: ops.layer_normalization(a, gamma, beta, epsilon=0.1),
        lambda a, gamma, beta: (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 0.1) * gamma + beta,
    ),
    "rms_normalization": (
        [(2, 3), (3,)],
        lambda a, scale: ops.rms_normalization(a, scale, epsilon=0.1),
        lambda a, scale: a / np.sqrt((a**2).mean(1, keepdims=True) + 0.1) * scale,
    ),
    "normalized, no epsilon given": (
        [(2, 3)],
        lambda a: ops.layer_normalization(1e-3 * a) + ops.rms_normalization(1e-3 * a),
        lambda a: (
            (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 0.1)
            + a / np.sqrt((a**2).mean(1, keepdims=True) + 0.1)
        ),
    ),
    "embedding": ([(4, 2)], lambda a: ops.embedding(np.array([[3, 0, 3]]), a), lambda a: a[[[3, 0, 3]]]),
    "one_hot": ([(2, 3)], lambda a: ops.one_hot(np.array([2, 7]), 3) * a, lambda a: [[0, 0, 1], [0, 0, 0]] * a),
    "stop_gradient of a factor's sign": ([(2, 3)], lambda a: a * ops.sign(ops.stop_gradient(a) + 9), lambda a: a),
    "cast": ([(2, 3)], lambda a: a + ops.cast(a > 0, "float"), lambda a: a + (a > 0)),
    "dtypes as Keras names them": (
        [(2, 3)],
        lambda a: ops.one_hot(ops.cast(a[:, 0] > 0, "int32"), 3, dtype="float64") * ops.tanh(ops.cast(a, "float64")),
        lambda a: np.eye(3)[(a[:, 0] > 0).astype(int)] * np.tanh(a),
    ),
}
ROWS = {name: (s, lambda *xs, f=f: f(ops, *xs), lambda *xs, f=f: f(np, *xs)) for name, (s, f) in AS_NUMPY.items()}
ROWS.update(OTHERS)
NOT_ANALYTIC = {"abs", "stop_gradient of a factor's sign"}

every_row = pytest.mark.parametrize("name", list(ROWS))


def operands_of(name, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in ROWS[name][0]]


@every_row
def test_on_arrays(name):
    operands = operands_of(name)
    assert_close(ROWS[name][1](*operands), ROWS[name][2](*operands))


@every_row
@given(seed=st.integers(0, 9))
def test_drawn(name, seed):
    operands = operands_of(name, seed)
    leaves = [leaf(a) for a in operands]
    drawn = ROWS[name][1](*leaves)
    feed = dict(zip(leaves, operands))
    expected = np.asarray(ROWS[name][2](*operands))
    assert drawn.shape == expected.shape
    assert_close(evaluate([drawn], feed)[drawn], expected)
    check_pull_back(drawn, feed, "difference" if name in NOT_ANALYTIC else "complex")


@pytest.mark.parametrize("name", [name for name, (s, f) in AS_NUMPY.items() if len(s) == 1 and len(s[0]) > 1])
def test_numpy_functions_draw_tensors(name):
    (a,) = operands_of(name)
    x = leaf(a)
    drawn = AS_NUMPY[name][1](np, x)
    assert_close(evaluate([drawn], {x: a})[drawn], AS_NUMPY[name][1](np, a))


UNKNOWN = sorted(set(ROWS) - {"broadcast_to", "item", "reflected by arrays", "dot with a number"})


@pytest.mark.parametrize("name", UNKNOWN)
def test_drawn_with_an_unknown_batch(name):
    operands = operands_of(name)
    leaves = [leaf(a, (None, *a.shape[1:]) if a.ndim > 1 else a.shape) for a in operands]
    drawn = ROWS[name][1](*leaves)
    expected = np.asarray(ROWS[name][2](*operands))
    assert compatible(drawn.shape, expected.shape)
    assert_close(evaluate([drawn], dict(zip(leaves, operands)))[drawn], expected)


OF_FLOATS = {
    **{name: getattr(ops, name) for name in ("mean", "var", "std", "logsumexp", "softmax", "log_softmax", "sparsemax")},
    **{name: getattr(ops, name) for name in ("standardize", "layer_normalization", "rms_normalization")},
    "matmul": lambda x: x @ ops.transpose(x),
    "matmul with an array": lambda x: np.ones((2, 2), int) @ x,
}


@pytest.mark.parametrize("name", OF_FLOATS)
def test_means_and_products_of_integers_have_the_precision_of_the_floats(name):
    values = np.array([[1, 2, 4], [0, -3, 2]])
    x = leaf(values)
    drawn = OF_FLOATS[name](x)
    assert drawn.dtype == "float"
    found = evaluate([drawn], {x: values})[drawn]
    assert found.dtype == np.float32
    assert_close(found, OF_FLOATS[name](values.astype(float)), "float32")


def test_extremes_of_bools_are_bools_which_count_as_integers():
    values = np.array([[True, False], [True, True], [False, False]])
    b = leaf(values)
    drawn = [ops.max(b, 1), ops.min(b, 1), ops.max(b, 1) + ops.min(b, 1), -ops.max(b, 0)]
    assert [t.dtype for t in drawn] == ["bool", "bool", "int", "int"]
    found = evaluate(drawn, {b: values})
    for tensor, expected in zip(drawn, [[True, True, False], [False, True, False], [1, 2, 0], [-1, -1]]):
        np.testing.assert_array_equal(found[tensor], expected)


def test_what_is_written_into_an_array_later_changes_nothing_drawn():
    a, x = np.ones(3), leaf(np.ones((2, 3)))
    drawn, start = x * a, initializers.get(a)
    a[:] = 0
    assert_close(evaluate([drawn], {x: np.ones((2, 3))})[drawn], np.ones((2, 3)))
    assert_close(start((3,)), np.ones(3))


def test_layers_that_merge_put_missing_axes_after_the_batch_as_keras_does():
    a, b = np.random.default_rng(0).normal(size=(2, 2, 3)), np.array([[1.0, 2, 3], [4, 5, 6]])
    x, y, fixed = leaf(a, (None, 2, 3)), leaf(b, (None, 3)), constant(np.arange(3.0))
    known, narrow, wide = leaf(a), leaf(b), b[:, None]
    expected = {
        layers.multiply([x, y]): a * wide,
        layers.subtract([y, x]): wide - a,
        layers.average([x, y, fixed]): (a + wide + np.arange(3.0)) / 3,  # no batch axis: as NumPy does it
        layers.maximum([narrow, known]): np.maximum(a, wide),
    }
    found = evaluate(list(expected), {x: a, known: a, y: b, narrow: b})
    for drawn, value in expected.items():
        assert_close(found[drawn], value)


@pytest.mark.parametrize("dtype", ["int", "float"])
def test_floor_division(dtype):
    x = Input((4,), dtype=dtype)
    values = np.array([-3, -1, 2, 5], dtype)[None, None]
    np.testing.assert_array_equal(RecurrentModel(x, x // 2 + 7 // x)(values), (values // 2 + 7 // values)[:, 0])
