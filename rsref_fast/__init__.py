"""rsref_fast: a compiler from any drawn step to fused kernels, forward and backward.

`compile(rnn)` gives an engine with the reference engine's contract. Needs the extra `fast` (Numba) when it is called,
not when the package is imported.

The main stages, each a pure function on graphs, about in the order in which they are applied; docs/compiler.md has all:
prologue     for training and streams, what depends on no step becomes a step of its own
numbered     a step that picks samples by their number is drawn for a batch that is one sample
concrete     the step for arrays of known inner shapes
merge        matrix products that share their left operand become one
sums         what depends on no state is added first
derivative   the backward step as a graph
simplify     composite ops become pointwise ops and reductions, each computed once
rows         which tensors treat each sample alone
schedule     what is computed before, in and after the time loop
layout       views and memory
fuse         pointwise ops of one shape become one loop
cpu.emit     source; cpu.build and cpu.cache: machine code
"""

from rsref_fast.api import compile
from rsref_fast.threads import get_num_threads, set_num_threads

__all__ = ["compile", "get_num_threads", "set_num_threads"]
