"""rsref_fast: the compiler of a drawn step. Its stages are pure functions on graphs, each with its own tests.

There so far, in the order in which they are applied:
merge        matrix products that share their left operand become one
derivative   the backward step as a graph
rows         which tensors treat each sample alone
schedule     what is computed before, in and after the time loop
The kernels, and `compile`, follow.
"""
