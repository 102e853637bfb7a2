"""rsref_fast: the compiler of a drawn step. Its stages are pure functions on graphs, each with its own tests.

There so far: `derivative` (the backward step as a graph) and `rows` (what may be computed for many timesteps at once).
The kernels, and `compile`, follow.
"""
