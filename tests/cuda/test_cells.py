"""Every cell as the GPU's kernels, in both precisions, whole and masked."""

import numpy as np
import pytest

from rsref import cells, set_random_seed
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.splitting import Split
from tests.cuda.kernels import Emulated, EmulatedBlocks
from tests.fast.agreement import check

CELLS = [name for name in cells.__all__ if name.endswith("Cell") and name not in ("RNNCell", "LayerCell")]
MASK = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
PRECISIONS = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


def recurrence_of(name, units=4, width=2, **options):
    set_random_seed(0)
    if name == "AttentionDecoderCell":
        options.update(decode=True, output_length=3)
    layer = getattr(cells, name)(units).get_layer(**options)
    layer.build((None, None, 3, 4, width) if name == "ConvLSTMCell" else (None, None, width))
    return layer.recurrence


@PRECISIONS
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients(name, dtype):
    own = recurrence_of(name)
    engine = FastEngine(own, Emulated)
    for mask in (None, None if name == "AttentionDecoderCell" else MASK):
        check(own, random_arguments(own, batch=3, steps=5, mask=mask), dtype=dtype, engine=engine, split=Split(1, 1))


@pytest.mark.parametrize("name", ["LSTMCell", "LayerNormGRUCell"])
@pytest.mark.parametrize("kind", [Emulated, EmulatedBlocks])
def test_features(name, kind):
    """Truncation, zeros where masked, no steps, sizes that fill no tile, more samples than threads."""
    for options in ({"truncate": 2}, {"zero_output_for_mask": True}):
        own = recurrence_of(name, 7, 3, **options)
        engine = FastEngine(own, kind)
        for batch, steps, mask in ((3, 5, MASK), (3, 5, None), (1, 3, None), (2, 0, None), (17, 2, None)):
            check(
                own, random_arguments(own, batch=batch, steps=steps, mask=mask), dtype=np.float32, engine=engine,
                split=Split(1 if kind is Emulated else 2, 1),
            )  # fmt: skip
