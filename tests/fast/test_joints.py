"""Concatenations that are read for a block of steps, of what the time loop computes: it puts the operands there."""

import re

import numpy as np
import pytest

import rsref_fast
from rsref import Input, cells, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter
from rsref.testing import random_arguments
from rsref_fast import wide
from rsref_fast.cpu.kernels import Interpreted
from tests.fast.agreement import check

UNITS = 6
CONSTANT = Input((UNITS,))
MASK = np.random.default_rng(1).random((3, 5)) < 0.7


def in_place(x, h, w):
    """Nothing else reads one of the operands from memory; the other is the new state."""
    z = ops.sigmoid(x + h)
    new = ops.tanh(z * h)
    return new, [ops.matmul(ops.concatenate([z, new], -1), w[: 2 * UNITS])]


def nested(x, h, w):
    """An operand is a concatenation that a step reads."""
    a, b = ops.tanh(x + h), ops.sin(x * h)
    new = ops.tanh(ops.matmul(ops.concatenate([a, b], -1), w[: 2 * UNITS]))
    return new, [ops.matmul(ops.concatenate([ops.concatenate([a, b], -1), new], -1), w)]


def sliced(x, h, w):
    """Operands of which slices are read, and slices of them."""
    a, b = ops.tanh(x + h), ops.sin(x * h)
    both = ops.concatenate([a[:, :4], b[:, 4:]], -1)
    new = ops.tanh(ops.matmul(ops.concatenate([a, b], -1), w[: 2 * UNITS]) + both)
    return new, [ops.concatenate([both, new], -1), ops.concatenate([a[:, 1:], a, b], -1)]


def twice(x, h, w):
    """An operand stands there twice, in two orders."""
    a, b = ops.cos(x + h), ops.sin(h)
    new = ops.tanh(a + b)
    return new, [ops.concatenate([a, new, a], -1), ops.concatenate([new, b, a, a, b, b], -1)]


def nested_twice(x, h, w):
    """What stands in an operand stands there twice, or beside it, before it and behind it, and so does the operand."""
    a, b = ops.cos(x + h), ops.sin(x * h)
    both, same = ops.concatenate([a, b], -1), ops.concatenate([a, a], -1)
    new = ops.tanh(ops.matmul(both, w[: 2 * UNITS]) + ops.matmul(same, w[UNITS:]))
    joints = [same, new], [a, both, b], [both, a, both], [a, same, both]
    return new, [ops.concatenate(joint, -1) for joint in joints]


def read_otherwise(x, h, w):
    """Operands that are answered, of which backward reads one, and one is read through a view."""
    a, b = ops.exp(0.1 * h + x), ops.sin(h + x)
    new = ops.tanh(a * b)
    return new, [ops.concatenate([a, b, new], -1), a, ops.reshape(b, (-1, 2, 3)), ops.sum(a * b, -1)]


def sums_with_products(x, h, w):
    """An operand is a product added to what is there."""
    total = x + ops.matmul(h, w[:UNITS])
    new = ops.tanh(total)
    return new, [ops.concatenate([total, new], -1)]


def other_kinds(x, h, w):
    """Operands that are whole numbers and bools, and one that is a sum."""
    over, number = h > 0.1, ops.cast(h * 4, "int")
    total = ops.sum(ops.sin(h), -1, keepdims=True)
    new = ops.tanh(x + ops.where(over, h, total) + 0.1 * ops.cast(number, "float"))
    joint = ops.concatenate([ops.cast(over, "int") * 3, number], -1)
    return new, [joint, ops.concatenate([over, new < x], -1), ops.concatenate([total, new], -1)]


def along_a_middle_axis(x, h, w):
    a, b = (ops.reshape(t, (-1, 3, 2)) for t in (x, h))
    c, d = ops.cos(a + b), ops.exp(0.1 * b)
    new = ops.reshape(ops.tanh(c + d), (-1, UNITS))
    return new, [ops.concatenate([c, a, d], 1), ops.concatenate([a, d], 2)]


