"""A step taken apart gives the oracle's values and gradients; what left the loop is computed for all steps at once."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from rsref import Dense, Input, RecurrentModel, add, cells, ops, set_random_seed
from rsref.cells import basic
from rsref.engine import ReferenceEngine
from rsref.ops.base import concrete_attrs
from rsref.recurrence import Recurrence
from rsref.tensor import ConstantSource, Parameter
from rsref.testing import random_arguments, step_graphs
from rsref_fast.derivative import differentiate
from rsref_fast.rows import Rows, rows_of
from rsref_fast.schedule import Schedule, schedule
from tests.covering import examples
from tests.rsref.features.plain import factor
from tests.tolerances import assert_close


def compute(tensors, known):
    """Compute tensors in order, given what they read; the answers join what is known."""
    for tensor in tensors:
        for operand in tensor.inputs:
            if isinstance(operand.source, ConstantSource):
                known[operand] = operand.source.value
        operands = [known[operand] for operand in tensor.inputs]
        known[tensor] = tensor.op.forward(*operands, **concrete_attrs(tensor.attrs, np.float64))


def run(plan, rows, once, stepped, states, handed_on, order, batch):
    """Run a schedule over time; returns the values of all tensors, those in the loop stacked over (time, batch).

    once: leaf -> value; stepped: leaf -> (time, batch, ...); states: leaf -> value where the loop begins;
    handed_on: leaf -> the result that the next step reads in its place; order: the timesteps as they are run.
    """
    steps = len(order)
    known = dict(once)
    compute(plan.once, known)
    # where samples of all timesteps stand side by side, what is one batch's is repeated
    folded = {t: np.concatenate([v] * steps) if _is_batch(t, rows) else v for t, v in known.items()}
    for leaf, value in stepped.items():
        folded[leaf] = value.reshape(-1, *value.shape[2:])
    compute(plan.before, folded)
    at = {t: _unfolded(folded[t], rows[t], steps) for t in plan.before}
    current, kept, read = dict(states), {t: [None] * steps for t in plan.loop}, {s: [None] * steps for s in states}
    for t in order:
        now = {**known, **{k: v[t] for k, v in stepped.items()}, **{k: v[t] for k, v in at.items()}, **current}
        compute(plan.loop, now)
        for tensor in plan.loop:
            kept[tensor][t] = now[tensor]
        for leaf in states:
            read[leaf][t] = current[leaf]
        current = {leaf: now[result] for leaf, result in handed_on.items()}
    for tensor, values in {**kept, **read}.items():
        kind = rows.get(tensor, Rows.FIRST)
        folded[tensor] = np.concatenate(values, -1 if kind is Rows.LAST else 0) if kind is not Rows.NONE else values[0]
    compute(plan.after, folded)
    return folded, current


def _is_batch(tensor, rows):
    if isinstance(tensor.source, ConstantSource | Parameter):
        return False
    return rows.get(tensor, Rows.FIRST) is Rows.FIRST


def _unfolded(value, kind, steps):
    return np.split(value, steps, -1 if kind is Rows.LAST else 0)


def forward_plan(graph):
    results = [*graph.outputs, *graph.new_states]
    rows = rows_of(results)
    stepped, carried = set(graph.sequences), set(graph.states)
    return rows, schedule(results, rows, stepped=stepped, carried=carried, needed=set(graph.new_states))


def check_forward(recurrence, arguments):
    graph = recurrence.graph
    rows, plan = forward_plan(graph)
    once = dict(
        zip([*graph.constants, *(p.tensor for p in graph.parameters)], arguments.constants + arguments.parameters)
    )
    stepped = {leaf: np.moveaxis(s, 1, 0) for leaf, s in zip(graph.sequences, arguments.sequences)}
    states = dict(zip(graph.states, arguments.states))
    steps, batch = arguments.length, arguments.batch
    handed = dict(zip(graph.states, graph.new_states))
    folded, final = run(plan, rows, once, stepped, states, handed, range(steps), batch)
    outputs, new_states, _ = arguments.forward(ReferenceEngine(recurrence))
    for tensor, y in zip(graph.outputs, outputs):
        value = folded[tensor].reshape(steps, batch, *folded[tensor].shape[1:])
        assert_close(np.moveaxis(value, 0, 1).astype(float), y.astype(float), least=1.0)
    for leaf, expected in zip(graph.states, new_states):
        assert_close(np.asarray(final[leaf], float), expected.astype(float), least=1.0)


@settings(max_examples=examples(200, 60), suppress_health_check=list(HealthCheck))
@given(example=step_graphs())
def test_random_steps_forward(example):
    assume(example.arguments.length)
    recurrence = Recurrence(example.recurrence.graph)
    graph = recurrence.graph
    rows = rows_of([*graph.outputs, *graph.new_states])
    assume(Rows.MIXED not in rows.values())
    assume(all(t.op is not None for t in graph.new_states) and all(rows[y] is Rows.FIRST for y in graph.outputs))
    arguments = random_arguments(recurrence, batch=3, steps=4)
    assume(any(a.dtype.kind == "f" for a in arguments.arrays()))  # else the oracle computes in float32
    check_forward(recurrence, arguments)


CELLS = {
    "basic LSTM": lambda: basic.LSTMCell(3),
    "basic GRU": lambda: basic.GRUCell(3),
    **{
        name: (lambda name=name: getattr(cells, name)(4))
        for name in ("LSTMCell", "GRUCell", "PeepholeLSTMCell", "LayerNormLSTMCell", "RHNCell", "RWACell", "SLSTMCell")
    },
}


def recurrence_of(name):
    set_random_seed(0)
    layer = CELLS[name]().get_layer()
    layer.build((None, None, 2))
    return layer.recurrence


@pytest.mark.parametrize("name", CELLS)
def test_cells_forward(name):
    recurrence = recurrence_of(name)
    check_forward(recurrence, random_arguments(recurrence, batch=3, steps=5))


@pytest.mark.parametrize("name", CELLS)
def test_cells_backward(name):
    """The gradients of the parameters are one computation after the loop, over the samples of all timesteps."""
    recurrence = recurrence_of(name)
    graph = recurrence.graph
    arguments = random_arguments(recurrence, batch=3, steps=5)
    engine = ReferenceEngine(recurrence)
    outputs, states, tape = arguments.forward(engine)
    d_outputs, d_states = [factor(y.shape) for y in outputs], [factor(s.shape) for s in states]
    expected = engine.backward(tape, d_outputs, d_states)

    derivative = differentiate(
        graph, keep=lambda tensor, _: tensor in graph.order
    )  # the oracle has the values of those
    forward_places = {}
    forward_rows = rows_of([*graph.outputs, *graph.new_states], places=forward_places)
    leaves = (*derivative.saved_leaves, *derivative.shape_leaves)
    read = dict(zip(leaves, (*derivative.saved, *derivative.shaped)))
    known = {leaf: forward_rows[t] for leaf, t in read.items()}
    places = {leaf: forward_places[t] for leaf, t in read.items() if t in forward_places}
    rows = rows_of(derivative.results, known, places)
    parameters = {p.tensor: a for p, a in zip(graph.parameters, arguments.parameters)}
    values = [[step[i] for step in tape.values] for i in range(engine.size)]
    place = {t: i for i, t in enumerate(graph.order)}
    per_step = {
        leaf: np.stack(values[place[t]]) for leaf, t in read.items()
        if forward_rows[t] is not Rows.NONE
    }  # fmt: skip
    fixed = {leaf: values[place[t]][0] for leaf, t in read.items() if forward_rows[t] is Rows.NONE}
    for leaf in (*graph.states, *graph.sequences):
        if leaf in place:
            per_step[leaf] = np.stack(values[place[leaf]])
    for leaf, d in zip(derivative.d_outputs, d_outputs):
        per_step[leaf] = np.moveaxis(d, 1, 0)
    carried = dict(zip(derivative.d_new_states, d_states))
    needed = [d for d in derivative.d_states if d is not None]
    plan = schedule(derivative.results, rows, stepped=set(per_step), carried=set(carried), needed=set(needed))
    assert set(derivative.d_parameters) <= set(plan.after)
    handed = {leaf: d for leaf, d in zip(derivative.d_new_states, derivative.d_states) if d is not None}
    assert set(handed) == set(carried)
    folded, final = run(plan, rows, {**parameters, **fixed}, per_step, carried, handed, range(5)[::-1], 3)
    for tensor, d in zip(derivative.d_parameters, expected.parameters):
        assert_close(folded[tensor], d, least=1.0)
    for leaf, d in zip(derivative.d_new_states, expected.states):
        assert_close(final[leaf], d, least=1.0)


def named(tensors):
    return sorted(t.op.name for t in tensors)


def test_an_lstm_of_eight_dense_layers_keeps_four_products_in_its_loop():
    graph = recurrence_of("basic LSTM").graph
    _, plan = forward_plan(graph)
    assert named(plan.before).count("matmul") == 4
    assert named(plan.loop).count("matmul") == 4
    assert plan.after == ()


def test_an_output_layer_sinks_and_a_readout_keeps_it():
    x, h, r = Input((3,)), Input((4,)), Input((2,))
    new = ops.tanh(add([Dense(4)(x), Dense(4)(h)]))
    y = Dense(2)(new)
    sunk = forward_plan(RecurrentModel(x, y, h, new).recurrence.graph)[1]
    assert named(sunk.after).count("matmul") == 1
    fed = ops.tanh(add([Dense(4)(x), Dense(4)(h), Dense(4)(r)]))
    kept = forward_plan(RecurrentModel(x, Dense(2)(fed), h, fed, r).recurrence.graph)[1]
    assert kept.after == ()


def test_what_reads_constants_alone_is_computed_once():
    x, c, h = Input((3,)), Input((3,)), Input((3,))
    key = ops.tanh(Dense(3)(c))
    new = h + x * key
    plan = forward_plan(RecurrentModel(x, new, h, new, constants=c).recurrence.graph)[1]
    assert named(plan.once) == ["add", "matmul", "tanh"]
    assert named(plan.before) == []
    assert named(plan.loop) == ["add", "multiply"]  # pointwise, and read by the loop alone: not worth storing


def test_what_mixes_samples_stays_in_the_loop():
    x, h = Input((3,)), Input((3,))
    new = h + (x - ops.mean(x, 0, keepdims=True))
    plan = forward_plan(RecurrentModel(x, new, h, new).recurrence.graph)[1]
    assert "sum" in named(plan.loop)


def test_the_check_sees_a_product_that_was_hoisted_wrongly(monkeypatch):
    import tests.fast.test_schedule as here

    recurrence = recurrence_of("RWACell")
    arguments = random_arguments(recurrence, batch=3, steps=5)
    original = here.schedule

    def too_early(*arguments, **options):
        plan = original(*arguments, **options)
        return Schedule(plan.once, (*plan.before, *plan.loop), (), plan.after)

    monkeypatch.setattr(here, "schedule", too_early)
    with pytest.raises((AssertionError, KeyError)):
        check_forward(recurrence, arguments)
