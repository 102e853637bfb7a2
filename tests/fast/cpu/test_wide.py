"""Tensors with many values a sample: computed step by step for a few samples at a time, as the oracle computes them."""

from dataclasses import replace

import numpy as np
import pytest

import rsref_fast
from rsref import Input, RecurrentModel, cells, ops
from rsref.testing.arguments import random_arguments
from rsref_fast import wide
from rsref_fast.cpu import pieces
from tests.fast.agreement import check

PLACES, FEATURES, UNITS = 70, 5, 64


def attention():
    """A decoder over 70 encoded places: 70 x 64 values a sample are wide, and no block of steps keeps them."""
    layer = cells.AttentionDecoderCell(UNITS).get_layer(decode=True, output_length=4, return_sequences=True)
    layer.build((None, PLACES, FEATURES))
    return layer.recurrence


def given(recurrence, batch, dtype):
    """Arguments of whole samples, some of whose places are padded."""
    rng = np.random.default_rng(0)
    arguments = random_arguments(recurrence, batch=batch, steps=4)
    mask = np.arange(PLACES) < rng.integers(1, PLACES + 1, batch)[:, None]
    return replace(arguments, constants=[rng.standard_normal((batch, PLACES, FEATURES)).astype(dtype), mask])


@pytest.mark.covering("values")
@pytest.mark.parametrize(
    ("batch", "threads", "dtype"),
    [(1, 1, np.float64), (1, 2, np.float64), (5, 1, np.float64), (17, 2, np.float64), (17, 2, np.float32)],
)
def test_attention(batch, threads, dtype):
    recurrence = attention()
    assert wide.is_wide(PLACES * UNITS)
    exact = dtype is np.float64  # what keeps nothing has the same source in float32
    engine = check(
        recurrence, given(recurrence, batch, dtype), target="cpu", threads=threads, dtype=dtype, inference=exact
    )
    assert "wide tensors: computed for" in engine.explain()


@pytest.mark.parametrize("piece", [1, 3 * PLACES * UNITS])
def test_pieces_of_any_size_give_the_same(monkeypatch, piece):
    """One sample, or a few of them so that the last piece is smaller."""
    monkeypatch.setattr(pieces, "PIECE", piece)
    recurrence = attention()
    check(recurrence, given(recurrence, 5, np.float64), target="cpu")


def test_what_is_wide_is_not_kept_for_a_block_of_steps():
    engine = rsref_fast.compile(attention())
    engine.check()
    block = next(line for line in engine.explain().splitlines() if "a row of a block" in line)
    assert int(block.split()[0].replace(",", "")) < 4 * PLACES * UNITS


def test_the_gradient_of_the_attentions_vector_is_added_up_where_its_places_are_computed():
    engine = rsref_fast.compile(attention())
    engine.check()
    assert f"matmul ({UNITS} x 1" not in engine.explain().replace("training", "")
    assert f"    sum ({UNITS})" in engine.explain()


def test_gradients_of_a_constant_that_is_only_spread():
    """What is added up has fewer values than the constant: it cannot be added where it is computed."""
    x, h, c = Input((3,)), Input((3,)), Input((wide.WIDE, 3))
    step = RecurrentModel(x, h, [h], [ops.tanh(x + ops.sum(c, 1) * h)], constants=[c])
    step.build((None, None, 3))
    check(step.recurrence, random_arguments(step.recurrence), target="cpu")
