"""Sums that the loops which compute their elements make on the way: the same numbers, and nothing written for them."""

import numpy as np
import pytest

from rsref import Input, RecurrentModel, cells, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter
from rsref.testing import random_arguments
from rsref_fast import wide
from rsref_fast.cpu import pieces
from rsref_fast.cpu.joining import Joined, joined
from rsref_fast.layout import Section
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.test_stages import programs_of

PLACES, UNITS = 5, 6
"""Places that are no multiple of four, and units that no team divides."""


def joints(compiled, section):
    """Return the sums of each unit of backward that is joined."""
    units = joined(compiled.backward.layout, compiled.backward.units[section], ())
    return [[t.op.name for t in unit.sums] for unit in units if isinstance(unit, Joined)]


def model(draw):
    """A step over x (places, units) and h (units): `draw` answers the new state."""
    x, h = Input((PLACES, UNITS)), Input((UNITS,))
    new = draw(x, h)
    layer = RecurrentModel(x, new, [h], [new])
    layer.build((None, None, PLACES, UNITS))
    return layer


def several(x, h):
    """Sums over the places of two things that read the same."""
    spread = ops.expand_dims(h, 1)
    return ops.sum(ops.tanh(x + spread), 1) + ops.sum(ops.sin(x) * spread, 1)


def kept(x, h):
    """What is summed is read by a maximum, too."""
    y = ops.tanh(x + ops.expand_dims(h, 1))
    return ops.sum(y, 1) * ops.max(y, 1)


def one_after_the_other(x, h):
    """A sum of what reads another sum, and what that one reads."""
    y = ops.tanh(ops.expand_dims(ops.sum(ops.sin(x * ops.expand_dims(h, 1)), 1), 1) - x)
    return ops.sum(y * x, 1) * ops.max(y, 1)


def along_rows(x, h):
    """Sums over the last axis, which cannot be joined, and over the places."""
    y = ops.tanh(x * ops.expand_dims(h, 1))
    return ops.sum(y, 1) + ops.sum(y, (1, 2), keepdims=True)[:, 0]


def counted(x, h):
    """Sums of whether something holds."""
    y = x > ops.expand_dims(h, 1)
    return ops.sum(y, 1) * ops.sum(ops.where(y, x, 0.5 * x), 1) * 0.1


def over_samples(x, h):
    """Sums over samples, which the step reads."""
    y = ops.tanh(x + ops.expand_dims(h, 1))
    return ops.tanh(h + ops.sum(y, (0, 1), keepdims=True)[:, 0] + ops.sum(y * y, (0, 1), keepdims=True)[:, 0])


DRAWN = (several, kept, one_after_the_other, along_rows, counted, over_samples)


@pytest.mark.covering("values")
@pytest.mark.parametrize("draw", DRAWN)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_drawn_sums(draw, dtype):
    recurrence = model(draw).recurrence
    check(recurrence, random_arguments(recurrence, batch=3, steps=4), threads=3, dtype=dtype)


@pytest.mark.parametrize("draw", examples(DRAWN, (one_after_the_other,)))
def test_as_machine_code(draw):
    pytest.importorskip("numba")
    recurrence = model(draw).recurrence
    arguments = random_arguments(recurrence, batch=3, steps=4)
    check(recurrence, arguments, target="cpu", threads=2, dtype=np.float32, inference=examples(True, False))


@pytest.mark.parametrize("draw", DRAWN)
def test_a_mask(draw):
    recurrence = model(draw).recurrence
    mask = np.random.default_rng(1).random((4, 5)) < 0.7
    check(recurrence, random_arguments(recurrence, batch=4, steps=5, mask=mask), threads=2)


def twice(x, h, flat, a, b):
    """One sum is the gradient of two parameters; the elements that it adds up are that of a constant, too."""
    read = ops.reshape(flat, (-1, PLACES, UNITS))
    return ops.sum(ops.tanh(read + ops.expand_dims(h, 1) + a + b), 1) + ops.sum(x, 1)


