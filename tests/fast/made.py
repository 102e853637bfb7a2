"""Recurrences of cells that tests share. Those of one cell, number of units and width share what is compiled."""

import numpy as np

from rsref import cells, set_random_seed

CELLS = [name for name in cells.__all__ if name.endswith("Cell") and name not in ("RNNCell", "LayerCell")]
MASK = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)


def recurrence_of(name, units=4, width=2, **options):
    """Return a cell's recurrence over features of this width, with the same weights each time."""
    set_random_seed(0)
    if name == "AttentionDecoderCell":
        options = {"decode": True, "output_length": 3, **options}
    layer = getattr(cells, name)(units).get_layer(**options)
    layer.build((None, None, 3, 4, width) if name == "ConvLSTMCell" else (None, None, width))
    return layer.recurrence
