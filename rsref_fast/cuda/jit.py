"""How device functions are compiled: for a GPU that may not be there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.cuda import types
from numba.cuda.compiler import compile_cuda
from numba.cuda.dispatcher import CUDADispatcher

BASE = (7, 5)
"""The compute capability for which functions are typed and lowered; what NVVM makes of them is for the real one."""


class DeviceFunction(CUDADispatcher):  # type: ignore[misc]
    """A function that kernels call, compiled without asking any device what it can do."""

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Numbers that are known at the call are not told apart: one version for all, not one for each size."""
        return super().get_call_template(tuple(types.unliteral(a) for a in args), kws)

    def compile_device(self, args: Any, return_type: Any = None) -> Any:
        if args not in self.overloads:
            found = compile_cuda(
                self.py_func, return_type, args, nvvm_options={"opt": 3, "fastmath": False}, cc=BASE,
                forceinline=self.targetoptions["forceinline"],
            )  # fmt: skip
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
    known: dict[Any, DeviceFunction] = {}

    def unit(function: Any) -> DeviceFunction:
        code = function.__code__
        key = code.co_code, code.co_consts[1:], code.co_names, code.co_varnames
        if key not in known:
            known[key] = device(function, apart=True)
        return known[key]

    return unit
