"""Gates side by side before they are scaled: the same gradients, one memory, and what is left as it is."""

import numpy as np
import pytest

from rsref import Dense, Input, RecurrentModel, cells, ops
from rsref.tensor import constant
from rsref.testing import random_arguments
from rsref_fast import program
from rsref_fast.layout import Section
from tests.fast.agreement import check
from tests.fast.test_stages import programs_of, units

GAIN = np.array([0.5, -1.0, 2.0, 3.0, -0.25, 1.5, 0.75, -2.0])


def layer_of(draw, width=4):
    x, h = Input((4,)), Input((width,))
    new = draw(x, h)
    return RecurrentModel(x, new, h, new, return_sequences=True)


def joints(layer):
    """Return what each tensor that a step back lays side by side consists of, by the names of the ops."""
    layout = programs_of(layer).backward.layout
    own = [t for t in layout.order if t.op is not None and t.op.name == "concatenate"]
    inside = [t for t in own if layout.section[t] is Section.LOOP]
    return [[[i.op.name if i.op else "leaf" for i in part.inputs] for part in t.inputs] for t in inside]


def without_the_stage(monkeypatch, layer):
    with monkeypatch.context() as patch:
        patch.setattr(program, "together", list)
        return joints(layer)


def scaled(row, joint):
    """Draw two gates, each of the normalised row times its part of a gain."""
    both = ops.standardize(joint) * row
    return ops.tanh(both[:, :4]) * ops.sigmoid(both[:, 4:])


def normalised(x, h):
    return scaled(ops.cumsum(constant(GAIN), 0), Dense(8)(h)) + x  # a row that is computed


def two_normalised(x, h):
    joint = ops.standardize(Dense(8)(x + h)) * GAIN + ops.standardize(Dense(8)(h)) * GAIN[::-1]
    return ops.tanh(joint[:, :4]) * ops.sigmoid(joint[:, 4:])


@pytest.mark.parametrize("draw", [normalised, two_normalised])
def test_gates_lie_side_by_side(monkeypatch, draw):
    layer = layer_of(draw)
    before, (after,) = without_the_stage(monkeypatch, layer), joints(layer)
    assert len(before) == (2 if draw is two_normalised else 1)
    assert all("slice" in part for joint in before for part in joint)
    assert not any("slice" in part for part in after)
    check(layer.recurrence, random_arguments(layer.recurrence, batch=5, steps=4))


def test_the_layer_normalised_lstm_writes_its_gates_once(monkeypatch):
    layer = cells.LayerNormLSTMCell(4).get_layer()
    layer.build((2, 3, 5))
    assert len(without_the_stage(monkeypatch, layer)) == len(joints(layer)) == 1
    after = units(programs_of(layer).backward, Section.AFTER)
    assert ["multiply"] * 4 not in after  # each gate times its part of the other gain
    with monkeypatch.context() as patch:
        patch.setattr(program, "together", list)
        assert ["multiply"] * 4 in units(programs_of(layer).backward, Section.AFTER)


def read_by_a_product(x, h):
    both = Dense(8)(h) * GAIN
    return ops.tanh(both[:, :4]) * ops.sigmoid(both[:, 4:])


def in_another_order(x, h):
    both, gain = ops.standardize(Dense(8)(h)), constant(GAIN)
    return ops.tanh(both[:, :4] * gain[4:]) * ops.sigmoid(both[:, 4:] * gain[:4])


def the_same_part_twice(x, h):
    both, gain = ops.standardize(Dense(8)(h)), constant(GAIN)
    return ops.tanh(both[:, :4] * gain[4:]) * ops.sigmoid(both[:, 4:] * gain[4:])


def some_of_a_gain(x, h):
    both, gain = ops.standardize(Dense(4)(h)), constant(GAIN)
    return ops.tanh(both[:, :2] * gain[:2]) * ops.sigmoid(both[:, 2:] * gain[2:4])


def by_what_samples_have(x, h):
    return scaled(Dense(8)(x), Dense(8)(h))


LEFT = (read_by_a_product, in_another_order, the_same_part_twice, some_of_a_gain, by_what_samples_have)


@pytest.mark.parametrize("draw", LEFT)
def test_is_left(monkeypatch, draw):
    layer = layer_of(draw, 2 if draw is some_of_a_gain else 4)
    assert joints(layer) == without_the_stage(monkeypatch, layer) != []
    check(layer.recurrence, random_arguments(layer.recurrence, batch=5, steps=4))
