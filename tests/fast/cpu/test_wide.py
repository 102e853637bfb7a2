"""Tensors with many values a sample: computed step by step for a few samples at a time, as the oracle computes them."""

from dataclasses import replace

import numpy as np
import pytest

import rsref_fast
from rsref import Dense, Input, RecurrentModel, cells, ops
from rsref.testing.arguments import random_arguments
from rsref_fast import wide
from rsref_fast.cpu import pieces
from tests.covering import examples
from tests.fast.agreement import check

PLACES, FEATURES, UNITS = 70, 5, 64


def attention(units=UNITS, places=PLACES):
    """A decoder over 70 encoded places: 70 x 64 values a sample are wide, and no block of steps keeps them."""
    layer = cells.AttentionDecoderCell(units).get_layer(decode=True, output_length=4, return_sequences=True)
    layer.build((None, places, FEATURES))
    return layer.recurrence


def given(recurrence, batch, dtype, places=PLACES):
    """Arguments of whole samples, some of whose places are padded."""
    rng = np.random.default_rng(0)
    arguments = random_arguments(recurrence, batch=batch, steps=4)
    mask = np.arange(places) < rng.integers(1, places + 1, batch)[:, None]
    return replace(arguments, constants=[rng.standard_normal((batch, places, FEATURES)).astype(dtype), mask])


@pytest.mark.parametrize("dtype", examples([np.float64, np.float32], [np.float32]))
def test_attention(dtype):
    recurrence = attention()
    assert wide.is_wide(PLACES * UNITS)
    engine = rsref_fast.compile(recurrence)
    for batch, engine.threads in ((1, 1), (1, 2), (5, 1), (17, 2)):
        arguments = given(recurrence, batch, dtype)
        check(recurrence, arguments, dtype=dtype, engine=engine, inference=examples(True, False))
    assert "wide tensors: computed for" in engine.explain()


@pytest.mark.parametrize("samples", [1, 3])
def test_what_each_step_adds_to_a_sum_is_there_for_all_samples(monkeypatch, samples):
    """A constant's gradient needs nothing of a step that the ones after it know: it is computed before the loop."""
    monkeypatch.setattr(wide, "WIDE", 6)
    monkeypatch.setattr(pieces, "PIECE", samples * 6)
    x, h, c = Input((4,)), Input((4,)), Input((2, 3))
    made = ops.reshape(ops.tanh(Dense(6)(h)), (-1, 2, 3))
    own = RecurrentModel(x, ops.einsum("bij,bij->bi", made, c), h, ops.tanh(x + h), constants=c).recurrence
    check(own, random_arguments(own, batch=5))


def test_narrow_parts_of_what_is_wide_are_there_for_all_samples(monkeypatch):
    """They are computed where they stand in it, before the first piece."""
    monkeypatch.setattr(wide, "WIDE", 4)
    monkeypatch.setattr(pieces, "PIECE", 4)
    x, h = Input((4,)), Input((2,))
    joint = ops.concatenate([ops.sin(h), ops.cos(h)], -1)
    new = ops.tanh(ops.cumsum(ops.cumsum(joint, 1) * x, 1)[:, :2] + h)
    own = RecurrentModel(x, new, h, new).recurrence
    check(own, random_arguments(own, batch=5))


@pytest.mark.parametrize("samples", [1, 3])
def test_pieces_of_any_size_give_the_same(monkeypatch, samples):
    """One sample, or a few of them so that the last piece is smaller."""
    units, places = 4, 7
    monkeypatch.setattr(wide, "WIDE", units * places)
    recurrence = attention(units, places)
    engine = rsref_fast.compile(recurrence, target="interpreter")
    monkeypatch.setattr(pieces, "PIECE", samples * units * places)
    check(recurrence, given(recurrence, 5, np.float64, places), engine=engine)
    assert "wide tensors: computed for" in engine.explain()


def test_what_is_wide_is_not_kept_for_a_block_of_steps():
    engine = rsref_fast.compile(attention())
    engine.check()
    block = next(line for line in engine.explain().splitlines() if "a row of a block" in line)
    assert int(block.split()[0].replace(",", "")) < 4 * PLACES * UNITS


def test_the_gradient_of_the_attentions_vector_is_added_up_where_its_places_are_computed():
    engine = rsref_fast.compile(attention())
    engine.check()
    assert f"matmul ({UNITS} x 1" not in engine.explain()
    assert f"    sum ({UNITS})" in engine.explain()


def test_gradients_of_a_constant_that_is_only_spread(monkeypatch):
    """What is added up has fewer values than the constant: it cannot be added where it is computed."""
    monkeypatch.setattr(wide, "WIDE", 12)
    x, h, c = Input((3,)), Input((3,)), Input((wide.WIDE, 3))
    step = RecurrentModel(x, h, [h], [ops.tanh(x + ops.sum(c, 1) * h)], constants=[c])
    step.build((None, None, 3))
    check(step.recurrence, random_arguments(step.recurrence))
