"""These tests run where numba-cuda is installed, in a process whose LLVM IR has no typed pointers.

llvmlite decides that when it is imported, so the variable must be set before: `tox -e cuda-static` and `cuda-every` do.
"""

import os
from importlib.util import find_spec

VARIABLE = "LLVMLITE_ENABLE_IR_LAYER_TYPED_POINTERS"

if os.environ.get(VARIABLE) != "0" or find_spec("numba_cuda") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    collect_ignore = [f"test_{name}.py" for name in ("torch", "jax") if not (find_spec(name) and find_spec("keras"))]

if find_spec("numba_cuda"):
    from numba.cuda import types
    from numba.cuda.codegen import CUDACodeLibrary
    from numba.cuda.typing.context import BaseContext

    from tests.sparing import spare, write_once

    spare(BaseContext, types.Dispatcher)
    write_once(CUDACodeLibrary)
