"""Loops, and what they must leave in memory or add up: small steps, each with one reason for it."""

import numpy as np
import pytest

from rsref import Input, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter
from rsref.testing import random_arguments
from tests.fast.agreement import check

UNITS = 3


def weights(*shape):
    return Parameter("w", np.random.default_rng(0).normal(size=shape)).tensor


def product(h):
    return h @ weights(UNITS, UNITS)


def moved(x, h):
    """The constant's gradient is turned, by no loop of pointwise ops."""
    c = Input((2 * UNITS,))
    turned = ops.transpose(ops.reshape(c, (-1, 2, UNITS)), (0, 2, 1))
    return c, ops.sum(ops.expand_dims(h, 2) * turned * ops.sin(turned), 2)


def added_by_a_product(x, h):
    """The constant's gradient is a sum, whose last term a product adds."""
    c = Input((UNITS,))
    total = c + 2.0 * h
    return c, product(total) + ops.sin(total)


def also_summed(x, h):
    """The constant's gradient costs nothing to compute again, but is added up where it is computed, once."""
    c = Input((2 * UNITS,))
    return c, ops.sum(ops.reshape((c + h[:, :1]) * x, (-1, 2, UNITS)), 1)


@pytest.mark.parametrize("draw", [moved, added_by_a_product, also_summed])
def test_gradients_of_constants_are_added_up_once_each(draw):
    x, h = Input((2 * UNITS,)), Input((UNITS,))
    c, drawn = draw(x, h)
    new = ops.tanh(x[:, :UNITS] + drawn)
    own = Recurrence(StepGraph(sequences=[x], constants=[c], states=[h], outputs=[new], new_states=[new]))
    check(own, random_arguments(own, batch=3, steps=4), threads=2)


def test_a_sum_of_what_a_product_adds_to():
    """What the product adds to must be in memory, though nothing but a sum over the features reads it."""
    x, h = Input((UNITS,)), Input((UNITS,))
    new = ops.tanh(x + h * ops.sum(ops.sin(h) + product(h), -1, keepdims=True))
    own = Recurrence(StepGraph(sequences=[x], states=[h], outputs=[new], new_states=[new]))
    check(own, random_arguments(own, batch=3, steps=4))


def turned(h):
    """What costs nothing to compute again is read beside a view of it."""
    a = ops.reshape(h, (-1, 2, 2)) * weights(2, 2)
    return ops.reshape(a + ops.transpose(a, (0, 2, 1)), (-1, 4))


def turned_alone(h):
    """A view has the shape of what it shows."""
    return ops.reshape(ops.transpose(ops.reshape(h, (-1, 2, 2)) * weights(2, 2), (0, 2, 1)), (-1, 4))


def like_a_sum(h):
    """It says to which shape something else is summed."""
    a, y = ops.expand_dims(h, 1) * weights(4), ops.sin(ops.reshape(h, (-1, 4, 1)))
    return (a + ops.sum_to_like(ops.broadcast_to(y, (None, 4, 4)), a))[:, 0]


def like_a_shape(h):
    """It says in which shape something else is read."""
    a = h * weights(4)
    return a * ops.reshape_like(ops.transpose(ops.reshape(ops.sin(h), (-1, 2, 2)), (0, 2, 1)), a)


@pytest.mark.parametrize("draw", [turned, turned_alone, like_a_sum, like_a_shape])
def test_what_is_cheap_is_in_memory_if_not_only_its_own_elements_are_read(draw):
    x, h = Input((4,)), Input((4,))
    new = ops.tanh(x + draw(h))
    own = Recurrence(StepGraph(sequences=[x], states=[h], outputs=[new], new_states=[new]))
    check(own, random_arguments(own, batch=3, steps=4))
