"""These tests run where numba-cuda is installed, in a process whose LLVM IR has no typed pointers.

llvmlite decides that when it is imported, so the variable must be set before: `tox -e cuda-static` does.
"""

import os
from importlib.util import find_spec

VARIABLE = "LLVMLITE_ENABLE_IR_LAYER_TYPED_POINTERS"

if os.environ.get(VARIABLE) != "0" or find_spec("numba_cuda") is None:
    collect_ignore_glob = ["test_*.py"]
elif not (find_spec("torch") and find_spec("keras")):
    collect_ignore = ["test_torch.py"]

if find_spec("numba_cuda"):
    from tests.cuda.sparing import spare

    spare()
