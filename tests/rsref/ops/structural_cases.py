"""One row for each op that is not pointwise: how it is sampled, and plain NumPy or a loop that says what it is."""

import math

import numpy as np
from hypothesis import strategies as st

from tests.rsref.ops.samples import Case, Sample, filled, shapes

EQUATIONS = (
    "ab,bc->ac",
    "ab,cb->ca",
    "bij,bj->bi",
    "a,b->ab",
    "ab,ab->a",
    "ab->ba",
    "abc->b",
    "ab,bc,cd->ad",
    "a,ab->b",
)


def some_axes(draw, ndim, min_size=0):
    return tuple(sorted(draw(st.sets(st.integers(0, ndim - 1), min_size=min_size))))


@st.composite
def reductions(draw, **attrs):
    """x, axes, keepdims."""
    shape = draw(shapes())
    attrs = {"axes": some_axes(draw, len(shape), 1), "keepdims": draw(st.booleans()), **attrs}
    return Sample(filled(draw, shape), attrs)


@st.composite
def normalizations(draw, **attrs):
    """x, axes."""
    shape = draw(shapes())
    return Sample(filled(draw, shape), {"axes": some_axes(draw, len(shape), 1), **attrs})


@st.composite
def along_axis(draw, kind="real"):
    """x, axis."""
    shape = draw(shapes())
    return Sample(filled(draw, shape, kind=kind), {"axis": draw(st.integers(0, len(shape) - 1))})


@st.composite
def products(draw):
    """a (..., m, k) and b (..., k, n), leading axes broadcast."""
    m, k, n = (draw(st.integers(1, 3)) for _ in range(3))
    lead = draw(st.sampled_from((((), ()), ((2,), (2,)), ((2,), ()), ((), (3,)), ((2, 1), (3,)), ((2, 3), (2, 3)))))
    return Sample(filled(draw, (*lead[0], m, k), (*lead[1], k, n)))


@st.composite
def einsums(draw):
    """An equation and operands that fit it."""
    equation = draw(st.sampled_from(EQUATIONS))
    terms = equation.partition("->")[0].split(",")
    length = {letter: draw(st.integers(1, 3)) for letter in sorted(set("".join(terms)))}
    return Sample(filled(draw, *(tuple(length[c] for c in term) for term in terms)), {"equation": equation})


def naive_einsum(*operands, equation):
    """The sum over all values of all letters, one product at a time."""
    left, _, result = equation.partition("->")
    terms = left.split(",")
    length = {c: n for term, operand in zip(terms, operands) for c, n in zip(term, operand.shape)}
    letters = sorted(length)
    y = np.zeros(tuple(length[c] for c in result))
    for values in np.ndindex(*(length[c] for c in letters)):
        at = dict(zip(letters, values))
        y[tuple(at[c] for c in result)] += math.prod(
            operand[tuple(at[c] for c in term)] for term, operand in zip(terms, operands)
        )
    return y


def naive_matmul(a, b):
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, lead + a.shape[-2:]), np.broadcast_to(b, lead + b.shape[-2:])
    return np.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


@st.composite
def broadcasts(draw):
    """A small shape and a larger one that it broadcasts to."""
    large = draw(shapes())
    dropped = draw(st.integers(0, len(large)))
    small = tuple(1 if draw(st.booleans()) else n for n in large[dropped:])
    return small, large


@st.composite
def to_like(draw, down):
    """A large operand and a small one as `like`, or the other way round."""
    small, large = draw(broadcasts())
    return Sample(filled(draw, *((large, small) if down else (small, large))))


@st.composite
def broadcast_to(draw):
    small, large = draw(broadcasts())
    shape = [None if i >= len(large) - len(small) and draw(st.booleans()) else n for i, n in enumerate(large)]
    offset = len(large) - len(small)
    kept = [small[i - offset] if n is None else n for i, n in enumerate(shape)]
    return Sample(filled(draw, small), {"shape": tuple(None if s is None else k for s, k in zip(shape, kept))})


def naive_broadcast_to(x, shape):
    lengths = (1,) * (len(shape) - x.ndim) + x.shape
    return x + np.zeros([n if m is None else m for n, m in zip(lengths, shape)])


def naive_sum_to_like(g, like):
    y = np.zeros(like.shape)
    offset = g.ndim - like.ndim
    for place in np.ndindex(g.shape):
        y[tuple(0 if n == 1 else i for i, n in zip(place[offset:], like.shape))] += g[place]
    return y


@st.composite
def reshapes(draw):
    """x and a shape of as many values, perhaps with a -1 or a None that keeps an axis."""
    shape = draw(shapes())
    new = list(draw(st.permutations(shape)))
    if len(new) > 1 and draw(st.booleans()):
        new = [new[0] * new[1], *new[2:]]
    if draw(st.booleans()):
        new[draw(st.integers(0, len(new) - 1))] = -1
    elif new[0] == shape[0]:
        new[0] = None
    return Sample(filled(draw, shape), {"shape": tuple(new)})


@st.composite
def reshape_likes(draw):
    shape = draw(shapes())
    return Sample(filled(draw, shape, draw(st.permutations(shape))))


@st.composite
def transposes(draw):
    shape = draw(shapes())
    return Sample(filled(draw, shape), {"axes": tuple(draw(st.permutations(range(len(shape)))))})


@st.composite
def expansions(draw):
    shape = draw(shapes())
    count = draw(st.integers(1, 2))
    axes = sorted(draw(st.sets(st.integers(0, len(shape) + count - 1), min_size=count, max_size=count)))
    return Sample(filled(draw, shape), {"axes": tuple(axes)})


