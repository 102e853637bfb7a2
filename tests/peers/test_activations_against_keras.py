"""Every activation that Keras exports exists here under its name and answers the same numbers."""

import jax
import keras
import numpy as np
import pytest

from rsref import activations
from tests.rsref.ops.drawn import evaluate, leaf
from tests.tolerances import assert_close

jax.config.update("jax_enable_x64", True)

NOT_ACTIVATIONS = {"get", "serialize", "deserialize"}
ELSEWHERE = {"sparsemax"}
NAMES = sorted(
    name
    for name in dir(keras.activations)
    if callable(getattr(keras.activations, name)) and name not in NOT_ACTIVATIONS
)
OPTIONS = {"threshold": {"threshold": 0.4, "default_value": -2.0}}
X = np.concatenate([np.random.default_rng(0).normal(0, 2, (3, 7, 4)), np.full((3, 1, 4), 9.0), np.zeros((3, 1, 4))], 1)


def theirs(name):
    value = getattr(keras.activations, name)(keras.ops.convert_to_tensor(X, "float64"), **OPTIONS.get(name, {}))
    return keras.ops.convert_to_numpy(value)


def test_keras_exports_activations():
    assert {"relu", "gelu", "softmax", "tanh"} <= set(NAMES)


def test_every_name_is_known():
    assert [name for name in NAMES if name not in activations.ACTIVATIONS] == []


@pytest.mark.parametrize("name", sorted(set(NAMES) - ELSEWHERE))
def test_keras_agrees(name):
    function, x = activations.get(name), leaf(X, (None, *X.shape[1:]))
    drawn = function(x, **OPTIONS.get(name, {}))
    expected = theirs(name)  # on JAX, Keras answers tanh in float32
    assert_close(function(X, **OPTIONS.get(name, {})), expected, expected.dtype.name)
    assert_close(evaluate([drawn], {x: X})[drawn], expected, expected.dtype.name)


def test_sparsemax_follows_the_paper():
    """Keras 3's threshold is wrong, and its result does not sum to 1, where more than one value is positive."""
    y = activations.get("sparsemax")(X)
    alone = (y > 0).sum(-1) == 1
    assert alone.any()
    assert_close(y.sum(-1), np.ones(y.shape[:-1]))
    assert_close(y[alone], theirs("sparsemax")[alone])


def test_the_judge_sees_another_activation():
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(activations.get("silu")(X), theirs("mish"))
