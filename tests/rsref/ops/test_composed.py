"""Functions that are drawn of other ops: values as NumPy's own, of arrays and in a step, and gradients."""

import numpy as np
import pytest

from rsref import Input, activations, ops
from rsref.engine import ReferenceEngine
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.testing import Arguments, check_gradients
from tests.tolerances import assert_close

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1.5, (2, 4, 5))
Y = RNG.normal(0, 1.5, (2, 4, 5))
UNIT = RNG.uniform(-0.9, 0.9, (2, 4, 5))
HOLES = np.where(RNG.random((2, 4, 5)) < 0.3, np.nan, X)
SQUARE = RNG.standard_normal((2, 5, 5))
WHOLE = RNG.integers(-9, 9, (2, 4, 5))
PLACES = RNG.integers(0, 4, (2, 3, 5))

PERMUTED = [1, 2, 0, 4, 3]

SMOOTH = {
    "remainder": (lambda np, x, y: np.remainder(x, y) + x % 3 + 3 % y, X, Y),
    "fmod": (lambda np, x, y: np.fmod(x, y), X, Y),
    "powers and logarithms": (lambda np, x: np.log2(np.exp2(x) + 1) + np.log10(x * x + 1), X),
    "logaddexp": (lambda np, x, y: np.logaddexp(x, y) + np.logaddexp2(x, y), X, Y),
    "hypot": (lambda np, x, y: np.hypot(x, y), X, Y),
    "cbrt": (lambda np, x: np.cbrt(x), X),
    "sinc": (lambda np, x: np.sinc(x), X),
    "arcs": (lambda np, x: np.arcsin(x) + np.arccos(x) + np.arctanh(x) + np.arccosh(2 + x) + np.arcsinh(x), UNIT),
    "degrees": (lambda np, x: np.deg2rad(x) + np.rad2deg(x), X),
    "extremes but for NaN": (lambda np, x, y: np.fmax(x, y) - np.fmin(y, x), X, Y),
    "select": (lambda np, x, y: np.select([x > 1, y > 0], [x * y, y * y], default=2.5), X, Y),
    "numbers": (lambda np, x: x * np.nan_to_num(x) + np.zeros_like(x) + x * np.ones_like(x) + np.full_like(x, 2), X),
    "roll": (lambda np, x: x * np.roll(x, 2, axis=-1) + np.roll(x, (1, -3), axis=(1, 2)), X),
    "diff": (lambda np, x: np.diff(x, axis=1)[:, 1:] * np.diff(x, n=2, axis=1), X),
    "triangles": (lambda np, x: np.tril(x, 1) * np.triu(x, -1), SQUARE),
    "diagonal": (lambda np, x: np.diagonal(x, 1, axis1=1, axis2=2), SQUARE),
    "trace": (lambda np, x: np.trace(x, axis1=1, axis2=2), SQUARE),
    "append": (lambda np, x, y: np.append(x, y, axis=2), X, Y),
    "side by side": (lambda np, x, y: np.hstack([x, y]), X, Y),
    "along": (lambda np, x: x[:, :3] * np.take_along_axis(x, PLACES, axis=1), X),
    "sort": (lambda np, x: x * np.sort(x, axis=1), X),
    "median": (lambda np, x: np.median(x, axis=2) + np.median(x, axis=(1, 2), keepdims=True)[:, 0], X),
    "quantiles": (lambda np, x: x[:, 0] * np.quantile(x, 0.3, axis=1) + np.percentile(x, 77, axis=1), X),
    "a quantile over axes": (lambda np, x: x * np.quantile(x, 0.45, axis=(1, 2), keepdims=True), X),
    "quantiles between": (
        lambda np, x: (
            np.quantile(x, 0.3, axis=1, method="lower")
            - np.quantile(x, 0.3, axis=1, method="higher")
            + np.percentile(x, 60, axis=1, method="midpoint") * np.quantile(x, 1.0, axis=1) * np.quantile(x, 0, axis=1)
        ),
        X,
    ),
    "products": (lambda np, x: np.prod(x, axis=1) + np.cumprod(x, axis=1)[:, -1], X),
    "range": (lambda np, x: np.ptp(x, axis=-1) + np.average(x, axis=-1), X),
    "average": (lambda np, x: np.average(x, axis=1, weights=np.arange(1.0, 5.0)), X),
    "solve": (lambda np, x, y: np.linalg.solve(x, y), SQUARE, RNG.standard_normal((2, 5, 3))),
    "solve for one vector": (lambda np, x: np.linalg.solve(x, np.arange(5.0)), SQUARE),
    "inv": (lambda np, x: np.linalg.inv(x), SQUARE),
    "det": (lambda np, x: np.linalg.det(x), SQUARE),
    "det of rows that change places": (lambda np, x: np.linalg.det(x[:, PERMUTED]), SQUARE),
    "cholesky": (lambda np, x: np.linalg.cholesky(x), SQUARE @ SQUARE.swapaxes(1, 2) + np.eye(5)),
    "norms": (lambda np, x: np.linalg.norm(x, axis=-1) + np.linalg.norm(x, 3, axis=-1) + np.linalg.norm(x, axis=2), X),
}
PLAIN = {
    "rounded": (lambda np, x: np.trunc(x), X),
    "whole remainders": (lambda np, x: np.remainder(x, 4) + np.fmod(x, 4), WHOLE),
    "tests": (lambda np, x: np.isinf(1 / np.trunc(x)) | np.isposinf(x) | np.isneginf(x), X),
    "near": (lambda np, x: np.isclose(x, x + 1e-6 * np.sign(x - 0.5)), X),
    "far away": (lambda np, x: np.arcsinh(x * 1e200) + np.arccosh(1e200 + abs(x)) + np.exp2(np.round(x)), X),
    "exact remainders": (lambda np, x: np.remainder(np.trunc(x * 9) * 0.3, 0.3) + np.remainder(abs(x), np.inf), X),
    "other bools": (lambda np, x: np.diff(x > 0, axis=-1), X),
    "no numbers": (lambda np, x: np.any(x[:, :0], axis=1) | np.all(x[:, :0], axis=1), X),
    "a product of none": (lambda np, x: np.prod(x[:, :0], axis=1) * np.prod(x[:, :0], axis=(1, 2))[:, None], X),
    "heaviside": (lambda np, x: np.heaviside(np.trunc(x), 0.5), X),
    "places in order": (lambda np, x: np.argsort(x, axis=-1), X),
    "a row of quantiles": (lambda np, x: np.moveaxis(np.quantile(x, [0.0, 0.1, 0.5, 1.0], axis=2), 0, -1), X),
    "quantiles with NaN": (lambda np, x: np.nan_to_num(np.quantile(x, 0.7, axis=1), nan=9.0), HOLES),
    "any and all": (lambda np, x: np.any(x > 2, axis=-1) | np.all(x < 2, axis=-1), X),
    "how many": (lambda np, x: np.count_nonzero(x, axis=-1), WHOLE),
    "sums but for NaN": (
        lambda np, x: np.nansum(x, axis=1) + np.nanprod(x, axis=1) + np.nancumsum(x, axis=1)[:, -1],
        HOLES,
    ),
    "moments but for NaN": (lambda np, x: np.nanmean(x, axis=1) + np.nanvar(x, axis=1) + np.nanstd(x, axis=1), HOLES),
    "range but for NaN": (lambda np, x: np.nanmax(x, axis=1) - np.nanmin(x, axis=1), HOLES),
}