@st.composite
def squeezes(draw):
    shape = draw(shapes(max_side=2))
    ones = [i for i, n in enumerate(shape) if n == 1]
    axes = sorted(draw(st.sets(st.sampled_from(ones)))) if ones else []
    return Sample(filled(draw, shape), {"axes": tuple(axes)})


@st.composite
def concatenations(draw):
    shape = draw(shapes())
    axis = draw(st.integers(0, len(shape) - 1))
    lengths = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    parts = [(*shape[:axis], n, *shape[axis + 1 :]) for n in lengths]
    return Sample(filled(draw, *parts), {"axis": axis})


@st.composite
def paddings(draw):
    shape = draw(shapes())
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in shape)
    return Sample(filled(draw, shape), {"pads": pads, "value": draw(st.sampled_from((0.0, 1.5)))})


def naive_pad(x, pads, value):
    y = np.full([a + n + b for n, (a, b) in zip(x.shape, pads)], value)
    for place in np.ndindex(x.shape):
        y[tuple(i + a for i, (a, _) in zip(place, pads))] = x[place]
    return y


@st.composite
def casts(draw):
    kind, dtype = draw(st.sampled_from((("real", "float"), ("int", "float"), ("bool", "int"), ("int", "bool"))))
    return Sample(filled(draw, draw(shapes(0)), kind=kind), {"dtype": dtype})


def softmax(x, axes):
    return np.exp(x) / np.exp(x).sum(axes, keepdims=True)


def naive_cumsum(x, axis):
    y = np.array(x)
    for i in range(1, x.shape[axis]):
        np.moveaxis(y, axis, 0)[i] += np.moveaxis(y, axis, 0)[i - 1]
    return y


def folded(function):
    """Return a reduction that hands each group of values that fold into one to a function, as a list of numbers."""

    def reduce(x, axes, keepdims):
        y = np.zeros([1 if i in axes else n for i, n in enumerate(x.shape)])
        for place in np.ndindex(y.shape):
            y[place] = function(x[tuple(slice(None) if i in axes else p for i, p in enumerate(place))].ravel().tolist())
        return y if keepdims else y.reshape([n for i, n in enumerate(x.shape) if i not in axes])

    return reduce


def naive_expand_dims(x, axes):
    lengths = list(x.shape)
    for axis in axes:
        lengths.insert(axis, 1)
    return x.reshape(lengths)


def naive_standardize(x, axes, epsilon):
    return (x - x.mean(axes, keepdims=True)) * (x.var(axes, keepdims=True) + epsilon) ** -0.5


def naive_rms_normalize(x, axes, epsilon):
    return x * (np.mean(x**2, axes, keepdims=True) + epsilon) ** -0.5


def naive_sparsemax(x, axes):
    def project(values):  # the threshold by bisection
        low, high = min(values) - 1, max(values)
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(values - middle, 0).sum() > 1 else (low, middle)
        return np.maximum(values - low, 0)

    return np.apply_along_axis(project, axes[0], x)


@st.composite
def along_one_of_axes(draw):
    sample = draw(along_axis())
    return Sample(sample.operands, {"axes": (sample.attrs["axis"],)})


def naive_cast(x, dtype):
    return np.array(x.tolist(), {"float": np.float64, "int": np.int64, "bool": bool}[dtype])


def place_of(function):
    return lambda x, axis: np.apply_along_axis(lambda values: list(values).index(function(values)), axis, x)


STRUCTURAL = {
    "argmax": Case(along_axis(), place_of(max)),
    "argmin": Case(along_axis(), place_of(min)),
    "broadcast_like": Case(to_like(down=False), lambda x, like: x + np.zeros(like.shape)),
    "broadcast_to": Case(broadcast_to(), naive_broadcast_to),
    "cast": Case(casts(), naive_cast),
    "concatenate": Case(concatenations(), lambda *xs, axis: np.concatenate(xs, axis)),
    "count": Case(normalizations(dtype="float"), lambda x, axes, dtype: np.prod([float(x.shape[a]) for a in axes])),
    "cumsum": Case(along_axis(), naive_cumsum),
    "einsum": Case(einsums(), naive_einsum),
    "expand_dims": Case(expansions(), naive_expand_dims),
    "log_softmax": Case(normalizations(), lambda x, axes: np.log(softmax(x, axes))),
    "logsumexp": Case(reductions(), folded(lambda values: math.log(sum(map(math.exp, values))))),
    "matmul": Case(products(), naive_matmul),
    "max": Case(reductions(), folded(max)),
    "min": Case(reductions(), folded(min)),
    "pad": Case(paddings(), naive_pad),
    "reshape": Case(reshapes(), lambda x, shape: x.reshape([n or x.shape[i] for i, n in enumerate(shape)])),
    "reshape_like": Case(reshape_likes(), lambda x, like: x.reshape(like.shape)),
    "rms_normalize": Case(normalizations(epsilon=0.01), naive_rms_normalize),
    "softmax": Case(normalizations(), softmax),
    "sparsemax": Case(along_one_of_axes(), naive_sparsemax),
    "squeeze": Case(squeezes(), lambda x, axes: x.reshape([n for i, n in enumerate(x.shape) if i not in axes])),
    "standardize": Case(normalizations(epsilon=0.01), naive_standardize),
    "sum": Case(reductions(), folded(math.fsum)),
    "sum_to_like": Case(to_like(down=True), naive_sum_to_like),
    "transpose": Case(transposes(), lambda x, axes: np.einsum(x, list(range(x.ndim)), list(axes))),
}
