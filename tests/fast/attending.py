"""Steps of which a part depends on no step."""

import numpy as np

from rsref import Input, RecurrentModel, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter, constant


def attending(outputs=False):
    """A step that attends to a memory; its keys, and a gate of their sum, depend on no step. Both parts read `out`."""
    x, memory, flag, h = Input((4,)), Input((5, 3)), Input((1,), dtype="bool"), Input((4,))
    rng = np.random.default_rng(0)
    key, out, gate = (Parameter(n, rng.normal(size=(3, 4))) for n in ("key", "out", "gate"))
    keys = memory @ key.tensor
    open_ = ops.where(flag, ops.sigmoid(ops.sum(memory, 1) @ gate.tensor), ops.sum(memory, 1) @ out.tensor)
    weights = ops.softmax(ops.einsum("btd,bd->bt", ops.tanh(keys), h), -1)
    new = ops.tanh(x * open_ + ops.einsum("bt,btd->bd", weights, memory) @ out.tensor)
    results = [new, open_] if outputs else new
    layer = RecurrentModel(x, results, h, new, constants=[memory, flag])
    layer.build((None, None, 4))
    return layer.recurrence


def reading_integers():
    """A step of which that part reads integers alone, and no weights."""
    number, h = Input((), dtype="int"), Input((3,))
    fixed = constant(np.random.default_rng(0).normal(size=(5, 3)))
    new = ops.tanh(h + ops.sin(ops.matmul(ops.one_hot(number, 5), fixed)))
    return Recurrence(StepGraph(constants=[number], states=[h], outputs=[new], new_states=[new]))