@pytest.mark.parametrize(
    ("formula", "values"),
    [
        (lambda x: np.nan_to_num(x, True, 2.0) + np.nan_to_num(x, copy=False, nan=1.0), HOLES),
        (lambda x: np.linalg.trace(x) + np.linalg.diagonal(x, offset=1)[..., 0], SQUARE),
    ],
)
def test_functions_of_numpy_that_have_other_arguments(formula, values):
    x = Input(values.shape[1:])
    engine = ReferenceEngine(Recurrence(StepGraph(sequences=[x], outputs=[formula(x)])))
    assert_close(engine.forward([values[:, None].copy()], [], [], [])[0][0][:, 0], formula(values.copy()))


def test_arrays_keep_their_precision():
    x = HOLES.astype(np.float32)
    for name in ("nanmean", "nanvar", "nanstd", "nanmax", "median"):
        found, expected = (getattr(library, name)(x, axis=1) for library in (ops, np))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert ops.norm(x, axis=1).dtype == np.float32
    assert ops.median(WHOLE, axis=1).dtype == np.float64


@pytest.mark.parametrize("matrix", [[[0.0, 2.0], [0.0, 3.0]], [[0.0, 1.0, 2.0], [0.0, 3.0, 5.0], [0.0, 1.0, 4.0]]])
def test_the_gradient_of_a_singular_determinant_is_not_finite(matrix):
    x = Input(np.shape(matrix))
    engine = ReferenceEngine(Recurrence(StepGraph(sequences=[x], outputs=[ops.det(x)])))
    with np.errstate(all="ignore"):
        (y,), _, tape = engine.forward([np.array([[matrix]])], [], [], [])
        (d,) = engine.backward(tape, [np.ones((1, 1))], []).sequences
    assert y == 0
    assert not np.isfinite(d).all()


