"""These tests run where a GPU and its driver are, in a process whose LLVM IR has typed pointers (see `static`).

Those of PyTorch and JAX where that is Keras's backend: `KERAS_BACKEND=jax pytest tests/cuda/gpu`.
"""

import os
from importlib.util import find_spec

VARIABLE = "LLVMLITE_ENABLE_IR_LAYER_TYPED_POINTERS"


def gpus():
    """Return how many there are."""
    try:
        from cuda.bindings import driver

        return driver.cuDeviceGetCount()[1] if int(driver.cuInit(0)[0]) == 0 else 0
    except (ImportError, RuntimeError, OSError):  # no bindings, or no driver behind them
        return 0


if os.environ.get(VARIABLE) == "0" or find_spec("numba_cuda") is None or not gpus():
    collect_ignore_glob = ["test_*.py"]
else:
    collect_ignore = [f"test_{name}.py" for name in ("torch", "jax") if os.environ.get("KERAS_BACKEND") != name]
