"""Generated source as machine code, from the cache or freshly compiled; shards run on threads of their own."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rsref_fast.cpu import cache as disk
from rsref_fast.cpu import objects
from rsref_fast.cpu.emit import Source
from rsref_fast.cpu.kernels import Array, Call, Kernels, Pieces
from rsref_fast.cpu.microkernel_shapes import Shape, shape_for
from rsref_fast.threads import run_all


@cache
def shape(dtype: np.dtype[Any]) -> Shape:
    return shape_for(objects.features(), dtype.itemsize * 8)


@cache
def versions() -> str:
    """Return what a compiled piece depends on besides its source: our code, the compiler, the processor."""
    own = disk.key_of("".join(p.read_text() for p in sorted(Path(__file__).parent.glob("*.py"))))
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]
    return " ".join([own, *packages, objects.processor(), objects.features()])


@cache
def library(dtype: np.dtype[Any]) -> None:
    """Make the matrix products of a precision callable by name; compiled once for a machine."""

    def build(name: str) -> tuple[bytes, str]:
        from rsref_fast.cpu import build

        return build.product(name, dtype, shape(dtype))

    for name in ("multiply_packed", "multiply", "pack"):
        key = disk.key_of(name, dtype.name, versions())
        code, symbol = disk.fetch(key, "", lambda name=name: build(name))  # type: ignore[misc]
        objects.publish(f"rsref_{name}_{dtype.name}", objects.load(code, symbol))


class Compiled(Kernels):
    """Machine code of a program. Its source is readable in the cache folder."""

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        super().__init__(source, dtype)
        library(dtype)
        key = disk.key_of(source.text, dtype.name, versions())

        def build() -> tuple[bytes, str]:
            from rsref_fast.cpu import build

            return build.program(source.text, dtype, Path(f"{key}.py"))

        code, symbol = disk.fetch(key, source.text, build)
        try:
            self.address = objects.load(code, symbol)
        except RuntimeError:
            self.address = objects.load(*build())
        self.function = objects.function_at(self.address)

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
        which = self.source.entries.index(entry)
        places = []
        for table, numbers in calls:
            numbers[5] = which
            places.append((table.ctypes.data, numbers.ctypes.data))
        run_all(self.function, places)
