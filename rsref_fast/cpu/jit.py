"""How kernels are compiled by Numba: without anything that Python would need, and with what LLVM may assume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import (
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

from rsref_fast.cpu.passes import Few, pipeline

FREEDOM = frozenset({"contract", "nsz"})
"""What the compiler may do to floats; never assume that there is no NaN and no infinity."""

PASSES = (
    TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA, NopythonTypeInference, PreLowerStripPhis,
    NativeLowering, NoPythonBackend,
)  # fmt: skip


class Passes(Few, PassManager):  # type: ignore[misc]
    """Runs the passes above."""


class Pipeline(CompilerBase):  # type: ignore[misc]
    """Numba's passes without those that find nothing in kernels, and look through all of a function for it.

    Closures, array expressions, `with` blocks, exceptions with values, functions to be put into others before they are
    typed, branches that a type decides, references to give up where a variable ends: kernels have none of them.
    """

    def define_pipelines(self) -> list[Any]:
        return pipeline(Passes, PASSES)


def jit(*freedom: str, noalias: bool = False, inline: bool = False) -> Callable[[Any], Any]:
    """Return a decorator for functions that only compiled code calls.

    freedom: LLVM's fast-math flags. noalias: whether no two pointer arguments overlap. inline: always, whatever its
    size, since a call in a loop keeps it from being turned into vector code.
    Numba's own division check is off: it would keep loops from being turned into vector code. Numbers that are known
    at a call are not told apart: a function is compiled once for all of them.
    """

    def decorate(function: Any) -> Any:
        options = {
            "error_model": "numpy",
            "fastmath": set(freedom),
            "no_cpython_wrapper": True,
            "no_cfunc_wrapper": True,
            "forceinline": inline,
            "pipeline_class": Pipeline,
        }
        dispatcher = njit(**options)(function)
        customize, template = dispatcher._compiler._customize_flags, dispatcher.get_call_template

        def flags_of(flags: Any) -> Any:
            flags = customize(flags)
            flags.noalias = noalias
            flags.nrt = False
            return flags

        dispatcher._compiler._customize_flags = flags_of
        dispatcher.get_call_template = lambda args, named: template(tuple(types.unliteral(a) for a in args), named)
        return dispatcher

    return decorate


kernel = jit(*FREEDOM, noalias=True)
summing = jit(*FREEDOM, "reassoc", noalias=True)
plain = jit(*FREEDOM)
exactly = jit("contract", inline=True)
