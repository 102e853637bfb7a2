"""These tests compile for GPUs: they run where numba-cuda is installed, in a process whose LLVM IR has typed pointers.

NVVM reads no other for cards before Blackwell; see `tests/cuda/emulated`, which needs the contrary.
"""

import os
from importlib.util import find_spec

VARIABLE = "LLVMLITE_ENABLE_IR_LAYER_TYPED_POINTERS"

if os.environ.get(VARIABLE) == "0" or find_spec("numba_cuda") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    collect_ignore = [] if find_spec("nvmath") else ["test_bindings.py"]

    from numba.cuda import types
    from numba.cuda.typing.context import BaseContext

    from tests.sparing import spare

    spare(BaseContext, types.Dispatcher)
