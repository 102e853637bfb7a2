"""Sums in another order: the same numbers, what depends on no state first, and products that add to it in place."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rsref import Input, RecurrentModel, cells, ops
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter
from rsref.testing import random_arguments, step_graphs
from rsref_fast.layout import Section
from rsref_fast.sums import reorder
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.test_merge import answers
from tests.fast.test_stages import programs_of, units
from tests.tolerances import assert_close


def check_the_same(recurrence, arguments):
    own = Recurrence(reorder(recurrence.graph), recurrence.zero_output_for_mask, recurrence.truncate)
    assert own.graph.parameters == recurrence.graph.parameters
    for one, other in zip(answers(own, arguments), answers(recurrence, arguments), strict=True):
        assert_close(one, other, least=1.0)
    return own.graph


@settings(max_examples=examples(100, 40), suppress_health_check=list(HealthCheck))
@given(example=step_graphs())
def test_random_steps(example):
    check_the_same(example.recurrence, example.arguments)


@pytest.mark.parametrize("cell", ["LSTMCell", "PeepholeLSTMCell", "SimpleRNNCell", "RHNCell"])
def test_the_product_of_a_step_adds_to_what_was_computed_before_the_loop(cell):
    layer = getattr(cells, cell)(5).get_layer()
    layer.build((None, None, 3))
    check_the_same(layer.recurrence, random_arguments(layer.recurrence))
    compiled = programs_of(layer)
    assert ["matmul", "add"] in units(compiled.forward, Section.LOOP)
    assert units(compiled.forward, Section.BEFORE) == [["matmul", "add"]]  # of which each row begins with the bias
    assert all(
        program.layout.begins_with_row(unit.tensors[-1])
        for program in (compiled.forward, compiled.inference)
        for unit in program.units[Section.BEFORE]
    )


def drawn(total):
    x, h = Input((4,)), Input((4,))
    hidden = total(x, h)
    layer = RecurrentModel(x, hidden, h, ops.tanh(hidden))
    layer.build((None, None, 4))
    return layer


def test_a_sum_that_is_read_twice_stays_whole():
    weights = Parameter("w", np.random.default_rng(0).normal(size=(4, 4))).tensor

    def total(x, h):
        first = x + ops.matmul(h, weights)
        return ops.tanh(first) + (first + x)

    layer = drawn(total)
    check_the_same(layer.recurrence, random_arguments(layer.recurrence))
    check(layer.recurrence, random_arguments(layer.recurrence))


def test_a_product_that_is_drawn_first_adds_to_what_follows():
    weights = Parameter("w", np.random.default_rng(0).normal(size=(4, 4))).tensor
    layer = drawn(lambda x, h: ops.tanh(ops.matmul(h, weights) + ops.sin(x)))
    assert ["matmul", "add"] in units(programs_of(layer).forward, Section.LOOP)
    check(layer.recurrence, random_arguments(layer.recurrence))


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
@pytest.mark.parametrize("section", [Section.BEFORE, Section.LOOP, Section.AFTER])
def test_a_product_begins_with_a_row(section, shape):
    rng = np.random.default_rng(0)
    sizes = {"w": (4, 4), "u": (4, 4), "b": shape}
    weights, own, bias = (Parameter(name, rng.normal(size=size)).tensor for name, size in sizes.items())
    x, h = Input((4,)), Input((4,))
    dense = bias + ops.matmul(x if section is Section.BEFORE else h, weights)
    total = {Section.BEFORE: ops.tanh(dense + h @ own), Section.LOOP: ops.tanh(dense) * x, Section.AFTER: dense}[
        section
    ]
    layer = RecurrentModel(x, total, h, ops.tanh(x + h) if section is Section.AFTER else total)
    layer.build((None, None, 4))
    assert ["matmul", "add"] in units(programs_of(layer).forward, section)
    check(layer.recurrence, random_arguments(layer.recurrence))


@pytest.mark.parametrize("row", [False, True])
def test_what_is_no_row_or_a_product_that_is_read_twice_is_added_afterwards(row):
    weights = Parameter("w", np.random.default_rng(0).normal(size=(4, 4))).tensor
    start = Parameter("b", np.random.default_rng(1).normal(size=(4,) if row else (1,))).tensor

    def total(x, h):
        product = ops.matmul(x, weights)
        return ops.tanh(start + product) * (product if row else h)

    layer = drawn(total)
    assert not programs_of(layer).forward.layout.sums
    check(layer.recurrence, random_arguments(layer.recurrence))


def test_what_something_else_reads_is_not_added_to():
    weights = Parameter("w", np.random.default_rng(0).normal(size=(4, 4))).tensor

    def total(x, h):
        start = ops.tanh(x)
        return (start + ops.matmul(h, weights)) * start

    layer = drawn(total)
    compiled = programs_of(layer)
    assert ["matmul", "add"] not in units(compiled.forward, Section.LOOP)
    check(layer.recurrence, random_arguments(layer.recurrence))


def begun_in_the_loop(x, h, w):
    """Backward reads what stands three times in the sum's first term."""
    part = ops.tanh(x[:, :2] * h[:, 2:])
    return ops.concatenate([part, ops.sin(h[:, :2])], -1) + ops.matmul(h, w)


def begun_before_it(x, h, w):
    """The step reads, after the sum, what stands in its first term."""
    part = ops.sin(x[:, :2])
    total = ops.concatenate([part, ops.cos(x[:, :2])], -1) + ops.matmul(h, w)
    return total * ops.expand_dims(ops.sum(ops.matmul(total, w)[:, :2] * part, -1), 1)


def begun_with_parts_of_parts(x, h, w):
    part = ops.tanh(x[:, :2] * h[:, 2:])
    first = ops.concatenate([ops.concatenate([part[:, :1] + part[:, 1:], ops.sin(h[:, :1])], -1), part], -1)
    return first + ops.matmul(h, w)


def begun(draw):
    """A step whose state is a sum that begins with a concatenation."""
    w = Parameter("w", np.random.default_rng(0).normal(size=(4, 4))).tensor
    return drawn(lambda x, h: draw(x, h, w)).recurrence


@pytest.mark.parametrize("draw", [begun_in_the_loop, begun_before_it, begun_with_parts_of_parts])
@pytest.mark.parametrize("target", examples(["interpreter", "cpu"], ["interpreter"]))
def test_what_is_read_of_the_first_term_is_not_added_to(draw, target):
    own = begun(draw)
    check(own, random_arguments(own, batch=3, steps=4), target=target)
