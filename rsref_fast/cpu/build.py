"""From generated source to an object file, by Numba: only what the cache does not have is ever built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import types
from numba.core.codegen import AOTCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from rsref_fast.cpu import gemm, single_row, vector_math
from rsref_fast.cpu.alike import once
from rsref_fast.cpu.jit import kernel, plain, summing
from rsref_fast.cpu.meeting import arrive, meet, rank_of, size_of, wait_for_all
from rsref_fast.cpu.microkernel_shapes import Shape
from rsref_fast.cpu.pointers import ADDRESSES, at, fetch, pointer_to
from rsref_fast.cpu.remainders import hint, rest_masked
from rsref_fast.frames import roomy

AHEAD = 8
"""Rows of a sequence that are fetched before they are copied."""

ENTRIES = frozenset({"prepare", "shard", "fold", "finish"})
"""A program's functions that `run` calls."""

ENTRY = types.int64(ADDRESSES, ADDRESSES, ADDRESSES)


@plain
def cutting_of(N, count, cut):
    """Whether gradients are cut between any two steps."""
    found = 0
    for i in range(count):
        found |= cut[i]
    return found


@plain
def in_a_row(count, index):
    """Whether there are some rows, and each follows the one before it."""
    for i in range(count):
        if index[i] != index[0] + i:
            return False
    return count > 0


@plain
def room_at(count, columns, sequence, index, own):
    """Where rows are to be written: in a sequence, if they follow each other there, or else in memory of their own."""
    return at(sequence, index[0] * columns) if in_a_row(count, index) else own


