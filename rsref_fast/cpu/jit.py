"""How kernels are compiled by Numba: without anything that Python would need, and with what LLVM may assume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

FREEDOM = frozenset({"contract", "nsz"})
"""What the compiler may do to floats; never assume that there is no NaN and no infinity."""


def jit(*freedom: str, noalias: bool = False, inline: bool = False) -> Callable[[Any], Any]:
    """Return a decorator for functions that only compiled code calls.

    freedom: LLVM's fast-math flags. noalias: whether no two pointer arguments overlap. inline: always, whatever its
    size, since a call in a loop keeps it from being turned into vector code.
    Numba's own division check is off: it would keep loops from being turned into vector code.
    """

    def decorate(function: Any) -> Any:
        options = {
            "error_model": "numpy",
            "fastmath": set(freedom),
            "no_cpython_wrapper": True,
            "no_cfunc_wrapper": True,
            "forceinline": inline,
        }
        dispatcher = njit(**options)(function)
        customize = dispatcher._compiler._customize_flags

        def flags_of(flags: Any) -> Any:
            flags = customize(flags)
            flags.noalias = noalias
            flags.nrt = False
            return flags

        dispatcher._compiler._customize_flags = flags_of
        return dispatcher

    return decorate


kernel = jit(*FREEDOM, noalias=True)
summing = jit(*FREEDOM, "reassoc", noalias=True)
plain = jit(*FREEDOM)
exactly = jit("contract", inline=True)
