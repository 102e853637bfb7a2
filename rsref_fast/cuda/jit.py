"""How device functions are compiled: for a GPU that may not be there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.cuda import types, utils
from numba.cuda.compiler import (
    CreateLibrary,
    CUDABackend,
    CUDANativeLowering,
    CUDATranslateBytecode,
    compile_extra,
)
from numba.cuda.core.callconv import CUDACallConv
from numba.cuda.core.compiler import CompilerBase
from numba.cuda.core.compiler_lock import global_compiler_lock
from numba.cuda.core.compiler_machinery import PassManager
from numba.cuda.core.typed_passes import NopythonTypeInference, PreLowerStripPhis
from numba.cuda.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA
from numba.cuda.descriptor import cuda_target
from numba.cuda.dispatcher import CUDADispatcher
from numba.cuda.flags import CUDAFlags

from rsref_fast.cpu.alike import once
from rsref_fast.cpu.passes import Few, pipeline

BASE = (7, 5)
"""The compute capability for which functions are typed and lowered; what NVVM makes of them is for the real one."""


PASSES = (
    CUDATranslateBytecode, FixupArgs, IRProcessing, ReconstructSSA, NopythonTypeInference, PreLowerStripPhis,
    CreateLibrary, CUDANativeLowering, CUDABackend,
)  # fmt: skip


class Passes(Few, PassManager):  # type: ignore[misc]
    """Runs the passes above."""


class Pipeline(CompilerBase):  # type: ignore[misc]
    """Numba's passes for GPUs without those that find nothing in kernels; see `rsref_fast.cpu.jit.Pipeline`."""

    def define_pipelines(self) -> list[Any]:
        return pipeline(Passes, PASSES)


@global_compiler_lock
def compiled(function: Any, return_type: Any, arguments: Any, forceinline: bool) -> Any:
    """Return what Numba makes of a function: what its `compile_cuda` does, by the passes above."""
    typing, target = cuda_target.typing_context, cuda_target.target_context
    flags = CUDAFlags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.inline, flags.error_model, flags.forceinline = "never", "numpy", forceinline
    flags.nvvm_options, flags.compute_capability = {"opt": 3, "fastmath": False}, BASE
    with utils.numba_target_override():
        found = compile_extra(
            typing, target, function, arguments, return_type, flags, {}, pipeline_class=Pipeline,
            call_conv=CUDACallConv(target), abi_info={},
        )  # fmt: skip
    found.library.finalize()
    return found


class DeviceFunction(CUDADispatcher):  # type: ignore[misc]
    """A function that kernels call, compiled without asking any device what it can do."""

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Numbers that are known at the call are not told apart: one version for all, not one for each size."""
        return super().get_call_template(tuple(types.unliteral(a) for a in args), kws)

    def compile_device(self, args: Any, return_type: Any = None) -> Any:
        if args not in self.overloads:
            found = compiled(self.py_func, return_type, args, self.targetoptions["forceinline"])
            for module in found.library.modules:
                for function in module.functions:
                    if not function.is_declaration:
                        function.attributes.add("convergent")  # NVVM takes it away where no threads meet
                    if self.targetoptions["apart"] and function.name == found.fndesc.llvm_func_name:
                        function.attributes.add("noinline")
            self.overloads[args] = found
            found.target_context.insert_user_function(found.entry_point, found.fndesc, [found.library])
        return self.overloads[args]


def device(function: Any, apart: bool = False) -> DeviceFunction:
    """Turn a Python function into one that kernels call. apart: and never take in."""
    options = {
        "device": True, "debug": False, "lineinfo": False, "opt": True, "fastmath": False, "forceinline": False,
        "inline": "never", "extensions": [], "link": [], "launch_bounds": None, "lto": False,
        "apart": apart,
    }  # fmt: skip
    return DeviceFunction(function, targetoptions=options)


def unit_decorator() -> Callable[[Any], DeviceFunction]:
    """Return what turns generated functions into ones that kernels call and never take in.

    A kernel that takes in all its units needs as many registers as the worst of them and all that waits meanwhile.
    Functions that differ in their names and comments alone become one, which is compiled once.
    """
    return once(lambda function: device(function, apart=True))
