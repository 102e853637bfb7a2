"""What the text of a program is like for a GPU: see `rsref_fast.cpu.target.Target`."""

from __future__ import annotations

from rsref_fast.cpu.ordering import shared_out, spread
from rsref_fast.cpu.target import Target
from rsref_fast.cuda import owned
from rsref_fast.cuda.loops import RULES, product
from rsref_fast.cuda.text import TeamFunction, addressed

CUDA = Target("rsref_fast.cuda.runtime", TeamFunction, RULES, product, spread, addressed, False)

OWNED = Target(
    "rsref_fast.cuda.runtime", owned.OwnedFunction, RULES, owned.product, shared_out, addressed, False
)  # fmt: skip
"""For programs in whose time loop each block has a part of its own."""
