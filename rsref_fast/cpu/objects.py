"""Machine code as bytes: loaded into the process and called by address, with no compiler around.

Numba is not imported here: a process that finds all its kernels in the cache never needs it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from functools import cache
from typing import Any

import llvmlite.binding as llvm

_lock = threading.Lock()
_loaded: dict[tuple[bytes, str], tuple[Any, int]] = {}
"""LLVM's engines, with which their code lives, and addresses; by what was loaded, which is the same for all copies."""


def _in_child() -> None:
    """A thread that held the lock is not in a forked child."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_in_child)


@cache
def features() -> str:
    """Return what the processor can do, as LLVM lists it."""
    return str(llvm.get_host_cpu_features().flatten())


@cache
def processor() -> str:
    return str(llvm.get_host_cpu_name())


@cache
def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=processor(), features=features(), opt=3, reloc="default", codemodel="jitdefault"
    )


def load(code: bytes, symbol: str) -> int:
    """Return the address of a function of an object file, loaded once and never freed.

    Errors: RuntimeError if the bytes are no such file.
    """
    key = hashlib.sha256(code).digest(), symbol
    with _lock:
        if key in _loaded:
            return _loaded[key][1]
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        address = int(engine.get_function_address(symbol))
        if not address:
            raise RuntimeError(f"the object file has no function {symbol!r}")
        _loaded[key] = engine, address
        return address


def c_entry(address: int, arguments: str) -> int:
    """Return the address of a C function that calls one of Numba's, and answers its result.

    arguments: what is handed on, as LLVM writes it; `%0`, `%1`, `%2` are the function's own 64-bit arguments.
    """
    text = f"""
    define i64 @entry(i64 %0, i64 %1, i64 %2) {{
      %result = alloca i64
      %exception = alloca ptr
      %function = inttoptr i64 {address} to ptr
      %status = call i32 %function(ptr %result, ptr %exception, {arguments})
      %answer = load i64, ptr %result
      ret i64 %answer
    }}
    """
    module = llvm.parse_assembly(text)
    return load(_machine().emit_object(module), "entry")


def publish(name: str, address: int) -> None:
    """Let object files that are loaded later call a function by name."""
    llvm.add_symbol(name, address)
