"""rsref_fast on CUDA: the same programs as for the CPU, as Numba CUDA kernels.

`rsref_fast.compile(rnn, target="cuda")` gives the engine; `inspect` shows, with no GPU, what a step becomes on one.
numba-cuda is imported when something is compiled, not before.
"""

from rsref_fast.cuda.inspection import inspect

__all__ = ["inspect"]
