"""Cells and steps for tensor cores, and products whose weights blocks hold, in sizes of their own."""

import numpy as np
import pytest

from rsref import ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Input, Parameter
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.splitting import Split
from tests.cuda.kernels import EmulatedOwned, EmulatedTensor
from tests.cuda.steps import check_cell, check_features
from tests.fast.agreement import check
from tests.fast.made import MASK


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RHNCell", "LayerNormLSTMCell"])
def test_tensor_cores(name):
    """One gate's product or those of several, one product a step or more, a part of the units or whole samples."""
    check_cell(name, EmulatedTensor, np.float32)


def test_features():
    check_features("LSTMCell", EmulatedTensor, shards=1)


@pytest.mark.parametrize(("kind", "units"), [(EmulatedOwned, 120), (EmulatedTensor, 140)])
def test_more_units_than_threads(kind, units):
    w = Parameter("w", np.random.default_rng(0).normal(0, 0.1, (units, units))).tensor
    x, h = Input((units,)), Input((units,))
    y = ops.tanh(x + h @ w)
    own = Recurrence(StepGraph(sequences=[x], states=[h], outputs=[y], new_states=[y]))
    assert units / kind.blocks > kind.tile.threads
    check(
        own, random_arguments(own, batch=3, steps=2), dtype=np.float32, engine=FastEngine(own, kind), split=Split(1, 1)
    )  # fmt: skip


@pytest.mark.parametrize("kind", [EmulatedOwned, EmulatedTensor])
def test_weights_of_two_products(kind):
    """The same ones, of operands whose rows are differently far apart: what blocks note of one is not of the other."""
    w = Parameter("w", np.random.default_rng(0).normal(0, 0.3, (8, 8))).tensor
    x, h, wide = Input((8,)), Input((8,)), Input((20,))
    y = ops.tanh(x + h @ w + wide[:, 4:12] @ w)
    own = Recurrence(
        StepGraph(
            sequences=[x], states=[h, wide], outputs=[y], new_states=[y, ops.concatenate([y, y, wide[:, :4]], -1)]
        )
    )
    engine = FastEngine(own, kind)
    for mask in (None, MASK):
        check(
            own, random_arguments(own, batch=3, steps=5, mask=mask), dtype=np.float32, engine=engine,
            split=Split(1, 1),
        )  # fmt: skip