class Ours:
    """The functions of rsref under NumPy's names, for arrays."""

    linalg = ops
    newaxis, nan, inf = np.newaxis, np.nan, np.inf

    def __getattr__(self, name):
        return getattr(ops, name, None) or getattr(np, name)


def drawn(name):
    formula, *arrays = {**SMOOTH, **PLAIN}[name]
    leaves = [Input(a.shape[1:], dtype="int" if a.dtype.kind == "i" else "float") for a in arrays]
    recurrence = Recurrence(StepGraph(sequences=leaves, outputs=[formula(np, *leaves)]))
    return recurrence, Arguments([a[:, None] for a in arrays], [], [], [])


@pytest.mark.parametrize("name", [*SMOOTH, *PLAIN])
def test_values_are_those_of_numpy(name):
    """Functions of NumPy called on what is drawn; and our own on arrays."""
    recurrence, arguments = drawn(name)
    formula, *arrays = {**SMOOTH, **PLAIN}[name]
    with np.errstate(all="ignore"):
        expected = np.asarray(formula(np, *arrays))
        (found,), _, _ = arguments.forward(ReferenceEngine(recurrence))
        own = formula(Ours(), *arrays)
    for answer in (found[:, 0], own):
        assert answer.dtype.kind == expected.dtype.kind
        assert_close(answer.astype(float), expected.astype(float))


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients(name):
    recurrence, arguments = drawn(name)
    check_gradients(recurrence, arguments)


@pytest.mark.parametrize("n", [1, 2, 9, 32])
def test_systems_of_equations_of_all_sizes(n):
    """As near as LAPACK's answers: of vectors, with pivots that are 0 at first, and singular matrices."""
    a = np.random.default_rng(n).standard_normal((20, n, n))
    a[:10, 0, 0] = 0 if n > 1 else 2
    b = np.random.default_rng(1).standard_normal((20, n))
    bound = 1e-13 * np.linalg.cond(a)
    for found, expected in (
        (ops.solve(a, b), np.linalg.solve(a, b[..., None])[..., 0]),
        (ops.inv(a), np.linalg.inv(a)),
        (ops.det(a)[:, None], np.linalg.det(a)[:, None]),
    ):
        axes = tuple(range(1, expected.ndim))
        assert (np.abs(found - expected).max(axes) <= bound * np.abs(expected).max(axes)).all()
    positive = a @ a.swapaxes(1, 2) + np.eye(n)
    assert_close(ops.cholesky(positive), np.linalg.cholesky(positive))
    assert_close(ops.cholesky(positive, upper=True), np.linalg.cholesky(positive).swapaxes(1, 2))
    with np.errstate(all="ignore"):
        assert not np.isfinite(ops.solve(np.zeros((n, n)), np.ones(n))).any()
        assert ops.det(np.zeros((1, n, n))) == 0
        assert np.isnan(ops.cholesky(-np.eye(n))[0, 0])


def test_activations_are_ops_too():
    assert_close(ops.gelu(X) + ops.silu(X), activations.gelu(X) + activations.silu(X))
    assert ops.elu(Input((3,))).shape == (None, 3)
    with pytest.raises(AttributeError, match="no attribute 'glue'"):
        _ = ops.glue


