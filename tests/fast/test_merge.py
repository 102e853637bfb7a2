"""Merged products: the same numbers, and as few products as there are left operands."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rsref import Dense, Input, RecurrentModel, ops
from rsref.engine import ReferenceEngine
from rsref.recurrence import Recurrence
from rsref.testing import random_arguments, step_graphs
from rsref_fast import merge as merging
from rsref_fast.derivative import differentiate
from rsref_fast.merge import merge
from rsref_fast.rows import rows_of
from rsref_fast.schedule import schedule
from tests.covering import examples
from tests.fast.test_schedule import CELLS, forward_plan, named, recurrence_of
from tests.rsref.features.plain import factor
from tests.tolerances import assert_close


def answers(recurrence, arguments):
    """Return outputs, states and all gradients."""
    engine = ReferenceEngine(recurrence)
    outputs, states, tape = arguments.forward(engine)
    weighed = [factor(v.shape) if v.dtype.kind == "f" else None for v in (*outputs, *states)]
    found = engine.backward(tape, weighed[: len(outputs)], weighed[len(outputs) :])
    gradients = [*found.sequences, *found.constants, *found.states, *found.parameters]
    return [np.asarray(v, float) for v in (*outputs, *states, *(g for g in gradients if g is not None))]


def check(recurrence, arguments):
    merged = Recurrence(merge(recurrence.graph), recurrence.zero_output_for_mask, recurrence.truncate)
    assert merged.graph.parameters == recurrence.graph.parameters
    for one, other in zip(answers(merged, arguments), answers(recurrence, arguments), strict=True):
        assert_close(one, other, least=1.0)
    return merged.graph


@settings(max_examples=examples(200, 60), suppress_health_check=list(HealthCheck))
@given(example=step_graphs())
def test_random_steps(example):
    check(Recurrence(example.recurrence.graph), random_arguments(example.recurrence, batch=2, steps=3))


@pytest.mark.parametrize("name", CELLS)
def test_cells(name):
    recurrence = recurrence_of(name)
    check(recurrence, random_arguments(recurrence, batch=3, steps=4))


def test_an_lstm_of_eight_dense_layers_ends_with_one_product_a_step():
    graph = recurrence_of("basic LSTM").graph
    plan = forward_plan(merge(graph))[1]
    assert named(plan.before).count("matmul") == 1
    assert named(plan.loop).count("matmul") == 1
    assert "concatenate" in named(plan.once)  # the weights are joined once a call


def test_its_backward_step_has_one_product_too():
    """One for the gradient of the state, in the loop; after it one for each of the two joint weights."""
    graph = merge(recurrence_of("basic LSTM").graph)
    derivative = differentiate(graph)
    forward = rows_of([*graph.outputs, *graph.new_states])
    rows = rows_of(derivative.results, {leaf: forward[t] for leaf, t in zip(derivative.saved_leaves, derivative.saved)})
    carried = {leaf for leaf in derivative.d_new_states if leaf is not None}
    fixed = {p.tensor for p in graph.parameters}
    stepped = {*derivative.saved_leaves, *derivative.d_outputs, *graph.sequences, *graph.states} - fixed
    results = [d for d in derivative.results if d not in derivative.d_sequences]
    plan = schedule(results, rows, stepped=stepped, carried=carried, needed=set(derivative.d_states))
    assert named(plan.loop).count("matmul") == 1
    assert named(plan.after).count("matmul") == 2


def test_shared_weights_are_multiplied_once():
    x, h = Input((4,)), Input((4,))
    dense = Dense(4)
    new = dense(h) + dense(h) * x
    graph = check(
        RecurrentModel(x, new, h, new).recurrence,
        random_arguments(RecurrentModel(x, new, h, new).recurrence, batch=2, steps=3),
    )
    assert named(t for t in graph.order if t.op is not None).count("matmul") == 1


def test_the_check_sees_columns_exchanged(monkeypatch):
    recurrence = recurrence_of("basic LSTM")
    arguments = random_arguments(recurrence, batch=2, steps=3)
    joint = merging._joint

    def exchanged(group):
        found = joint(group)
        first, second = list(found)[:2]
        return {**found, first: found[second], second: found[first]}

    monkeypatch.setattr(merging, "_joint", exchanged)
    with pytest.raises(AssertionError, match="relative error"):
        check(recurrence, arguments)


def test_products_of_different_tensors_stay_apart():
    x, h = Input((3,)), Input((3,))
    new = ops.tanh(Dense(3)(x) + Dense(3)(h))
    graph = merge(RecurrentModel(x, new, h, new).recurrence.graph)
    assert named(t for t in graph.order if t.op is not None).count("matmul") == 2


def test_products_with_other_samples_stay_apart():
    """They share their left operand, but what is on the right has as many columns as there are samples."""
    x, h, c = Input((3,)), Input((3,)), Input((3,))
    new = ops.tanh(h + (x @ ops.transpose(h)) @ h + (x @ ops.transpose(c)) @ c)
    own = RecurrentModel(x, new, h, new, constants=c).recurrence
    check(own, random_arguments(own, batch=2, steps=3))