@cache
def sharing(width: int) -> dict[str, Any]:
    """Return the functions by name that a team's threads call for a part of a length: some panels of so many columns.

    Products are shared likewise (`gemm`), so what one thread computes of an axis is the same everywhere.
    """

    @plain
    def part(length, rank, size):
        """Where the part of a thread of a team begins."""
        return min(length, (length + width - 1) // width * rank // size * width)

    @plain
    def zero_rows(count, columns, target, rank, size):
        first, last = part(columns, rank, size), part(columns, rank + 1, size)
        for i in range(count):
            for j in range(first, last):
                target[i * columns + j] = 0

    @plain
    def add_part(count, source, target, rank, size):
        for i in range(part(count, rank, size), part(count, rank + 1, size)):
            target[i] += source[i]

    @plain
    def cut_rows(count, columns, cut, target, rank, size):
        for i in range(count):
            if cut[i] != 0:
                for j in range(part(columns, rank, size), part(columns, rank + 1, size)):
                    target[i * columns + j] = 0

    @plain
    def copy_rows(count, columns, source, target, rank, size):
        first, last = part(columns, rank, size), part(columns, rank + 1, size)
        for i in range(count):
            for j in range(first, last):
                target[i * columns + j] = source[i * columns + j]

    @plain
    def gather_rows(count, columns, source, index, target, rank, size):
        """Rows of a sequence, far from each other: those that come soon are fetched while one is copied."""
        first, last = part(columns, rank, size), part(columns, rank + 1, size)
        for i in range(count):
            row, ahead = index[i] * columns, index[min(i + AHEAD, count - 1)] * columns
            for j in range(first, last, 16):
                fetch(source, ahead + j)
            for j in range(first, last):
                target[i * columns + j] = source[row + j]

    @plain
    def gather_previous(first, last, columns, n0, off, source, target, rank, size):
        """The rows before those of some steps: source has those of step s from row n0 + off[s] on, before it others."""
        for s in range(first, last):
            before = at(source, 0 if s == 0 else (n0 + off[s - 1]) * columns)
            now = at(target, (off[s] - off[first]) * columns)
            copy_rows(off[s + 1] - off[s], columns, before, now, rank, size)

    @plain
    def rows_at(count, columns, source, index, target, rank, size):
        """Where rows of a sequence are: there, if they follow each other; else they are copied."""
        if in_a_row(count, index):
            return at(source, index[0] * columns)
        gather_rows(count, columns, source, index, target, rank, size)
        return target

    @plain
    def previous_at(first, last, columns, n0, off, source, target, rank, size):
        """Where the rows before those of some steps are: there, if all have as many, or there is one step."""
        before = n0 + off[first - 1] if first > 0 else 0
        count = off[first] - off[first - 1] if first > 0 else n0
        if last - first == 1 or off[last] - off[first] == (last - first) * count:
            return at(source, before * columns)
        gather_previous(first, last, columns, n0, off, source, target, rank, size)
        return target

    return {
        "part": part, "zero_rows": zero_rows, "add_part": add_part, "cut_rows": cut_rows, "copy_rows": copy_rows,
        "gather_rows": gather_rows, "rows_at": rows_at, "gather_previous": gather_previous, "previous_at": previous_at,
    }  # fmt: skip


def element_of(dtype: np.dtype[Any]) -> Any:
    return types.float32 if dtype.itemsize == 4 else types.float64


class Part(AOTCodeLibrary):  # type: ignore[misc]
    """What Numba has compiled, in LLVM's terms, on its way into an object file.

    Kernels are optimised on their own, and once more as a part of the whole program. Its entries, which hold all
    kernels that they call, are not: they would be optimised with all of them each time. Neither do we need the pass
    before, by which Numba finds references that it can spare: there are none.
    """

    def add_ir_module(self, module: Any) -> None:
        hint(module)
        super().add_ir_module(module)

    def _optimize_final_module(self) -> None:
        if self.name not in ENTRIES:
            passes, builder = self._codegen._module_pass_manager()
            passes.run(self._final_module, builder)


@contextmanager
def _ahead_of_time() -> Iterator[None]:
    """Let Numba make no machine code of the functions that it compiles: they become part of one object file.

    Nobody else compiles meanwhile: Numba's lock is held.
    """
    context = cpu_target.target_context
    codegen = context.codegen()
    with global_compiler_lock:
        codegen._library_class, codegen._add_module = Part, lambda module: None
        context.get_executable = lambda library, descriptor, environment: [].append  # a key that no other one equals
        try:
            yield
        finally:
            del codegen._library_class, codegen._add_module, context.get_executable


def object_of(function: Any, signature: Any) -> tuple[bytes, str]:
    """Return a function that `jit` compiled, as an object file, and its name in it."""
    with _ahead_of_time():
        roomy(function.compile)(signature.args)
        found = function.overloads[tuple(signature.args)]
        return found.library.emit_native_object(), found.fndesc.llvm_func_name


def product(name: str, dtype: np.dtype[Any], shape: Shape) -> tuple[bytes, str]:
    """Return one of the products' functions as an object file, and its name in it."""
    function, signature = gemm.products(element_of(dtype), shape)[name]
    return object_of(plain(function), signature)


@cache
def namespace(dtype: np.dtype[Any], shape: Shape) -> dict[str, Any]:
    """Return the names that generated source uses, for a working precision."""
    element = element_of(dtype)
    return {
        **vector_math.functions(element), **gemm.declared(element, shape),
        "kernel": once(kernel), "summing": once(summing), "waiting": once(plain), "entry": plain, "at": at,
        "rest_masked": rest_masked, **sharing(shape.width), **single_row.own_part(element, shape),
        "meet": meet, "arrive": arrive, "wait_for_all": wait_for_all, "rank_of": rank_of, "size_of": size_of,
        "cutting_of": cutting_of, "in_a_row": in_a_row, "room_at": room_at,
        "floats": pointer_to(element), "ints": pointer_to(types.int64), "bytes_": pointer_to(types.uint8),
        "F": dtype.type, "I": np.int64, "U": np.uint8, "NAN": dtype.type("nan"), "INFINITY": dtype.type("inf"),
    }  # fmt: skip


def program(text: str, dtype: np.dtype[Any], shape: Shape, path: Path) -> tuple[bytes, str]:
    """Return a generated module's `run` as an object file, and its name in it. path: where its source lies."""
    names = dict(namespace(dtype, shape))
    body = text.replace("from rsref_fast.cpu.runtime import *", "")
    exec(compile(body, str(path), "exec"), names)  # the text is our own
    return object_of(names["run"], ENTRY)
