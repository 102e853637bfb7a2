"""Gradients of whole random recurrences, and of every cell, against complex steps; and that the check can fail."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rsref import Dense, Input, RecurrentModel, cells, ops, set_random_seed
from rsref.cells import basic
from rsref.engine import ReferenceEngine
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.testing import check_gradients, masks, random_arguments, step_graphs
from tests.covering import examples
from tests.tolerances import assert_close

MANY = settings(max_examples=examples(400, 150), suppress_health_check=list(HealthCheck))
FEW = settings(MANY, max_examples=examples(60, 30))


@MANY
@given(example=step_graphs())
def test_random_recurrences(example):
    check_gradients(example.recurrence, example.arguments, together=True)


@FEW
@given(example=step_graphs(max_ops=5))
def test_each_argument_of_random_recurrences(example):
    check_gradients(example.recurrence, example.arguments)


@FEW
@given(example=step_graphs(max_ops=5))
def test_float32_stays_float32_and_near(example):
    engine = ReferenceEngine(example.recurrence)
    outputs, states, _ = example.arguments.cast(np.float32).forward(engine)
    exact_outputs, exact_states, _ = example.arguments.forward(engine)
    for y, exact in zip((*outputs, *states), (*exact_outputs, *exact_states), strict=True):
        assert y.dtype in (np.float32, np.int64, np.bool_)
        assert_close(y.astype(float), exact.astype(float), "float32", least=1.0)


CELLS = {
    "simple": lambda: cells.SimpleRNNCell(3),
    "gru": lambda: cells.GRUCell(3),
    "gru, reset before": lambda: cells.GRUCell(3, reset_after=False, dropout=0.5, recurrent_dropout=0.5),
    "lstm": lambda: cells.LSTMCell(3, dropout=0.5, recurrent_dropout=0.5),
    "peephole": lambda: cells.PeepholeLSTMCell(3),
    "normalised lstm": lambda: cells.LayerNormLSTMCell(3),
    "normalised gru": lambda: cells.LayerNormGRUCell(3),
    "minimal gated": lambda: cells.MinimalGatedCell(3),
    "independent": lambda: cells.IndRNNCell(3, activation="tanh"),
    "highway": lambda: cells.RHNCell(3, 3),
    "highway, own carry gate": lambda: cells.RHNCell(3, 2, coupled=False, recurrent_dropout=0.5),
    "weighted average": lambda: cells.RWACell(3),
    "sLSTM": lambda: cells.SLSTMCell(4, heads=2),
    "mLSTM": lambda: cells.MLSTMCell(4, heads=2),
    "minGRU": lambda: cells.MinGRUCell(3, dropout=0.5),
    "minLSTM": lambda: cells.MinLSTMCell(3),
    "layer": lambda: cells.LayerCell(Dense(2), merge="add"),
    "basic simple": lambda: basic.SimpleRNNCell(3),
    "basic gru": lambda: basic.GRUCell(3),
    "basic lstm": lambda: basic.LSTMCell(3),
}
RIGHT = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]], bool)


@pytest.mark.parametrize("truncate", [None, 2])
@pytest.mark.parametrize("name", CELLS)
def test_every_cell(name, truncate):
    set_random_seed(0)
    layer = CELLS[name]().get_layer(return_sequences=True, truncate=truncate)
    layer.build((None, None, 2))
    arguments = random_arguments(layer.recurrence, batch=3, steps=4, mask=RIGHT, seed=np.random.default_rng(0))
    check_gradients(layer.recurrence, arguments)


def recurrence_of_products():
    x, h = Input((3,)), Input((3,))
    new = ops.tanh(ops.matmul(x, np.eye(3) + 0.5) * h + x)
    return RecurrentModel(x, new, h, new).recurrence


def test_the_check_takes_the_oracles_branch_where_numbers_are_equal():
    """A state that is the constant itself, cut off from it by truncation."""
    c, h = Input((3,)), Input((3,))
    step = StepGraph(constants=[c], states=[h], outputs=[least := ops.where(c <= h, c, h)], new_states=[least])
    recurrence = Recurrence(step, truncate=1)
    arguments = random_arguments(recurrence, batch=40)
    check_gradients(recurrence, arguments)
    check_gradients(recurrence, arguments, together=True)


def test_the_check_sees_a_flipped_sign(monkeypatch):
    tanh = ops.REGISTRY["tanh"]
    monkeypatch.setattr(tanh, "vjp", lambda wrt, g, y, x: -g * (1 - y * y))
    with pytest.raises(AssertionError, match="differ"):
        check_gradients(recurrence_of_products())


def test_the_check_sees_a_transposed_weight(monkeypatch):
    matmul = ops.REGISTRY["matmul"]
    x, h = Input((3,)), Input((3,))
    weight = np.arange(9.0).reshape(3, 3) / 9
    new = ops.tanh(ops.matmul(x, weight) + h)
    recurrence = RecurrentModel(x, new, h, new).recurrence
    check_gradients(recurrence)
    monkeypatch.setattr(matmul, "vjp", lambda wrt, g, y, a, b: g @ b)
    with pytest.raises(AssertionError, match="differ"):
        check_gradients(recurrence)


class ForgetsMask(ReferenceEngine):
    """An engine whose backward pass takes every row to be valid."""

    def backward(self, tape, d_outputs, d_states):
        tape.active = [rows if rows is None or not len(rows) else np.arange(len(rows)) for rows in tape.active]
        return super().backward(tape, d_outputs, d_states)


class DropsStates(ReferenceEngine):
    """An engine that hands no gradient on from step to step."""

    def __init__(self, recurrence):
        super().__init__(Recurrence(recurrence.graph, recurrence.zero_output_for_mask, truncate=1))


@pytest.mark.parametrize("engine", [ForgetsMask, DropsStates])
def test_the_check_sees_a_broken_engine(engine):
    recurrence = recurrence_of_products()
    mask = np.array([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0]], bool)
    arguments = random_arguments(recurrence, batch=3, steps=4, mask=mask, seed=np.random.default_rng(0))
    check_gradients(recurrence, arguments)
    with pytest.raises(AssertionError, match="differ"):
        check_gradients(recurrence, arguments, engine=engine)


@settings(max_examples=50)
@given(mask=masks(3, 5))
def test_masks_have_their_shape(mask):
    assert mask.shape == (3, 5)
    assert mask.dtype == bool
