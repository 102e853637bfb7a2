"""Slices, backwards ones too, of axes whose length a symbolic step does not know: Keras's ops against NumPy."""

import keras
import numpy as np
import pytest

from keras_bridge.emission import evaluate
from rsref.tensor import Input
from tests.bridge.autodiff import PLACE
from tests.covering import examples

BOUNDS = [None, -9, -5, -4, -2, -1, 0, 1, 3, 4, 9]
VALUES = np.arange(15, dtype="float32").reshape(5, 3)


CASES = [(a, b, step) for a in BOUNDS for b in BOUNDS for step in (-1, -2, -7, 1, 3)]
CASES = examples(CASES, CASES[PLACE::3])


def sliced(values, leaf, cut):
    """Return slices by each bound, computed as a step on Keras's engine computes them."""
    return evaluate([leaf[cut(slice(a, b, step))] for a, b, step in CASES], {leaf: values}, "float32")


@pytest.mark.parametrize("axis", [0, 1])
def test_known_lengths(axis):
    def cut(part):
        return (slice(None),) * axis + (part,)

    found = sliced(keras.ops.convert_to_tensor(VALUES), Input((3,)), cut)
    for own, (a, b, step) in zip(found, CASES, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(own), VALUES[cut(slice(a, b, step))], f"{a}:{b}:{step}"
        )


@pytest.mark.parametrize(
    ("a", "b", "step"), [(None, None, -1), (None, None, -2), (-2, 0, -2), (3, None, -1), (9, -9, -3)]
)
def test_an_axis_of_unknown_length(a, b, step):
    leaf, x = Input((3,)), keras.Input((3,))
    (answer,) = evaluate([leaf[a:b:step]], {leaf: x}, "float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.Function(x, answer)(VALUES)), VALUES[a:b:step])


def test_an_op_without_a_counterpart_is_named():
    """The gradient of a slice, which only rsref's own gradients draw."""
    x, d = Input((4,)), Input((2,))
    cut = x[:, :2]
    gradient = cut.op.vjp(0, d, cut, x, **cut.attrs)
    with pytest.raises(NotImplementedError, match="the op 'put_slice' of rsref has no counterpart"):
        evaluate([gradient], {x: np.zeros((3, 4)), d: np.zeros((3, 2))}, "float32")
