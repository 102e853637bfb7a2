"""Wide tensors: of so many values for each sample that a step has enough of them, and a few samples fill the cache.

They are computed where they are used, step by step, and for a few samples at a time, instead of being kept for a block
of steps: keys of an attention, say, with an axis of their own beside the step's.
"""

from __future__ import annotations

WIDE = 4096
"""Values of a sample, 16 KiB of them in single precision."""


def is_wide(values: int) -> bool:
    """Whether a tensor is wide. values: how many a sample has in it."""
    return values >= WIDE


PLACES = 8
"""Rows that a sample should have in a product of its own step, which reads or adds to all weights."""
