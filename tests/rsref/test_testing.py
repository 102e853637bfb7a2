"""The public tools of rsref.testing: derivatives of known functions, stopped gradients, what is drawn."""

import re
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from rsref import Input, Parameter, Recurrence, ReferenceEngine, StepGraph, ops
from rsref.ops.pointwise import Pointwise
from rsref.testing import (
    Arguments,
    check_gradients,
    complex_step_gradient,
    directional_derivative,
    masks,
    random_arguments,
    relative_error,
    step_graphs,
)
from tests.tolerances import assert_close


def recurrence(step, **options):
    """Return a recurrence of one sequence, one state and one parameter, from a function of the three."""
    x, h, w = Input((3,), name="x"), Input((3,), name="h"), Parameter("w", np.array([0.5, -1.0, 2.0]))
    new = step(x, h, w.tensor)
    return Recurrence(StepGraph(sequences=[x], states=[h], outputs=[new], new_states=[new]), **options)


def test_derivatives_of_a_known_function():
    x, direction = np.array([[0.3, -1.2], [2.0, 0.1]]), np.array([[1.0, 2.0], [-1.0, 0.5]])
    assert_close(complex_step_gradient(lambda a: np.sum(np.sin(a)), x), np.cos(x))
    for method, kind in (("complex", "complex step"), ("difference", "differences")):
        (found,) = directional_derivative(lambda a, b: a * np.exp(b), [x, x], [direction, None], method)
        assert_close(found, direction * np.exp(x), kind)
    with pytest.raises(ValueError, match=r"method must be .*; got 'forward'"):
        directional_derivative(np.sin, [x], [direction], "forward")


def test_relative_error():
    gradient, direction = np.array([1.0, 2.0]), np.array([3.0, -1.0])
    assert relative_error([gradient, None], [direction, None], 1.0) == 0
    assert relative_error([gradient], [direction], 1.5) == pytest.approx(0.1)
    assert relative_error([gradient * np.nan], [direction], 1.0) == float("inf")
    assert relative_error([gradient * 0], [direction], 1e-9) == pytest.approx(1e-5)


EVERY_OP = tuple(ops.REGISTRY)
HELD = {
    "stop_gradient": lambda x, h, w: ops.tanh(x * w + ops.stop_gradient(h * w)),
    "sign": lambda x, h, w: ops.tanh(x * w + h) * ops.sign(h + x),
    "floor and ceil": lambda x, h, w: x * ops.floor(3 * h) * 0.1 + ops.ceil(w) * h * 0.1,
    "round": lambda x, h, w: x * ops.round(3 * h) * w * 0.1 + h,
    "floor_divide": lambda x, h, w: x + 0.1 * h * ops.floor_divide(h, w),
    "absolute": lambda x, h, w: ops.tanh(ops.absolute(x * w) - ops.absolute(h)),
}
RAGGED = np.array([[1, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0]], bool)


@pytest.mark.parametrize("method", ["complex", "difference"])
@pytest.mark.parametrize("options", [{}, {"truncate": 2}, {"truncate": 3, "zero_output_for_mask": True}], ids=str)
@pytest.mark.parametrize("name", list(HELD))
def test_what_has_no_gradient_is_held_fixed(name, options, method):
    drawn = recurrence(HELD[name], **options)
    for mask in (None, RAGGED):
        errors = check_gradients(drawn, random_arguments(drawn, mask=mask), method=method)
        assert set(errors) == {"sequence 0 (x)", "state 0 (h)", "parameter w"}


def own(formula, *derivatives):
    return Pointwise("own", formula, derivatives, "float")


OWN = {
    "absolute": own(lambda x: x * np.abs(x), lambda g, x: 2 * g * np.abs(x)),
    "sign and floor": own(
        lambda x: np.sign(x) * x + x * np.floor(3 * x), lambda g, x: g * (np.sign(x) + np.floor(3 * x))
    ),
    "steps": own(lambda x: np.floor(4 * x) / 4),
}


@pytest.mark.parametrize("method", ["complex", "difference"])
@pytest.mark.parametrize("name", OWN)
def test_own_formulas_are_differentiated_as_the_ops_that_they_draw(name, method):
    check_gradients(recurrence(lambda x, h, w: OWN[name](x * w) + ops.tanh(h * w)), method=method)


def test_complex_steps_through_what_takes_none_say_what_does():
    size = own(lambda x: np.fabs(x), lambda g, x: g * np.sign(x))
    drawn = recurrence(lambda x, h, w: size(x * w + 5) + h)
    with pytest.raises(TypeError, match=r'method="difference" is needed: .*fabs'):
        check_gradients(drawn)
    check_gradients(drawn, method="difference")