def test_what_is_not_known_or_there_is_named():
    x, places = Input((None,)), Input((2,), dtype="int")
    for draw in (lambda: ops.roll(x, 1, -1), lambda: ops.sort(x), lambda: ops.tril(ops.expand_dims(x, -1))):
        with pytest.raises(ValueError, match="lengths must be known here"):
            draw()
    with pytest.raises(ValueError, match="up to 1024 of them; got 1025"):
        ops.sort(np.zeros(1025))
    with pytest.raises(ValueError, match="no 4 greatest of 3 numbers"):
        ops.top_k(np.zeros((2, 3)), 4)
    with pytest.raises(TypeError, match=r"numpy\.linalg\.qr cannot be drawn"):
        np.linalg.qr(Input((3, 3)))
    for draw in (ops.inv, ops.det, ops.cholesky, lambda a: ops.solve(a, a)):
        for shape in ((3, 4), (33, 33), (0, 0), ()):
            with pytest.raises(ValueError, match=r"matrices must be square, of 1 to 32 rows"):
                draw(Input(shape))
    with pytest.raises(ValueError, match=r"b must have shape \(..., 5\) or \(..., 5, m\)"):
        ops.solve(SQUARE, SQUARE[:, :4])
    with pytest.raises(TypeError, match=r"numpy\.linalg\.solve of b \(5, 5\).* call rsref.ops.solve"):
        np.linalg.solve(Input((5, 5)), np.eye(5))
    for weights, axis in ((np.ones(5), None), (np.ones((2, 1, 5)), 1), (np.ones(1), 1), (np.ones(3), 1)):
        with pytest.raises(ValueError, match="average: weights must have x's shape"):
            ops.average(X, axis, weights)
    for draw in (
        lambda: ops.prod(X, 5), lambda: ops.nanprod(X, -7), lambda: ops.median(X, 5), lambda: ops.roll(X, 1, 5),
        lambda: ops.diagonal(X, 0, 1, 5), lambda: ops.trace(X, 0, 1, 5), lambda: ops.take_along_axis(X, PLACES, 5),
        lambda: ops.diff(X, axis=3),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"axis -?\d is out of range for a tensor of rank 3"):
            draw()
    for q in (1.1, -0.1, np.nan, [[0.5]], []):
        with pytest.raises(ValueError, match="quantile: q is a part of all numbers"):
            ops.quantile(X, q)
    with pytest.raises(ValueError, match="the method is one of linear, lower, higher, midpoint; got 'nearest'"):
        ops.quantile(X, 0.5, method="nearest")
    with pytest.raises(TypeError, match="q is known when the step is drawn"):
        ops.quantile(Input((5,)), Input(()))
    with pytest.raises(ValueError, match="names an axis twice"):
        ops.prod(X, (1, 1))
    for parts in (3, np.int64(3)):
        for one, other in zip(ops.array_split(X, parts, -1), np.array_split(X, parts, -1), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="array_split: there must be at least one part; got 0"):
        ops.array_split(X, 0)
    with pytest.raises(ValueError, match="there are no -1 greatest of 5 numbers"):
        ops.top_k(X, -1)
    with pytest.raises(ValueError, match=r"tile: numbers of repeats must be positive; got \(1, 0, 2\)"):
        ops.tile(X, (1, 0, 2))
    for shift in (3, -2, (1, 2)):
        np.testing.assert_array_equal(ops.roll(X, shift), np.roll(X, shift))
    with pytest.raises(ValueError, match="n must not be negative"):
        ops.diff(X, -1)
    with pytest.raises(ValueError, match="the norm of order 2 over 2 axes"):
        np.linalg.norm(Input((3, 3)), 2, axis=(1, 2))
    table = np.array([[1.0, 2.0, 3.0]])
    recurrence = Recurrence(
        StepGraph(sequences=[places], outputs=[ops.take_along_axis(table + 0.0 * places[:, :1], places, 1)])
    )
    with pytest.raises(IndexError, match="7"):
        ReferenceEngine(recurrence).forward([np.array([[[0, 7]]])], [], [], [])
