"""Let XLA compile quickly what JAX hands to it: tests compile thousands of small functions and call each one once.

The kernels of rsref_fast are compiled as always. XLA reads this when it compiles for the first time.
"""

import os
from importlib.metadata import version

KNOWN = {"0.10"}
"""Versions of jaxlib that have the flags: XLA ends the process when it meets one that it does not have."""
FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def begin():
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # for processes that tests start
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    if ".".join(version("jaxlib").split(".")[:2]) in KNOWN:
        given = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys([*given, *FLAGS]))