def test_all_together_and_float32():
    drawn = recurrence(lambda x, h, w: ops.tanh(x * w + h))
    assert list(check_gradients(drawn, together=True)) == ["all arguments together"]
    assert max(check_gradients(drawn, dtype=np.float32).values()) > 1e-12


class Scaled(ReferenceEngine):
    """An engine whose parameter gradients are a thousandth too large."""

    def backward(self, *arrays):
        found = super().backward(*arrays)
        found.parameters = [1.001 * p for p in found.parameters]
        return found


class Cut(ReferenceEngine):
    """An engine whose state gradients have lost their batch axis."""

    def backward(self, *arrays):
        found = super().backward(*arrays)
        found.states = [s[0] for s in found.states]
        return found


def test_a_wrong_gradient_is_named():
    drawn = recurrence(lambda x, h, w: ops.tanh(x * w + h))
    with pytest.raises(AssertionError, match=r"differ from complex steps by more than 1e-09: parameter w \(relative"):
        check_gradients(drawn, engine=Scaled)
    with pytest.raises(AssertionError, match=r"more than 1e-06: all arguments together"):
        check_gradients(drawn, engine=Scaled, method="difference", together=True)
    with pytest.raises(AssertionError, match=re.escape("state 0 (h) has shape (3, 3); its gradient has shape (3,)")):
        check_gradients(drawn, engine=Cut)


def test_a_truncated_gradient_is_not_that_of_the_whole():
    class Whole(ReferenceEngine):
        def __init__(self, given):
            super().__init__(Recurrence(given.graph))

    drawn = recurrence(lambda x, h, w: ops.tanh(x * w + h), truncate=2)
    check_gradients(drawn)
    with pytest.raises(AssertionError, match="state 0"):
        check_gradients(drawn, engine=Whole)


def test_arguments():
    given = Arguments([np.ones((2, 3, 1))], [np.ones((2, 4))], [], [np.ones(5)])
    assert (given.batch, given.length) == (2, 3)
    assert [a.dtype for a in given.cast(np.float32).arrays()] == [np.float32] * 3
    assert [len(a) for a in given.replaced([a[:1] for a in given.arrays()]).arrays()] == [1, 1, 1]


def test_everything_promised_is_drawn():
    seen, names, examples = set(), set(), []

    @settings(
        max_examples=800,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(example=step_graphs())
    def collect(example):
        graph, given = example.recurrence.graph, example.arguments
        examples.append(repr(example))
        names.update(t.op.name for t in graph.order if t.op is not None)
        seen.add(("states", len(graph.states)))
        seen.update(("state rank", t.ndim) for t in graph.states)
        seen.update(("sequence", t.dtype) for t in graph.sequences)
        seen.update(("constant rank", t.ndim) for t in graph.constants)
        seen.update(("leaf", t.name) for t in (*graph.states, *graph.sequences) if t.name in ("readout", "forced"))
        seen.update({("outputs", len(graph.outputs)), ("truncate", example.recurrence.truncate)})
        seen.update({("steps", given.length), ("mask", given.mask is not None)})
        seen.update(("open axis", None in t.shape[1:]) for t in graph.constants)
        seen.update(("garbage", bool(np.isnan(s).any())) for s in given.sequences if s.dtype.kind == "f")
        uses = [i for t in graph.order for i in t.inputs if i.source in graph.parameters]
        seen.add(("shared parameter", len(uses) > len(set(uses))))

    collect()
    expected = {("states", n) for n in range(4)} | {("state rank", n) for n in (1, 2, 3)}
    expected |= {("sequence", kind) for kind in ("float", "int", "bool")} | {("outputs", 1), ("outputs", 2)}
    expected |= {("leaf", "readout"), ("leaf", "forced"), ("steps", 0), ("mask", True), ("mask", False)}
    expected |= {("truncate", n) for n in (None, 1, 2, 3)} | {("open axis", True), ("garbage", True)}
    expected |= {("shared parameter", True), ("constant rank", 3)}
    assert expected <= seen
    unused = {"argmin", "equal", "isnan", "isfinite", "floor_divide", "remainder"}
    gradients = {"put_add", "put_slice", "put_windows", "sum_to_like", "broadcast_like", "reshape_like"}
    missing = set(EVERY_OP) - names - unused - gradients
    assert len(missing) < 3, f"never drawn: {missing}"  # rare ones may be missed by chance
    assert all("outputs: [" in text for text in examples)


def test_without_hypothesis_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis.strategies", None)
    with pytest.raises(ImportError, match="pip install hypothesis"):
        masks(2, 3)
