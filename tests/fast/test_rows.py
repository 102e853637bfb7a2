"""What rows_of says of a tensor holds for its values: batches put together give their rows, or their sum, together."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rsref import Input, RecurrentModel, constant, ops
from rsref.graph import StepGraph, topological_order
from rsref.tensor import Parameter
from rsref.testing import step_graphs
from rsref.testing.arguments import random_arguments, random_leaf
from rsref_fast import rows
from rsref_fast.derivative import differentiate
from rsref_fast.rows import Rows, rows_of, unknown_ops
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.made import CELLS, recurrence_of
from tests.fast.test_derivative import values_of
from tests.tolerances import assert_close


def leaf_values(graph, batch, rng):
    """Return random values of a step's leaves for a batch, and the parameters' own."""
    values = {parameter.tensor: parameter.value for parameter in graph.parameters}
    for leaf in (*graph.sequences, *graph.constants, *graph.states):
        shape = (batch, *(3 if n is None else n for n in leaf.shape[1:]))
        values[leaf] = random_leaf(leaf, shape, rng)
    return values


def joined(first, second):
    """Return the values of two batches put together."""
    return {
        leaf: one if isinstance(leaf.source, Parameter) else np.concatenate([one, second[leaf]])
        for leaf, one in first.items()
    }


def compare(found, parts):
    """Compare the values for two batches with those for both together, tensor by tensor, as `found` says."""
    told = [tensor for tensor, kind in found.items() if kind is not Rows.MIXED]
    with np.errstate(all="ignore"):
        values = [values_of(told, given) for given in parts]
    for tensor, one, two, both in zip(told, *values):
        expected = {
            Rows.NONE: lambda one=one, two=two: one,
            Rows.FIRST: lambda one=one, two=two: np.concatenate([one, two]),
            Rows.LAST: lambda one=one, two=two: np.concatenate([one, two], -1),
            Rows.SUM: lambda one=one, two=two: one + two,
        }[found[tensor]]()
        assert_close(np.asarray(both, float), np.asarray(expected, float), least=1.0)


def check_forward(graph):
    found = rows_of([*graph.outputs, *graph.new_states])
    rng = np.random.default_rng(0)
    first, second = leaf_values(graph, 2, rng), leaf_values(graph, 3, rng)
    compare(found, (first, second, joined(first, second)))
    return found


def check_backward(graph):
    """The same for the backward step; what it reads of the forward step are true values of that."""
    forward_places = {}
    derivative = differentiate(graph)
    forward = rows_of([*graph.outputs, *graph.new_states, *derivative.saved], places=forward_places)
    leaves = (*derivative.saved_leaves, *derivative.shape_leaves)
    read = dict(zip(leaves, (*derivative.saved, *derivative.shaped)))
    known = {leaf: forward[tensor] for leaf, tensor in read.items()}
    given = dict(zip((*derivative.d_outputs, *derivative.d_new_states), (*graph.outputs, *graph.new_states)))
    known |= {leaf: forward[tensor] for leaf, tensor in given.items() if leaf is not None}
    places = {
        leaf: forward_places[t] for leaf, t in {**read, **given}.items() if leaf is not None and t in forward_places
    }
    found = rows_of(derivative.results, known, places)
    rng = np.random.default_rng(0)
    first, second = leaf_values(graph, 2, rng), leaf_values(graph, 3, rng)
    parts, gradients = [], {}
    with np.errstate(all="ignore"):
        for values in (first, second, joined(first, second)):
            saved = dict(zip(read, values_of(list(read.values()), values)))
            shapes = {leaf: values_of([tensor], values)[0].shape for leaf, tensor in given.items() if leaf is not None}
            arrived = {leaf: rng.standard_normal(shape) for leaf, shape in shapes.items()}
            if len(parts) == 2:
                arrived = {leaf: _together(forward[given[leaf]], *(part[leaf] for part in parts)) for leaf in shapes}
            parts.append({**values, **saved, **arrived})
            gradients.update(arrived)
    compare({t: k for t, k in found.items() if t in behind(derivative.results)}, parts)
    return derivative, found


def _together(kind, one, two):
    return one if kind is Rows.NONE else np.concatenate([one, two])


def behind(results):
    return set(topological_order(results))


@settings(max_examples=examples(300, 100), suppress_health_check=list(HealthCheck))
@given(example=step_graphs())
def test_random_steps_forward(example):
    check_forward(example.recurrence.graph)


@settings(max_examples=examples(300, 100), suppress_health_check=list(HealthCheck))
@given(example=step_graphs(max_ops=6))
def test_random_steps_backward(example):
    graph = example.recurrence.graph
    if Rows.MIXED not in rows_of([*graph.outputs, *graph.new_states]).values():
        check_backward(graph)


FOLDING = ("ConvLSTMCell", "AttentionDecoderCell")  # which fold places into the batch: their gradients stay MIXED


@pytest.mark.parametrize("name", [name for name in CELLS if name not in FOLDING])
def test_every_cell_is_known_forward_and_backward(name):
    """All of a cell's tensors treat samples alone, and every parameter's gradient is a sum over them."""
    graph = recurrence_of(name).graph
    assert set(check_forward(graph).values()) <= {Rows.NONE, Rows.FIRST}
    derivative, found = check_backward(graph)
    assert [found[d] for d in derivative.d_parameters] == [Rows.SUM] * len(graph.parameters)
    assert {found[d] for d in derivative.d_states if d is not None} <= {Rows.FIRST}


def test_places_folded_into_the_batch_stay_with_their_samples():
    x, kernel = Input((4, 6)), Parameter("kernel", np.ones((6, 2))).tensor
    rows_of_places = ops.reshape(x, (-1, 6))
    back = ops.reshape(ops.matmul(rows_of_places, kernel), (-1, 4, 2))
    total = ops.matmul(ops.transpose(rows_of_places), ops.matmul(rows_of_places, kernel))
    places = {}
    found = rows_of([back, total], places=places)
    assert (found[rows_of_places], places[rows_of_places]) == (Rows.FIRST, 4)
    assert (found[back], places[back]) == (Rows.FIRST, 1)
    assert found[total] is Rows.SUM


def test_samples_that_are_mixed_are_found():
    x, c = Input((3,)), constant(np.ones((2, 3)))
    mixing = [
        ops.matmul(x, ops.transpose(x, (1, 0))),
        ops.max(x, 0),
        ops.softmax(x, 0),
        ops.reshape(x, (-1, 2)),
        ops.reshape(x, (-1,)) + x[:, 0],
        ops.flip(x, 0),
        x + c,
        ops.sum(x, 0) * ops.sum(x, 0),
        ops.concatenate([x, x], 0),
        ops.cumsum(x, 0),
        x[:, :1] + ops.transpose(x[:, :1]),
        ops.einsum("bi,jk->bik", x, ops.transpose(x)),
        ops.broadcast_like(ops.sum(x, 0, keepdims=True), x),
    ]
    found = rows_of(mixing)
    assert [found[y] for y in mixing] == [Rows.MIXED] * len(mixing)


def test_samples_that_are_kept_apart_or_added_up_are_found():
    """As integers, with the batch last, and scaled by what is the same for all: else nothing is hoisted or sunk."""
    x, c = Input((3,)), constant(np.ones(3))
    apart, last, total = ops.cast(x, "int"), ops.cast(ops.transpose(x), "int"), ops.sum(x, 0)
    sums = [total, -total, total + total, total * c, total / c, c * total]
    found = rows_of([apart, last, *sums])
    assert (found[apart], found[last]) == (Rows.FIRST, Rows.LAST)
    assert [found[y] for y in sums] == [Rows.SUM] * len(sums)


def test_how_many_samples_there_are_depends_on_the_batch():
    """Also where the batch is the last axis, or both are."""
    x, c = Input((3,)), Input((3,))
    for mean in (ops.mean(ops.transpose(c), 1), ops.mean(c @ ops.transpose(c), 1, keepdims=True)):
        layer = RecurrentModel(x, x + mean, constants=c)
        layer.build((None, None, 3), (None, 3))
        check_forward(layer.recurrence.graph)
        check(layer.recurrence, random_arguments(layer.recurrence, batch=2))


def test_every_op_has_a_rule():
    assert unknown_ops(ops.REGISTRY) == []


def test_the_check_sees_a_wrong_rule(monkeypatch):
    x = Input((3,))
    graph = StepGraph(sequences=[x], outputs=[ops.softmax(x, 0)])
    check_forward(graph)
    monkeypatch.setitem(rows.RULES, "softmax", lambda tensor, kinds: Rows.FIRST)
    with pytest.raises(AssertionError, match="relative error"):
        check_forward(graph)
