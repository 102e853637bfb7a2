"""Every op, forward and backward, as the GPU's kernels.

What keeps nothing for backward has the same loops: it is compiled for a few cells, and here with `--every`.
"""

import numpy as np
import pytest

from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.splitting import Split
from tests.covering import examples
from tests.cuda.kernels import Emulated, EmulatedBlocks, EmulatedOwned
from tests.fast.agreement import check
from tests.fast.steps import STEPS, recurrence

MASK = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)

WAYS = [(Emulated, np.float32), (EmulatedOwned, np.float64)]


@pytest.mark.parametrize(("kind", "dtype"), WAYS, ids=lambda value: value.__name__)
@pytest.mark.parametrize("name", STEPS)
def test_values_and_gradients(name, kind, dtype):
    own = recurrence(name)
    engine = FastEngine(own, kind)
    for mask in (None, MASK):
        arguments = random_arguments(own, batch=3, steps=4, mask=mask)
        check(own, arguments, dtype=dtype, engine=engine, split=Split(1, 1), inference=examples(True, False))


@pytest.mark.parametrize("name", examples(["products", "reductions", "places"], ["reductions"]))
def test_a_block_for_some_samples(name):
    own = recurrence(name)
    arguments = random_arguments(own, batch=3, steps=4, mask=MASK)
    engine = FastEngine(own, EmulatedBlocks)
    check(own, arguments, dtype=np.float32, engine=engine, split=Split(2, 1), inference=examples(True, False))
