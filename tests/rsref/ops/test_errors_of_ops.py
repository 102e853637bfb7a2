"""Misuse of ops: each is answered while the step is drawn, by an exception that names the op and what was given."""

import numpy as np
import pytest

from rsref import Input, Reshape, ops
from rsref.ops.base import register
from rsref.tensor import noise
from tests.rsref.misuse import missing_words

x, images, i, anything = Input((4,)), Input((4, 6)), Input((2,), dtype="int"), Input((None, 3))
A = np.arange(12.0).reshape(3, 4)

MISUSES = {
    # axes, lengths, places
    "an axis that is not there": (lambda: ops.sum(x, 5), ValueError, ["sum: axis 5 is out of range", "rank 2"]),
    "an axis twice": (lambda: ops.sum(x, (1, 1)), ValueError, [r"sum: axis \(1, 1\) names an axis twice"]),
    "a real axis": (lambda: ops.expand_dims(x, 1.0), TypeError, ["expand_dims: axis must be an integer; got 1.0"]),
    "a word as axis": (lambda: ops.sum(x, "a"), TypeError, ["sum: axis must be an integer; got 'a'"]),
    "an order that is none": (lambda: ops.transpose(x, (0, 0)), ValueError, ["transpose", "not an order of the 2"]),
    "an axis to squeeze": (lambda: ops.squeeze(x, 1), ValueError, [r"squeeze: axes \(1,\)", "length 1"]),
    "a fraction of a length": (lambda: ops.reshape(A, (2.5, 6)), TypeError, ["reshape: a length must be an integer"]),
    "a length below 0": (lambda: ops.reshape(x, (None, -3)), ValueError, ["reshape: a length must be at least -1"]),
    "two lengths to work out": (lambda: ops.reshape(A, (-1, -1)), ValueError, ["only one length may be -1"]),
    "other values": (
        lambda: ops.reshape(A, (5, 2)),
        ValueError,
        [r"\(3, 4\) cannot become \(5, 2\): 12 values against 10"],
    ),
    "other values a sample": (lambda: ops.reshape(x, (None, 5)), ValueError, ["reshape", "4 values against 5"]),
    "a layer of other values": (lambda: Reshape((5, 1))(x), ValueError, ["reshape", "4 values against 5"]),
    "a remainder": (lambda: ops.reshape(x, (None, 3, -1)), ValueError, [r"reshape: shape \(None, 4\) cannot become"]),
    "an axis to keep": (lambda: ops.reshape(x, (-1, 1, None)), ValueError, ["keeps an axis that shape"]),
    "a broadcast": (lambda: ops.broadcast_to(x, (None, 5)), ValueError, ["broadcast_to", "cannot become"]),
    "a broadcast to fewer axes": (
        lambda: ops.broadcast_to(x, 5),
        ValueError,
        [r"broadcast_to: .* cannot become \(5,\)"],
    ),
    "a broadcast to a fraction": (lambda: ops.broadcast_to(A, (3, 4.2)), TypeError, ["broadcast_to: a length", "4.2"]),
    "fractions of padding": (lambda: ops.pad(A, 1.7), ValueError, ["pad: widths are an integer, a pair", "1.7"]),
    "padding of three axes": (lambda: ops.pad(x, [(1, 1)] * 3), ValueError, ["pad: widths are", "2 axes"]),
    "negative padding": (lambda: ops.pad(x, -1), ValueError, ["pad: widths must not be negative; got -1"]),
    "another mode of padding": (lambda: ops.pad(x, 1, "edge"), ValueError, ["pad: constant_values", "no other modes"]),
    "nothing to concatenate": (lambda: ops.concatenate([]), ValueError, ["concatenate: at least one tensor"]),
    "other ranks to concatenate": (lambda: ops.concatenate([x, images], 1), ValueError, ["differ in more than axis 1"]),
    "a repeated open axis": (lambda: ops.repeat(anything, 2, 1), ValueError, ["repeat: axis 1", "unknown length"]),
    "tiles for other axes": (lambda: ops.tile(x, (2,)), ValueError, ["tile: one number an axis", "rank 2"]),
    "parts that are not equal": (lambda: ops.split(x, 3, 1), ValueError, ["split: axis 1", "into 3 equal parts"]),
    "no parts": (lambda: ops.split(x, 0, 1), ValueError, ["split: axis 1", "into 0 equal parts"]),
    "fewer than no parts": (lambda: ops.split(x, -2, 1), ValueError, ["split: axis 1", "into -2 equal parts"]),
    "a real number of parts": (lambda: ops.split(x, 2.0, 1), TypeError, ["split: the number of parts", "got 2.0"]),
    "an open axis to unstack": (lambda: ops.unstack(anything, axis=1), ValueError, ["unstack: axis 1", "give num"]),
    # indices
    "two ellipses": (lambda: x[..., ...], IndexError, ["at most one"]),
    "too many indices": (lambda: x[0, 0, 0], IndexError, ["names 3 axes of a tensor of rank 2"]),
    "an index that is not there": (lambda: x[:, 9], IndexError, ["index 9 is out of range for axis 1 of length 4"]),
    "a real index": (lambda: x[1.0], TypeError, ["index 1.0 is not accepted"]),
    "two lists of indices": (lambda: x[[0], [1]], TypeError, ["one integer tensor may stand in an index", "take"]),
    "a mask as index": (lambda: x[x > 0], TypeError, ["take: indices must be integers; got bool"]),
    "real indices": (lambda: ops.take(x, [0.0], 1), TypeError, ["take: indices must be integers; got float64"]),
    "real tokens": (lambda: ops.one_hot(x, 3), TypeError, ["one_hot: indices must be integers; got float"]),
    "classes elsewhere": (lambda: ops.one_hot(i, 3, axis=0), ValueError, ["one_hot: only the last axis", "axis=0"]),
    "half a class": (lambda: ops.one_hot(i, 2.5), TypeError, ["one_hot: num_classes must be an integer; got 2.5"]),
    "fewer than no classes": (lambda: ops.one_hot(i, -2), ValueError, ["num_classes must not be negative; got -2"]),
    # products
    "a product with a number": (lambda: ops.matmul(x, 2.0), ValueError, ["matmul: operands must have rank 1 or more"]),
    "letters of another operand": (lambda: ops.einsum("ab,bc->ac", x), ValueError, ["names 2 operands; 1 are given"]),
    "letters of another rank": (
        lambda: ops.einsum("abc->a", x),
        ValueError,
        ["'abc' does not fit an operand of rank 2"],
    ),
    "a diagonal": (lambda: ops.einsum("aa->a", x), ValueError, ["a letter twice in term 'aa'"]),
    "a letter of none": (lambda: ops.einsum("ab->az", x), ValueError, ["every letter of the result", "some operand"]),
    "letters of unequal lengths": (
        lambda: ops.einsum("ab,ab->a", x, Input((5,))),
        ValueError,
        ["lengths of 'b' differ"],
    ),
    # the rest
    "too few operands": (lambda: ops.add(x), TypeError, [r"add takes 2 operands \(a, b\); got 1"]),
    "images without channels": (lambda: ops.max_pool(x, 2), ValueError, [r"\(batch, \*spatial, channels\)", "rank 2"]),
    "windows of other channels": (
        lambda: ops.depthwise_conv(Input((5, 3)), np.ones((2, 2, 1))),
        ValueError,
        ["depthwise_conv", r"\(2, 2, 1\) do not fit", r"\(\*window, channels, multiplier\)"],
    ),
    "strides over an open axis": (
        lambda: ops.average_pool(anything, 2, padding="same"),
        ValueError,
        ['padding "same" with strides', "known lengths"],
    ),
    "an op of a name that is taken": (lambda: register(ops.REGISTRY["add"]), ValueError, ["'add' is defined twice"]),
    "a life time of masks": (lambda: noise((None, 4), 0.5, "epoch"), ValueError, ["per must be", "'epoch'"]),
    # what a Tensor is not
    "a length of a tensor": (lambda: len(x), TypeError, ["use .shape instead"]),
    "a loop over a tensor": (lambda: list(x), TypeError, ["cannot be iterated over"]),
    "a tensor as array": (
        lambda: np.asarray(x),
        TypeError,
        ["symbolic and has no value", "of rsref or NumPy, not of Keras"],
    ),
    "a tensor that is changed": (lambda: setattr(x, "shape", ()), AttributeError, ["immutable", "'shape'"]),
    "a method of a ufunc": (lambda: np.add.reduce(x), TypeError, ["numpy.add.reduce", "cannot be drawn"]),
    "a shape of two kinds": (lambda: Input((3,), batch_shape=(2, 3)), ValueError, ["either shape or batch_shape"]),
    "an input of negative length": (lambda: Input((-1,)), ValueError, ["negative lengths", r"\(-1,\)"]),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_answered(name):
    assert missing_words(*MISUSES[name]) == []


def test_one_length_is_a_shape():
    np.testing.assert_array_equal(ops.reshape(A, -1), np.reshape(A, -1))
    assert np.reshape(Input(batch_shape=(2, 3)), 6).shape == (6,)
    np.testing.assert_array_equal(ops.concatenate(A), np.concatenate([*A[:, None]], axis=None))
