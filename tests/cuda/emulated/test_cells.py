"""Every cell as the GPU's kernels, in both precisions, whole and masked.

Blocks with parts of their own have the other precision here than where every op is run.
"""

import numpy as np
import pytest

from tests.cuda.kernels import Emulated, EmulatedBlocks, EmulatedOwned
from tests.cuda.steps import check_cell, check_features
from tests.fast.made import CELLS

WAYS = {"all": (Emulated, np.float64), "own": (EmulatedOwned, np.float32)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients(name, way):
    check_cell(name, *WAYS[way])


@pytest.mark.covering("values")
@pytest.mark.parametrize("name", ["LSTMCell", "LayerNormGRUCell"])
@pytest.mark.parametrize("kind", [Emulated, EmulatedBlocks, EmulatedOwned])
def test_features(kind, name):
    check_features(name, kind, shards=2 if kind is EmulatedBlocks else 1)
