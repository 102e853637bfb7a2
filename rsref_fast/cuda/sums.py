"""Sums that the threads of a block add up together, always in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.cuda import types

from rsref_fast.cuda.intrinsics import meet_in_block, shared_memory, thread, threads
from rsref_fast.cuda.jit import device
from rsref_fast.cuda.tile import Tile


def sums(dtype: np.dtype[Any], tile: Tile) -> dict[str, Any]:
    """Return `sum_in_block` for a precision. Of `tile`, the threads alone matter."""
    stage = shared_memory("sums", types.float32 if dtype.itemsize == 4 else types.float64, tile.threads)

    @device
    def sum_in_block(value):
        """The sum of all threads' values, for each of them."""
        memory = stage()
        t = thread()
        meet_in_block()
        memory[t] = value
        meet_in_block()
        size = threads()
        while size > 1:
            half = (size + 1) // 2
            if t < size - half:
                memory[t] += memory[t + half]
            meet_in_block()
            size = half
        return memory[0]

    return {"sum_in_block": sum_in_block}
