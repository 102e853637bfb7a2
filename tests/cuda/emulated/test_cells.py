"""Every cell as the GPU's kernels, in both precisions, whole and masked.

Blocks with parts of their own have the other precision here than where every op is run.
"""

import numpy as np
import pytest

from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.splitting import Split
from tests.cuda.kernels import Emulated, EmulatedBlocks, EmulatedOwned, EmulatedTensor
from tests.cuda.steps import CELLS, MASK, check_cell, recurrence_of
from tests.fast.agreement import check

WAYS = {"all": (Emulated, np.float64), "own": (EmulatedOwned, np.float32)}


@pytest.mark.covering("values")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients(name, way):
    check_cell(name, *WAYS[way])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((n, k) for n in ("LSTMCell", "LayerNormGRUCell") for k in (Emulated, EmulatedBlocks, EmulatedOwned)),
        ("LSTMCell", EmulatedTensor),
    ],
)
def test_features(name, kind):
    """Truncation, zeros where masked, no steps, sizes that fill no tile, more samples than threads."""
    for options in ({"truncate": 2}, {"zero_output_for_mask": True}):
        own = recurrence_of(name, 7, 3, **options)
        engine = FastEngine(own, kind)
        for batch, steps, mask in ((3, 5, MASK), (3, 5, None), (1, 3, None), (2, 0, None), (17, 2, None)):
            check(
                own, random_arguments(own, batch=batch, steps=steps, mask=mask), dtype=np.float32, engine=engine,
                split=Split(2 if kind is EmulatedBlocks else 1, 1),
            )  # fmt: skip
