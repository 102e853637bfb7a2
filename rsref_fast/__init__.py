"""rsref_fast: the compiler of a drawn step. Its stages are pure functions on graphs, each with its own tests.

There so far: `derivative` (the backward step as a graph), `rows` (what treats each sample alone) and `schedule` (what is
computed before, in and after the time loop).
The kernels, and `compile`, follow.
"""
