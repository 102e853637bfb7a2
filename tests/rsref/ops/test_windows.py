"""Convolution and pooling are what plain loops over positions and offsets say, drawn or on arrays."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsref import ops
from tests.covering import examples
from tests.rsref.ops.checks import check_pull_back
from tests.rsref.ops.drawn import evaluate, leaf, pull_back
from tests.tolerances import assert_close

FEW = settings(max_examples=examples(100, 25))


def padding_before(padding, n, size, stride, dilation):
    """Return how many places of padding stand before one axis, and how many positions there are."""
    reach = (size - 1) * dilation + 1
    if padding == "valid":
        return 0, (n - reach) // stride + 1
    if padding == "causal":
        return reach - 1, (n - 1) // stride + 1
    positions = math.ceil(n / stride)
    return max(0, (positions - 1) * stride + reach - n) // 2, positions


def visit(x, size, strides, padding, dilation):
    """Yield each position with the values under its window: (offset, row of channels for each batch entry)."""
    axes = [padding_before(padding, *one) for one in zip(x.shape[1:-1], size, strides, dilation)]
    for position in itertools.product(*(range(count) for _, count in axes)):
        found = []
        for offset in itertools.product(*map(range, size)):
            place = [p * s + o * d - b for p, s, o, d, (b, _) in zip(position, strides, offset, dilation, axes)]
            if all(0 <= i < n for i, n in zip(place, x.shape[1:-1])):
                found.append((offset, x[(slice(None), *place)]))
        yield position, found


def naive(x, channels, size, strides, padding, dilation, fold):
    counts = [padding_before(padding, *one)[1] for one in zip(x.shape[1:-1], size, strides, dilation)]
    y = np.zeros((x.shape[0], *counts, channels))
    for position, found in visit(x, size, strides, padding, dilation):
        y[(slice(None), *position)] = fold(found)
    return y


def naive_conv(x, kernel, strides, padding, dilation):
    *size, depth, filters = kernel.shape
    groups = x.shape[-1] // depth
    share = filters // groups

    def fold(found):
        y = np.zeros((len(x), filters))
        for offset, row in found:
            for f in range(filters):
                first = f // share * depth
                y[:, f] += row[:, first : first + depth] @ kernel[(*offset, slice(None), f)]
        return y

    return naive(x, filters, size, strides, padding, dilation, fold)


def naive_pool(x, size, strides, padding, function):
    ones = (1,) * len(size)
    fold = lambda found: function(np.stack([row for _, row in found]), axis=0)  # noqa: E731
    return naive(x, x.shape[-1], size, strides, padding, ones, fold)


@st.composite
def windows_over(draw):
    """Return spatial lengths, window size, strides, dilation and padding for one or two axes."""
    n = draw(st.integers(1, 2))
    size, strides, dilation = (tuple(draw(st.integers(1, 3)) for _ in range(n)) for _ in range(3))
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation)]
    spatial = tuple(r + draw(st.integers(0, 3)) for r in reach)
    padding = draw(st.sampled_from(("valid", "same", "causal") if n == 1 else ("valid", "same")))
    return spatial, size, strides, dilation, padding


def uneven(where):
    """Whether the padding of the first axis depends on its length."""
    return where[4] == "same" and where[2][0] > 1


def check(function, expected, *operands, needs_lengths):
    assert_close(function(*operands), expected)
    for unknown in ((), (0,), (0, 1)):
        leaves = [leaf(a) for a in operands]
        leaves[0] = leaf(operands[0], tuple(None if i in unknown else n for i, n in enumerate(operands[0].shape)))
        if unknown == (0, 1) and needs_lengths:
            with pytest.raises(ValueError, match="needs known lengths"):
                function(*leaves)
            continue
        drawn = function(*leaves)
        feed = dict(zip(leaves, operands))
        assert_close(evaluate([drawn], feed)[drawn], expected)
        check_pull_back(drawn, feed)


@FEW
@given(where=windows_over(), groups=st.integers(1, 2), channels=st.integers(1, 2), filters=st.integers(1, 2))
def test_conv(where, groups, channels, filters):
    spatial, size, strides, dilation, padding = where
    rng = np.random.default_rng(sum(spatial))
    x = rng.normal(size=(2, *spatial, channels * groups))
    kernel = rng.normal(size=(*size, channels, filters * groups))
    expected = naive_conv(x, kernel, strides, padding, dilation)
    check(lambda a, b: ops.conv(a, b, strides, padding, dilation), expected, x, kernel, needs_lengths=uneven(where))


@FEW
@given(where=windows_over(), channels=st.integers(1, 3), multiplier=st.integers(1, 2))
def test_depthwise_conv(where, channels, multiplier):
    spatial, size, strides, dilation, padding = where
    rng = np.random.default_rng(sum(spatial))
    x, kernel = rng.normal(size=(2, *spatial, channels)), rng.normal(size=(*size, channels, multiplier))
    expected = naive_conv(x, kernel.reshape(*size, 1, -1), strides, padding, dilation)  # a group for every channel
    check(
        lambda a, b: ops.depthwise_conv(a, b, strides, padding, dilation),
        *(expected, x, kernel),
        needs_lengths=uneven(where),
    )


@pytest.mark.parametrize(("pool", "function"), [(ops.max_pool, np.max), (ops.average_pool, np.mean)])
@FEW
@given(where=windows_over().filter(lambda where: where[4] != "causal"))
def test_pool(pool, function, where):
    spatial, size, strides, _, padding = where
    x = np.random.default_rng(sum(spatial)).normal(size=(2, *spatial, 2))
    expected = naive_pool(x, size, strides, padding, function)
    check(lambda a: pool(a, size, strides, padding), expected, x, needs_lengths=uneven(where))


def test_the_loop_sees_a_turned_window_and_another_pool():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 3, 4))
    turned = naive_conv(x, kernel[::-1], (1,), "valid", (1,))
    averaged = naive_pool(x, (2,), (2,), "valid", np.mean)
    for found, expected in ((ops.conv(x, kernel), turned), (ops.max_pool(x, 2), averaged)):
        with pytest.raises(AssertionError, match="relative error"):
            assert_close(found, expected)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_reaches_its_own_windows_alone(bad, padding):
    x = np.arange(12.0).reshape(1, 6, 2)
    x[0, 2, 1] = bad
    tensor = leaf(x, (None, 6, 2))
    drawn = ops.average_pool(tensor, 3, 1, padding)
    expected = naive(x, 2, (3,), (1,), padding, (1,), lambda found: np.mean([row for _, row in found], 0))
    np.testing.assert_array_equal(evaluate([drawn], {tensor: x})[drawn], expected)
    assert np.isfinite(pull_back(drawn, np.ones_like(expected), {tensor: x})[tensor]).all()


def test_strides_of_a_pool_are_its_size():
    x = np.random.default_rng(0).normal(size=(2, 6, 3))
    assert_close(ops.max_pool(x, 2), x.reshape(2, 3, 2, 3).max(2))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: ops.conv(x, np.ones((2, 3, 4)), padding="full"), 'padding must be "valid", "same"'),
        (lambda x: ops.conv(x, np.ones((2, 0, 4))), "3 channels do not fit a kernel of shape (2, 0, 4)"),
        (lambda x: ops.conv(x, np.ones((2, 2, 4))), "3 channels do not fit a kernel of shape (2, 2, 4)"),
        (lambda x: ops.conv(x, np.ones((2, 2, 3, 4))), "(2, 5, 3) and (2, 2, 3, 4) do not fit"),
        (lambda x: ops.conv(x[0], np.ones((3, 4))), "(5, 3) and (3, 4) do not fit"),
        (
            lambda x: ops.conv(x, np.ones((2, 3, 4)), strides=0),
            "strides must be a positive integer or 1 of them; got 0",
        ),
        (lambda x: ops.max_pool(leaf(x), 7), "does not fit shape (2, 5, 3)"),
    ],
)
def test_misuse(call, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        call(np.ones((2, 5, 3)))
