"""Every layer of a step against its definition in NumPy; no option does nothing."""

import numpy as np
import pytest

from rsref import Input, cells, layers, set_random_seed
from rsref.graph import noise_leaves
from tests.rsref.ops.drawn import evaluate
from tests.tolerances import assert_close


def sample(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def normalized(x, epsilon):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)


def correlated(x, kernel):
    """Return the sums over windows of 2 steps, 2 apart, that begin at every second step."""
    return np.stack([x[:, t] @ kernel[0] + x[:, t + 2] @ kernel[1] for t in (0, 2, 4)], 1)


def grouped(x, kernel, bias):
    sums = [x[:, t : t + 3, :2].reshape(2, 6) @ kernel[..., :3].reshape(6, 3) for t in range(5)]
    others = [x[:, t : t + 3, 2:].reshape(2, 6) @ kernel[..., 3:].reshape(6, 3) for t in range(5)]
    return np.concatenate([np.stack(sums, 1), np.stack(others, 1)], -1) + bias


# Each row: the layer, the shape of what it reads, and what it answers, given that and its weights.
DEFINITIONS = {
    "Dense": (layers.Dense(3, "tanh"), (2, 4), lambda x, w, b: np.tanh(x @ w + b)),
    "Dense without bias": (layers.Dense(3, use_bias=False), (2, 5, 4), lambda x, w: x @ w),
    "LayerNormalization": (layers.LayerNormalization(), (2, 5, 4), lambda x, g, b: normalized(x, 1e-3) * g + b),
    "LayerNormalization of epsilon 1": (layers.LayerNormalization(1), (2, 4), lambda x, g, b: normalized(x, 1) * g + b),
    "LayerNormalization, no scale": (
        layers.LayerNormalization(scale=False),
        (2, 4),
        lambda x, b: normalized(x, 1e-3) + b,
    ),
    "LayerNormalization, no center": (
        layers.LayerNormalization(center=False),
        (2, 4),
        lambda x, g: normalized(x, 1e-3) * g,
    ),
    "RMSNormalization": (
        layers.RMSNormalization(0.5),
        (2, 5, 4),
        lambda x, g: x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.5) * g,
    ),
    "Conv": (
        layers.Conv(3, 2, strides=2, dilation_rate=2, activation="tanh", use_bias=False),
        (2, 7, 4),
        lambda x, w: np.tanh(correlated(x, w)),
    ),
    "Conv in groups": (layers.Conv(6, 3, groups=2), (2, 7, 4), grouped),
    "Conv over an image": (
        layers.Conv(3, (1, 2), padding="same"),
        (2, 4, 5, 1),
        lambda x, w, b: x * w[0, 0] + np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0)))[:, :, 1:] * w[0, 1] + b,
    ),
    "Lambda": (layers.Lambda(lambda x: x * 2), (2, 4), lambda x: x * 2),
    "Activation": (layers.Activation("tanh"), (2, 4), np.tanh),
    "Dropout of nothing": (layers.Dropout(0), (2, 4), lambda x: x),
    "Flatten": (layers.Flatten(), (2, 3, 4), lambda x: x.reshape(2, 12)),
    "Reshape": (layers.Reshape((2, -1)), (3, 6, 2), lambda x: x.reshape(3, 2, 6)),
    "Permute": (layers.Permute((3, 1, 2)), (2, 3, 4, 5), lambda x: np.moveaxis(x, 3, 1)),
    "RepeatVector": (layers.RepeatVector(3), (2, 4), lambda x: np.stack([x, x, x], 1)),
}
MERGES = {
    "Add": lambda a, b, c: a + b + c,
    "Multiply": lambda a, b, c: a * b * c,
    "Average": lambda a, b, c: (a + b + c) / 3,
    "Maximum": lambda a, b, c: np.max([a, b, c], 0),
    "Minimum": lambda a, b, c: np.min([a, b, c], 0),
    "Concatenate": lambda a, b, c: np.concatenate([a, b, c], -1),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_layer_is_its_definition(name):
    layer, shape, plain = DEFINITIONS[name]
    x, values = Input(shape[1:]), sample(*shape)
    y = layer(x)
    for i, parameter in enumerate(layer.parameters):
        parameter.assign(np.cos(i + np.arange(parameter.value.size)).reshape(parameter.value.shape))
    weights = {p.tensor: p.value for p in layer.parameters}
    assert not noise_leaves([y])
    expected = plain(values, *weights.values())
    assert [n or m for n, m in zip(y.shape, expected.shape, strict=True)] == list(expected.shape)
    assert_close(evaluate([y], {x: values, **weights})[y], expected)


@pytest.mark.parametrize("name", MERGES)
def test_a_merge_is_its_definition(name):
    leaves, values = [Input((4,)) for _ in range(3)], [sample(3, 2, 4)[i] for i in range(3)]
    for merge in (getattr(layers, name)(), getattr(layers, name.lower())):
        y = merge(leaves)
        assert_close(evaluate([y], dict(zip(leaves, values)))[y], MERGES[name](*values))


def test_subtract_and_an_axis_to_concatenate():
    leaves, values = [Input((3, 4)), Input((3, 4))], [sample(2, 2, 3, 4)[i] for i in range(2)]
    for difference in (layers.Subtract()(leaves), layers.subtract(leaves)):
        assert_close(evaluate([difference], dict(zip(leaves, values)))[difference], values[0] - values[1])
    for joined in (layers.Concatenate(1)(leaves), layers.concatenate(leaves, 1)):
        assert_close(evaluate([joined], dict(zip(leaves, values)))[joined], np.concatenate(values, 1))


MAKERS = {
    "Dense": lambda **options: layers.Dense(2, **options),
    "Conv": lambda **options: layers.Conv(2, 1, **options),
    "Embedding": lambda **options: layers.Embedding(3, 2, **options),
    "LayerNormalization": layers.LayerNormalization,
    "RMSNormalization": layers.RMSNormalization,
    "Lambda": lambda **options: layers.Lambda(abs, **options),
    "Activation": lambda **options: layers.Activation("elu", **options),
    "Dropout": lambda **options: layers.Dropout(0.5, **options),
    "GaussianDropout": lambda **options: layers.GaussianDropout(0.5, **options),
    "GaussianNoise": lambda **options: layers.GaussianNoise(0.5, **options),
    "Flatten": layers.Flatten,
    "Reshape": lambda **options: layers.Reshape((2,), **options),
    "Permute": lambda **options: layers.Permute((1,), **options),
    "RepeatVector": lambda **options: layers.RepeatVector(2, **options),
    **{name: getattr(layers, name) for name in (*MERGES, "Subtract")},
}


def test_every_layer_has_the_name_that_it_is_given():
    assert {name for name in layers.__all__ if name[0].isupper()} == {*MAKERS, "Layer"}
    for name, make in MAKERS.items():
        assert make(name="mine").name == "mine"
        assert make().name.replace("_", "").startswith(name.lower())


@pytest.mark.parametrize("name", ["Dense", "Conv"])
@pytest.mark.parametrize("weight", ["kernel", "bias"])
def test_every_weight_is_made_as_it_is_asked(name, weight):
    set_random_seed(0)
    options = {f"{weight}_initializer": 0.25}
    if name == "Dense":
        options |= {f"{weight}_regularizer": "l2", f"{weight}_constraint": "non_neg"}
    layer = MAKERS[name](**options)
    layer(Input((5, 3)))
    asked, other = layer.parameters if weight == "kernel" else layer.parameters[::-1]
    assert asked.name == f"{layer.name}/{weight}"
    assert (asked.value == 0.25).all()
    assert (other.value != 0.25).all()
    assert asked.trainable
    assert [p is not None for p in (asked.regularizer, asked.constraint)] == [name == "Dense"] * 2
    assert [other.regularizer, other.constraint] == [None, None]


def test_weights_are_read_as_copies_and_set():
    layer = layers.Dense(2)
    layer(Input((3,)))
    kernel, bias = np.arange(6.0).reshape(3, 2), np.ones(2)
    layer.set_weights([kernel, bias])
    read = layer.get_weights()
    for found, value in zip(read, [kernel, bias], strict=True):
        np.testing.assert_array_equal(found, value)
        found[:] = 9
    np.testing.assert_array_equal(layer.kernel.value, kernel)
    with pytest.raises(ValueError, match=f"{layer.name}"):
        layer.set_weights([kernel])


def test_weights_lie_row_after_row():
    """Other ones an engine would copy in every call; half of the orthogonal ones come as columns."""
    layer = cells.LSTMCell(5).get_layer()
    layer.build((None, None, 3))
    for parameter in layer.weights:
        assert parameter.value.flags.c_contiguous
        parameter.assign(np.asfortranarray(parameter.value))
        assert parameter.value.flags.c_contiguous