def once(x, h, flat, a, b):
    """A sum is the gradient of a parameter, and nothing else."""
    return ops.sum(ops.tanh(x * ops.expand_dims(flat[:, :UNITS] + h, 1) + a), 1) + b * h


def scaled(x, h, flat, a, b):
    """A sum is the gradient of a parameter, and is read to compute that of another one."""
    return ops.sum(ops.tanh(x * ops.expand_dims(flat[:, :UNITS] + h, 1) + a + 3.0 * b), 1)


def scaled_in_another_shape(x, h, flat, a, b):
    """A sum is read through a view of it."""
    shown = ops.reshape(3.0 * ops.reshape(b, (2, UNITS // 2)), (UNITS,))
    return ops.sum(ops.tanh(x * ops.expand_dims(flat[:, :UNITS] + h, 1) + a + shown), 1)


def beside(x, h, flat, a, b):
    """A sum over samples that is read, and one of the same elements that is not."""
    return ops.sum(ops.tanh(x * ops.expand_dims(flat[:, :UNITS] + h, 1) + 3.0 * a + b * x), 1)


@pytest.mark.parametrize("piece", [1, pieces.PIECE])
@pytest.mark.parametrize("draw", [twice, once, scaled, scaled_in_another_shape, beside])
def test_sums_of_a_step_that_are_added_to_those_of_others(draw, piece, monkeypatch):
    """Nothing of what is called wide here is kept for a block of steps; for one sample at a time, or all."""
    monkeypatch.setattr(wide, "WIDE", UNITS + 1)
    monkeypatch.setattr(pieces, "PIECE", piece)
    x, h, flat = Input((PLACES, UNITS)), Input((UNITS,)), Input((PLACES * UNITS,))
    a, b = (Parameter(name, np.linspace(-1, 1, UNITS)).tensor for name in "ab")
    new = draw(x, h, flat, a, b)
    graph = StepGraph(sequences=[x], constants=[flat], states=[h], outputs=[new], new_states=[new])
    recurrence = Recurrence(graph)
    check(recurrence, random_arguments(recurrence, batch=3, steps=4), threads=2)


def test_an_attention_adds_up_gradients_where_it_computes_them():
    layer = cells.AttentionDecoderCell(4).get_layer(decode=True, output_length=3)
    layer.build((None, 7, 3))
    compiled = programs_of(layer)
    assert ["sum_to_like"] in joints(compiled, Section.LOOP)
    check(layer.recurrence, random_arguments(layer.recurrence, batch=3, steps=3))


def test_a_normalized_gate_is_read_once_for_its_sums():
    layer = cells.LayerNormLSTMCell(UNITS).get_layer()
    layer.build((None, None, 3))
    assert joints(programs_of(layer), Section.AFTER).count(["sum_to_like"] * 3) == 4
    check(layer.recurrence, random_arguments(layer.recurrence, batch=3, steps=4))


def test_only_what_is_there_in_time_is_joined():
    layer = cells.LayerNormLSTMCell(UNITS).get_layer()
    layer.build((None, None, 3))
    attending = cells.AttentionDecoderCell(4).get_layer(decode=True, output_length=3)
    attending.build((None, 7, 3))
    found = 0
    for compiled in map(programs_of, (layer, attending, *map(model, DRAWN))):
        for program in (compiled.forward, compiled.backward):
            for units in program.units.values():
                found += check_order(program.layout, units)
    assert found > 8


def check_order(layout, units):
    """Whether units that are joined compute the same, each after what it reads; answers how many there are."""
    new = joined(layout, units, ())
    waiting = {t for unit in units for t in unit.tensors}
    assert waiting == {t for unit in new for t in unit.tensors}
    for unit in new:
        elements = set(unit.tensors[: -len(unit.sums)]) if isinstance(unit, Joined) else ()
        if isinstance(unit, Joined):
            read = {i for t in unit.tensors for i in t.inputs[: 1 if t in unit.sums else None]}
            assert not [i for i in read if i not in elements and layout.root(i) in waiting]
        waiting -= set(unit.tensors)
    return sum(isinstance(unit, Joined) for unit in new)
