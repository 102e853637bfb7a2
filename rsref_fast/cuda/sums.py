"""Sums that the threads of a block add up together, always in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.cuda import types

from rsref_fast.cuda.intrinsics import meet_in_block, quotient, shared_memory, thread, threads
from rsref_fast.cuda.jit import device
from rsref_fast.cuda.tile import Tile


def sums(dtype: np.dtype[Any], tile: Tile) -> dict[str, Any]:
    """Return `sum_in_block` for a precision. Of `tile`, the threads alone matter."""
    stage = shared_memory("sums", types.float32 if dtype.itemsize == 4 else types.float64, tile.threads)

    @device
    def sum_in_block(value, apart):
        """The sum of the values of all threads whose numbers are so far apart, for the first of them.

        Threads that are left over when as many have been taken count for nothing.
        """
        memory = stage()
        t = thread()
        meet_in_block()
        memory[t] = value
        meet_in_block()
        size = quotient(threads(), apart)
        while size > 1:
            half = quotient(size + 1, 2)
            if t < (size - half) * apart:
                memory[t] += memory[t + half * apart]
            meet_in_block()
            size = half
        return memory[t]

    return {"sum_in_block": sum_in_block}
