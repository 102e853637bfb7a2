"""The drawn backward step against the oracle's: random graphs and every cell, one timestep with the batch as it is."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rsref import Input, ops
from rsref.engine import ReferenceEngine
from rsref.graph import StepGraph, topological_order
from rsref.ops.base import concrete_attrs
from rsref.ops.pointwise import Pointwise
from rsref.recurrence import Recurrence
from rsref.tensor import ConstantSource, Tensor
from rsref.testing import random_arguments, step_graphs
from rsref_fast.derivative import differentiate
from tests.covering import examples
from tests.fast.made import CELLS, recurrence_of
from tests.rsref.features.plain import factor
from tests.tolerances import assert_close


def values_of(outputs, given):
    """Return the values of tensors, given those of their leaves, op by op."""
    known = dict(given)
    for tensor in topological_order(outputs):
        if tensor in known:
            continue
        if isinstance(tensor.source, ConstantSource):
            known[tensor] = tensor.source.value
            continue
        operands = [known[operand] for operand in tensor.inputs]
        known[tensor] = tensor.op.forward(*operands, **concrete_attrs(tensor.attrs, np.float64))
    return [known[tensor] for tensor in outputs]


def check(recurrence, arguments):
    """Compare one timestep's gradients with those of the oracle for a sequence of one step."""
    recurrence = Recurrence(recurrence.graph)
    graph = recurrence.graph
    engine = ReferenceEngine(recurrence)
    outputs, states, tape = arguments.forward(engine)
    d_outputs = [factor(y.shape) if y.dtype.kind == "f" else None for y in outputs]
    d_states = [factor(s.shape) if s.dtype.kind == "f" else None for s in states]
    expected = engine.backward(tape, d_outputs, d_states)

    derivative = differentiate(graph)
    leaves = {
        **dict(zip(graph.sequences, (s[:, 0] for s in arguments.sequences))),
        **dict(zip(graph.constants, arguments.constants)),
        **dict(zip(graph.states, arguments.states)),
        **dict(zip((p.tensor for p in graph.parameters), arguments.parameters)),
    }
    saved = values_of(derivative.saved, leaves)
    given = {**leaves, **dict(zip(derivative.saved_leaves, saved))}
    for leaf, value in zip(derivative.shape_leaves, values_of(derivative.shaped, leaves)):
        given[leaf] = np.full(value.shape, np.nan)  # its values must not matter
    arrived = [*(None if d is None else d[:, 0] for d in d_outputs), *d_states]
    for leaf, d in zip((*derivative.d_outputs, *derivative.d_new_states), arrived):
        assert (leaf is None) == (d is None)
        if leaf is not None:
            given[leaf] = d
    found = iter(values_of(derivative.results, given))
    groups = {
        "d_sequences": [None if d is None else d[:, 0] for d in expected.sequences],
        "d_constants": expected.constants,
        "d_states": expected.states,
        "d_parameters": expected.parameters,
    }
    for name, right in groups.items():
        for tensor, d in zip(getattr(derivative, name), right, strict=True):
            if tensor is not None:
                assert_close(np.broadcast_to(next(found), d.shape), d, least=1.0)
            elif d is not None:
                assert_close(d, np.zeros_like(d))
    return derivative


@settings(max_examples=examples(300, 100), suppress_health_check=list(HealthCheck))
@given(example=step_graphs())
def test_random_steps(example):
    check(example.recurrence, random_arguments(example.recurrence, batch=example.arguments.batch, steps=1))


@pytest.mark.parametrize("name", CELLS)
def test_every_cell(name):
    own = recurrence_of(name)
    check(own, random_arguments(own, batch=3, steps=1))


def two_ops():
    x, h = Input((3,)), Input((3,))
    z = ops.tanh(x + h)
    e = ops.exp(z)
    return StepGraph(sequences=[x], states=[h], outputs=[e * z], new_states=[e]), z, e


def test_what_backward_reads_of_forward_is_a_leaf_of_the_backward_step():
    graph, z, e = two_ops()
    derivative = differentiate(graph)
    assert set(derivative.saved) == {z, e}
    assert not set(topological_order(derivative.results)) & {t for t in graph.order if t.op is not None}


def test_what_gets_no_gradient_is_none():
    x, i, h = Input((3,)), Input((), dtype="int"), Input((3,))
    graph = StepGraph(sequences=[x, i], states=[h], outputs=[ops.one_hot(i, 3)], new_states=[x * 2.0])
    derivative = differentiate(graph)
    assert derivative.d_states == (None,)
    assert derivative.d_sequences[1] is None
    assert derivative.saved == ()


def test_the_check_sees_a_wrong_gradient(monkeypatch):
    recurrence = Recurrence(two_ops()[0])
    arguments = random_arguments(recurrence, batch=2, steps=1)
    check(recurrence, arguments)
    exp = ops.REGISTRY["exp"]

    def wrong_when_drawn(wrt, g, y, x):
        return g * y * (2 if isinstance(y, Tensor) else 1)

    monkeypatch.setattr(exp, "vjp", wrong_when_drawn)
    with pytest.raises(AssertionError, match="relative error"):
        check(recurrence, arguments)


@pytest.mark.parametrize(
    ("derivative", "words"),
    [
        (lambda g: 0.0, r"has shape \(\), the result \(None, 3\)"),
        (lambda g, x: x > 0, "holds bool values, not floats"),
        (lambda g, x: np.where(x > 0, 1, 0), "holds int values, not floats"),
    ],
)
def test_a_gradient_that_is_no_array_of_floats_is_answered(derivative, words):
    """Drawn, a number would be read as an array, and bools as floats: kernels answered what lay in memory."""
    x = Input((3,))
    step = StepGraph(sequences=[x], outputs=[Pointwise("own", lambda x: 2 * x, (derivative,), "float")(x)])
    with pytest.raises(ValueError, match=f"op 'own': the gradient with respect to operand 0 {words}"):
        differentiate(step)