def across(x, h, w):
    """An operand is a concatenation along another axis, and one is read as if it lay alone."""
    a, b = (ops.reshape(t, (-1, 3, 2)) for t in (x, h))
    c, d = ops.cos(a + b), ops.exp(0.1 * b)
    rows = ops.concatenate([c, d], 1)
    both = ops.concatenate([ops.sin(a + b), ops.sin(b)], 1)
    new = ops.tanh(ops.max(rows, 1) + ops.max(both, 1))
    flat = ops.reshape(d * c, (-1, UNITS))
    new = ops.tanh(ops.tile(new, (1, 3)) + ops.matmul(flat, w[:UNITS]))
    return new, [ops.concatenate([rows, both], 2), ops.concatenate([d * c, c], 2)]


def in_part(x, h, w):
    """An operand is a concatenation of which the loop computes one part by a product."""
    both = ops.concatenate([ops.sin(x + h), ops.matmul(h, w[:UNITS])], -1)
    new = ops.tanh(ops.matmul(both, w[: 2 * UNITS]))
    return new, [ops.concatenate([both, new], -1)]


def of_no_step(x, h, w):
    """Operands that are computed once, and before the loop."""
    new = ops.tanh(x + h)
    return new, [ops.concatenate([ops.exp(ops.sin(CONSTANT)), ops.cos(x), new], -1)]


def over_samples(x, h, w):
    """Operands that depend on other samples, beside those that do not."""
    a, row = ops.sin(h), ops.mean(ops.cos(h), 0, keepdims=True)
    new = ops.tanh(x + a + row)
    return new, [ops.concatenate([a, new], -1) + ops.concatenate([ops.cos(row), row], -1)]


STEPS = (
    in_place, nested, sliced, twice, nested_twice, read_otherwise, sums_with_products, other_kinds,
    along_a_middle_axis, across, in_part, of_no_step, over_samples,
)  # fmt: skip


def drawn(step):
    x, h = Input((UNITS,)), Input((UNITS,))
    w = Parameter("w", np.sin(np.arange(3.0 * UNITS * UNITS)).reshape(3 * UNITS, UNITS)).tensor
    new, outputs = step(x, h, w)
    return Recurrence(
        StepGraph(sequences=[x], constants=[CONSTANT], states=[h], outputs=[*outputs, new], new_states=[new])
    )


def copied(recurrence):
    """Return how many concatenations are written beside what is computed, for each block, forward and backward."""
    engine = rsref_fast.compile(recurrence, target="interpreter")
    ys, ends, tape = random_arguments(recurrence, batch=2, steps=3).forward(engine)
    engine.backward(tape, [y if y.dtype.kind == "f" else None for y in ys], ends)
    loops = [source.text.split("\ndef shard(")[1].split("\n@")[0] for source in tape.special.sources()]
    return [len(re.findall(r"\bconcatenate_\d+\(", loop)) for loop in loops]


@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("step", STEPS)
def test_against_the_oracle(step, rows, monkeypatch):
    monkeypatch.setattr(Interpreted, "block_rows", rows)
    own = drawn(step)
    mixes = step is over_samples
    for mask, threads in ((None, 1), (MASK, 2), (None, 3)):
        arguments = random_arguments(own, batch=3, steps=5, mask=None if mixes else mask)
        check(own, arguments, threads=threads)


@pytest.mark.parametrize("step", STEPS)
def test_what_is_wide(step, monkeypatch):
    """In pieces of some samples of a step."""
    monkeypatch.setattr(wide, "WIDE", UNITS - 1)
    monkeypatch.setattr("rsref_fast.cpu.pieces.PIECE", 2 * UNITS)
    own = drawn(step)
    check(own, random_arguments(own, batch=5, steps=4), threads=2)


@pytest.mark.parametrize("step", [in_place, nested, twice, nested_twice, along_a_middle_axis])
def test_as_machine_code(step):
    pytest.importorskip("numba")
    own = drawn(step)
    check(own, random_arguments(own, batch=3, steps=5), target="cpu", threads=2, dtype=np.float32)


def test_nothing_is_copied_after_the_loop():
    """What a view shows is, and what a product has added up."""
    of_steps = {
        step.__name__: copied(drawn(step))[0] for step in (in_place, nested, read_otherwise, sums_with_products)
    }
    assert of_steps == {"in_place": 0, "nested": 0, "read_otherwise": 0, "sums_with_products": 1}
    layer = cells.GRUCell(5).get_layer(return_sequences=True)
    layer.build((None, None, 4))
    assert copied(layer.recurrence) == [0, 0]
