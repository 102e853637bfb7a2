"""Recurrences that these tests share."""

import numpy as np

from rsref import Input, Parameter, RecurrentModel, cells, ops, set_random_seed
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.splitting import Split
from tests.fast.agreement import check

CELLS = [name for name in cells.__all__ if name.endswith("Cell") and name not in ("RNNCell", "LayerCell")]
MASK = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)


def recurrence_of(name, units=4, width=2, **options):
    set_random_seed(0)
    if name == "AttentionDecoderCell":
        options.update(decode=True, output_length=3)
    layer = getattr(cells, name)(units).get_layer(**options)
    layer.build((None, None, 3, 4, width) if name == "ConvLSTMCell" else (None, None, width))
    return layer.recurrence


def looking_up():
    """Return a recurrence that adds up rows of a table, and the table: its indices may be out of range."""
    x, h = Input((), dtype="int"), Input((2,))
    table = Parameter("table", np.arange(6.0).reshape(3, 2))
    new = ops.embedding(x, table.tensor) + h
    return RecurrentModel(x, new, h, new).recurrence, table.value


def check_cell(name, kind, dtype):
    """Compare a cell's kernels of some kind with the oracle, whole and masked."""
    own = recurrence_of(name)
    engine = FastEngine(own, kind)
    for mask in (None, None if name == "AttentionDecoderCell" else MASK):
        arguments = random_arguments(own, batch=3, steps=5, mask=mask)
        check(own, arguments, dtype=dtype, engine=engine, split=Split(1, 1))


def check_features(name, kind, shards):
    """Compare truncation, zeros where masked, no steps, sizes that fill no tile, more samples than threads."""
    for options in ({"truncate": 2}, {"zero_output_for_mask": True}):
        own = recurrence_of(name, 7, 3, **options)
        engine = FastEngine(own, kind)
        for batch, steps, mask in ((3, 5, MASK), (3, 5, None), (1, 3, None), (2, 0, None), (17, 2, None)):
            arguments = random_arguments(own, batch=batch, steps=steps, mask=mask)
            check(own, arguments, dtype=np.float32, engine=engine, split=Split(shards, 1))
