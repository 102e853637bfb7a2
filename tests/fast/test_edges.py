"""Steps at the edges: constants whose batch is turned to the end, samples that take no step, lengths of zero."""

import numpy as np
import pytest

from rsref import Input, Parameter, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.testing.arguments import Arguments
from tests.fast.agreement import check

RNG = np.random.default_rng(0)
W = Parameter("w", RNG.standard_normal((4, 4)))
MASKS = {
    "no mask": None,
    "a row less at the end": np.array([[1, 1], [1, 1], [1, 0]], bool),
    "a row less at the beginning": np.array([[1, 0], [1, 1], [1, 1]], bool),
    "a sample without a step": np.array([[0, 0], [1, 1], [0, 1]], bool),
}
TURNED = {
    "a function": lambda x, c: x * ops.transpose(ops.tanh(ops.transpose(c))),
    "a function beside the input": lambda x, c: ops.transpose(ops.transpose(x) + ops.tanh(ops.transpose(c))),
    "nothing but turned": lambda x, c: ops.transpose(ops.transpose(x) * ops.transpose(c)),
    "a product": lambda x, c: x + ops.transpose(W.tensor @ ops.transpose(c)),
    "a softmax": lambda x, c: x * ops.transpose(ops.softmax(ops.transpose(c), 0)),
    "an einsum": lambda x, c: x * ops.einsum("kb->bk", ops.tanh(ops.einsum("bk->kb", c))),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("form", TURNED)
def test_a_constant_whose_batch_is_the_last_axis(form, mask):
    x, c, h = Input((4,)), Input((4,)), Input((4,))
    y = TURNED[form](x, c)
    own = Recurrence(StepGraph(sequences=[x], constants=[c], states=[h], outputs=[y], new_states=[h + y]))
    given = Arguments(
        [RNG.standard_normal((3, 2, 4))], [RNG.standard_normal((3, 4))], [RNG.standard_normal((3, 4))],
        [p.value for p in own.graph.parameters], MASKS[mask],
    )  # fmt: skip
    check(own, given)


def with_a_constant(kind):
    x, c, h = Input((4,)), Input((4,), dtype=kind), Input((4,))
    read = ops.take(W.tensor, c[:, 0], axis=0) if kind == "int" else c @ W.tensor
    new = ops.tanh(x + read + h @ W.tensor)
    return Recurrence(StepGraph(sequences=[x], constants=[c], states=[h], outputs=[new], new_states=[new]))


def left_out(steps, kind="float", value=np.nan):
    """Return a step that reads a constant, and arrays of which a sample takes so many steps; of none it has a value."""
    steps = np.array(steps)
    constants = np.array([[1, 2, 3, 0]] * 3, float if kind == "float" else int)
    constants[steps == 0] = value
    mask = np.arange(2) < steps[:, None]
    return with_a_constant(kind), Arguments(
        [RNG.standard_normal((3, 2, 4))], [constants], [RNG.standard_normal((3, 4))], [W.value], mask
    )


BUSY = [[1, 0, 2], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
@pytest.mark.parametrize(("kind", "value"), [("float", np.nan), ("int", 99)])
@pytest.mark.parametrize("steps", BUSY, ids=str)
def test_a_sample_without_a_step_reaches_nothing(steps, kind, value, target):
    """Whatever its constants are: NaN, or a place that is none."""
    own, given = left_out(steps, kind, value)
    check(own, given, target=target)


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_no_steps_at_all_reach_nothing(target):
    given = Arguments([np.zeros((2, 0, 4))], [np.full((2, 4), np.nan)], [RNG.standard_normal((2, 4))], [W.value])
    check(with_a_constant("float"), given, target=target)


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
@pytest.mark.parametrize("batch", [1, 3])
def test_states_and_axes_of_no_numbers(batch, target):
    x, h, g = Input((2,)), Input((0,)), Input((0, 2))
    u, v, w = Parameter("u", np.ones((2, 0))), Parameter("v", np.ones((0, 0))), Parameter("w", np.ones((0, 3)))
    new = ops.tanh(x @ u.tensor + h @ v.tensor)
    outputs = [new @ w.tensor, x + ops.sum(ops.tanh(g), 1)]
    own = Recurrence(StepGraph(sequences=[x, g], states=[h], outputs=outputs, new_states=[new]))
    given = Arguments(
        [RNG.standard_normal((batch, 2, 2)), np.zeros((batch, 2, 0, 2))], [], [np.zeros((batch, 0))],
        [p.value for p in own.graph.parameters],
    )  # fmt: skip
    check(own, given, target=target)
    check(own, given, target=target, threads=2)
