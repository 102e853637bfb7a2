"""One row for each op that picks values by place or puts them back, with a loop that says what it is."""

import numpy as np
from hypothesis import strategies as st

from tests.rsref.ops.samples import Case, Sample, filled, random_numbers, shapes


@st.composite
def slices(draw):
    """x and a slice an axis: open and negative ends, negative steps."""
    shape = draw(shapes(max_side=4))
    end = st.none() | st.integers(-4, 4)
    bounds = tuple((draw(end), draw(end), draw(st.sampled_from((1, 1, 2, -1, -2)))) for _ in shape)
    return Sample(filled(draw, shape), {"bounds": bounds})


@st.composite
def put_slices(draw):
    sample = draw(slices())
    like = sample.operands[0]
    return Sample((*filled(draw, naive_slice(like, **sample.attrs).shape), like), sample.attrs)


def chosen(shape, bounds):
    return [list(range(n))[slice(*b)] for n, b in zip(shape, bounds)]


def naive_slice(x, bounds):
    return x[np.ix_(*chosen(x.shape, bounds))]


def naive_put_slice(x, like, bounds):
    y = np.zeros(like.shape)
    y[np.ix_(*chosen(like.shape, bounds))] = x
    return y


@st.composite
def takes(draw):
    """x and integers of rank 0 to 2, negative and repeated ones among them."""
    shape = draw(shapes())
    axis = draw(st.integers(0, len(shape) - 1))
    rng = draw(random_numbers())
    indices = rng.integers(-shape[axis], shape[axis], draw(shapes(0, 2)))
    return Sample((*filled(draw, shape), np.asarray(indices)), {"axis": axis})


def naive_take(x, indices, axis):
    flat = [np.moveaxis(x, axis, 0)[i] for i in indices.ravel()]
    stacked = np.array(flat).reshape(indices.shape + x.shape[:axis] + x.shape[axis + 1 :])
    return np.moveaxis(stacked, range(indices.ndim), range(axis, axis + indices.ndim))


@st.composite
def put_adds(draw):
    like, indices = (sample := draw(takes())).operands
    return Sample((*filled(draw, naive_take(like, indices, **sample.attrs).shape), indices, like), sample.attrs)


def naive_put_add(x, indices, like, axis):
    y = np.moveaxis(np.zeros(like.shape), axis, 0)
    rows = np.moveaxis(x, range(axis, axis + indices.ndim), range(indices.ndim))
    for place in np.ndindex(indices.shape):
        y[indices[place]] += rows[place]
    return np.moveaxis(y, 0, axis)


@st.composite
def one_hots(draw):
    return Sample(filled(draw, draw(shapes(0)), kind="int"), {"num_classes": 3, "dtype": "float"})


@st.composite
def windowings(draw):
    """x (batch, *spatial, channels) over one or two spatial axes."""
    n = draw(st.integers(1, 2))
    size, strides, dilation = (tuple(draw(st.integers(1, 2)) for _ in range(n)) for _ in range(3))
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation)]
    spatial = [r + draw(st.integers(0, 3)) for r in reach]
    attrs = {"size": size, "strides": strides, "dilation": dilation}
    return Sample(filled(draw, (2, *spatial, draw(st.integers(1, 2)))), attrs)


def window_places(shape, size, strides, dilation):
    """Yield each place of the result of `windows` (without batch and channels) with the place that it copies."""
    positions = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(shape[1:-1], size, strides, dilation)]
    for p in np.ndindex(*positions):
        for o in np.ndindex(*size):
            yield (*p, *o), tuple(i * s + j * d for i, j, s, d in zip(p, o, strides, dilation))


def naive_windows(x, **attrs):
    places = dict(window_places(x.shape, **attrs))
    y = np.zeros((x.shape[0], *(1 + max(p[i] for p in places) for i in range(2 * x.ndim - 4)), x.shape[-1]))
    for to, source in places.items():
        y[(slice(None), *to)] = x[(slice(None), *source)]
    return y


@st.composite
def put_windowings(draw):
    sample = draw(windowings())
    like = sample.operands[0]
    return Sample((*filled(draw, naive_windows(like, **sample.attrs).shape), like), sample.attrs)


def naive_put_windows(x, like, **attrs):
    y = np.zeros(like.shape)
    for source, to in window_places(like.shape, **attrs):
        y[(slice(None), *to)] += x[(slice(None), *source)]
    return y


def naive_one_hot(indices, num_classes, dtype):
    rows = [[1.0 if i == c else 0.0 for c in range(num_classes)] for i in indices.ravel()]
    return np.array(rows).reshape(*indices.shape, num_classes)


INDEXING = {
    "one_hot": Case(one_hots(), naive_one_hot),
    "put_add": Case(put_adds(), naive_put_add),
    "put_slice": Case(put_slices(), naive_put_slice),
    "put_windows": Case(put_windowings(), naive_put_windows),
    "slice": Case(slices(), naive_slice),
    "take": Case(takes(), naive_take),
    "windows": Case(windowings(), naive_windows),
}
