"""Generated source compiled by Numba to machine code that is called by address, from Python or without it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import types

from rsref_fast.cpu import gemm, vector_math
from rsref_fast.cpu.emit import Source
from rsref_fast.cpu.jit import c_function, kernel, plain, summing
from rsref_fast.cpu.kernels import Array, Call, Kernels, Pieces
from rsref_fast.cpu.microkernel import Shape, shape_for
from rsref_fast.cpu.pointers import ADDRESSES, at, pointer_to

ENTRY = types.int64(ADDRESSES, ADDRESSES)
PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)

@cache
def features() -> str:
    return llvm.get_host_cpu_features().flatten()


@cache
def shape(dtype: np.dtype[Any]) -> Shape:
    return shape_for(features(), dtype.itemsize * 8)


@plain
def copy_rows(count, width, source, target):  # type: ignore[no-untyped-def]
    for i in range(count * width):
        target[i] = source[i]


@plain
def gather_rows(count, width, source, index, target):  # type: ignore[no-untyped-def]
    for i in range(count):
        first = index[i] * width
        for j in range(width):
            target[i * width + j] = source[first + j]


@plain
def zero(count, target):  # type: ignore[no-untyped-def]
    for i in range(count):
        target[i] = 0


@plain
def cut_rows(count, width, cut, target):  # type: ignore[no-untyped-def]
    for i in range(count):
        if cut[i] != 0:
            for j in range(width):
                target[i * width + j] = 0


@cache
def library(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the compiled matrix products of a precision, as functions that other kernels call by name."""
    element = types.float32 if dtype.itemsize == 4 else types.float64
    found = {}
    for name, (function, signature) in gemm.products(element, shape(dtype)).items():
        symbol = f"rsref_{name}_{dtype.name}"
        compiled = c_function(function, signature)
        _kept.append(compiled)
        llvm.add_symbol(symbol, compiled.address)
        found[name] = types.ExternalFunction(symbol, signature)
    return found


_kept: list[Any] = []


@cache
def namespace(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the names that generated source uses, for a working precision."""
    element = types.float32 if dtype.itemsize == 4 else types.float64
    return {
        **vector_math.functions(element), **library(dtype),
        "kernel": kernel, "summing": summing, "entry": lambda function: function, "at": at,
        "copy_rows": copy_rows, "gather_rows": gather_rows, "zero": zero, "cut_rows": cut_rows,
        "floats": pointer_to(element), "ints": pointer_to(types.int64), "bytes_": pointer_to(types.uint8),
        "F": dtype.type, "I": np.int64, "U": np.uint8, "NAN": dtype.type("nan"), "INFINITY": dtype.type("inf"),
    }  # fmt: skip


class Compiled(Kernels):
    """Machine code of a program; shards run on threads of their own."""

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        super().__init__(source, dtype)
        names = dict(namespace(dtype))
        body = "\n".join(line for line in source.text.splitlines() if not line.startswith("from rsref_fast."))
        exec(compile(body, "<generated>", "exec"), names)  # the text is our own
        self.functions = {}
        for entry in source.entries:
            compiled = c_function(names[entry], ENTRY)
            self.functions[entry] = PROTOTYPE(compiled.address)
            _kept.append(compiled)

    @staticmethod
    def panel_width(dtype: np.dtype[Any]) -> int:
        return shape(dtype).width

    def table(self, first: Sequence[Array], given: Mapping[str, Array], pieces: Pieces) -> Any:
        addresses = np.zeros(self.size, np.int64)
        for frame, arena in pieces:
            addresses[frame.slots] = frame.offsets + arena.address
        for i, array in enumerate(first):
            addresses[i] = array.__array_interface__["data"][0]
        for name, array in given.items():
            slot = self.slots.get(name)
            if slot is not None:
                addresses[slot] = array.__array_interface__["data"][0]
        return addresses

    def run(self, entry: str, calls: Sequence[Call]) -> None:
        function = self.functions[entry]
        jobs = [
            pool(len(calls)).submit(function, table.ctypes.data, numbers.ctypes.data) for table, numbers in calls[1:]
        ]
        table, numbers = calls[0]
        function(table.ctypes.data, numbers.ctypes.data)
        for job in jobs:
            job.result()


@cache
def pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size)
