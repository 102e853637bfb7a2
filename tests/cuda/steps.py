"""Recurrences that these tests share."""

import numpy as np

from rsref import Input, Parameter, RecurrentModel, ops
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.splitting import Split
from tests.covering import examples
from tests.fast.agreement import check
from tests.fast.made import MASK, recurrence_of


def looking_up():
    """Return a recurrence that adds up rows of a table, and the table: its indices may be out of range."""
    x, h = Input((), dtype="int"), Input((2,))
    table = Parameter("table", np.arange(6.0).reshape(3, 2))
    new = ops.embedding(x, table.tensor) + h
    return RecurrentModel(x, new, h, new).recurrence, table.value


def check_cell(name, kind, dtype):
    """Compare a cell's kernels of some kind with the oracle, whole and masked.

    What keeps nothing for backward has the same loops: it is compiled for a few cells, and here with `--every`.
    """
    own = recurrence_of(name)
    engine = FastEngine(own, kind)
    for mask in (None, MASK):
        arguments = random_arguments(own, batch=3, steps=5, mask=mask)
        check(own, arguments, dtype=dtype, engine=engine, split=Split(1, 1), inference=examples(True, False))


def check_features(name, kind, shards):
    """Compare truncation, zeros where masked, no steps, sizes that fill no tile, more samples than threads."""
    for options in ({"truncate": 2}, {"zero_output_for_mask": True}):
        own = recurrence_of(name, 7, 3, **options)
        engine = FastEngine(own, kind)
        for batch, steps, mask in ((3, 5, MASK), (3, 5, None), (1, 3, None), (2, 0, None), (17, 2, None)):
            arguments = random_arguments(own, batch=batch, steps=steps, mask=mask)
            check(own, arguments, dtype=np.float32, engine=engine, split=Split(shards, 1))
