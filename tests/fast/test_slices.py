"""Slices before pointwise ops: the same numbers, one loop for all gates, and what is left as it is."""

import pytest
from hypothesis import HealthCheck, given, settings

from rsref import Dense, Input, RecurrentModel, cells, ops
from rsref.graph import topological_order
from rsref.recurrence import Recurrence
from rsref.testing import random_arguments, step_graphs
from rsref_fast.concrete import concrete
from rsref_fast.layout import Section
from rsref_fast.slices import slice_first
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.test_merge import answers
from tests.fast.test_stages import programs_of, units
from tests.tolerances import assert_close


def moved(recurrence, arguments):
    """Return the step after the stage, whose answers are the same."""
    graph = recurrence.graph
    leaves = (*graph.sequences, *graph.constants, *graph.states)
    shapes = [s.shape[:1] + s.shape[2:] for s in arguments.sequences]
    shapes += [a.shape for a in (*arguments.constants, *arguments.states)]
    step = concrete(graph, dict(zip(leaves, shapes, strict=True)))
    own = Recurrence(slice_first(step), recurrence.zero_output_for_mask, recurrence.truncate)
    assert own.graph.parameters == graph.parameters
    for one, other in zip(answers(own, arguments), answers(recurrence, arguments), strict=True):
        assert_close(one, other, least=1.0)
    return own.graph


@settings(max_examples=examples(100, 40), suppress_health_check=list(HealthCheck))
@given(example=step_graphs())
def test_random_steps(example):
    moved(example.recurrence, example.arguments)


def layer_of(draw):
    x, h = Input((4,)), Input((4,))
    new = draw(x, h)
    return RecurrentModel(x, new, h, new, return_sequences=True)


def cuts(graph):
    """Return the names of the ops whose results are sliced."""
    order = topological_order([*graph.outputs, *graph.new_states])
    return [t.inputs[0].op.name if t.inputs[0].op else "leaf" for t in order if t.op and t.op.name == "slice"]


def gates(x, h):
    joint = ops.sigmoid(Dense(8, use_bias=False)(x) * Dense(8, use_bias=False)(h))
    return joint[:, :4] * h + joint[:, 4:] * x


def test_gates_are_cut_out_of_the_products():
    layer = layer_of(gates)
    assert cuts(layer.recurrence.graph) == ["sigmoid"] * 2
    graph = moved(layer.recurrence, random_arguments(layer.recurrence))
    assert set(cuts(graph)) == {"matmul"}
    check(layer.recurrence, random_arguments(layer.recurrence))


def whole_is_read(x, h):
    joint = ops.tanh(Dense(8)(h))
    return joint[:, :4] * joint[:, 4:] + ops.sum(joint, axis=1, keepdims=True)


def overlapping(x, h):
    joint = ops.tanh(Dense(8)(h))
    return joint[:, :4] * joint[:, 2:6]


def read_by_a_product(x, h):
    joint = ops.tanh(Dense(8)(h))
    return Dense(4)(joint[:, :4]) * joint[:, 4:]


def along_two_axes(x, h):
    joint = ops.tanh(ops.reshape(Dense(16)(h), (-1, 4, 4)))
    return joint[:, 0, :] * joint[:, :, 1]


@pytest.mark.parametrize("draw", [whole_is_read, overlapping, read_by_a_product, along_two_axes])
def test_what_is_left_as_it_is(draw):
    layer = layer_of(draw)
    before = cuts(layer.recurrence.graph)
    assert cuts(moved(layer.recurrence, random_arguments(layer.recurrence))) == before


def test_operands_that_are_broadcast_are_cut_where_they_have_the_axis():
    def draw(x, h):
        joint = ops.tanh(Dense(8)(h) * ops.sum(x, axis=1, keepdims=True) + 1.0)
        return joint[:, :4] - joint[:, 4:]

    layer = layer_of(draw)
    moved(layer.recurrence, random_arguments(layer.recurrence))
    check(layer.recurrence, random_arguments(layer.recurrence))


def test_a_gru_has_one_product_and_one_loop_a_step():
    layer = cells.GRUCell(5).get_layer()
    layer.build((None, None, 3))
    compiled = programs_of(layer)
    assert [len(u) > 1 for u in units(compiled.inference, Section.LOOP)] == [False, True]
    assert units(compiled.inference, Section.LOOP)[0] == ["matmul"]
    assert units(compiled.inference, Section.PREPARE) == [["add", "add"]]  # the two biases, once a call
    sums = [u for u in units(compiled.backward, Section.LOOP) if "sum_to_like" in u]
    assert not sums  # the biases' gradients are sunk, though they are joined


def test_a_product_adds_to_what_the_loop_computed_before_it():
    layer = cells.RHNCell(5).get_layer()
    layer.build((None, None, 3))
    assert units(programs_of(layer).backward, Section.LOOP)[-1] == ["matmul", "add"]
