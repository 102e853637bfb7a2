"""Generated source as machine code, from the cache or freshly compiled; shards run on threads of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rsref_fast.cpu import cache as disk
from rsref_fast.cpu import crew, direct, masks, objects
from rsref_fast.cpu.kernels import Array, Kernels
from rsref_fast.cpu.machine import versions
from rsref_fast.cpu.memory import Arena
from rsref_fast.cpu.microkernel_shapes import Shape, shape_for
from rsref_fast.cpu.plan import Plan
from rsref_fast.cpu.source import Source


@cache
def shape(dtype: np.dtype[Any]) -> Shape:
    return shape_for(objects.features(), dtype.itemsize * 8)


@cache
def library(dtype: np.dtype[Any]) -> None:
    """Make the matrix products of a precision callable by name; compiled once for a machine."""

    def build(name: str) -> tuple[bytes, str]:
        from rsref_fast.cpu import build

        return build.product(name, dtype, shape(dtype))

    for name in shape(dtype).products:
        key = disk.key_of(name, dtype.name, versions())
        code, symbol = disk.fetch(key, "", lambda name=name: build(name))  # type: ignore[misc]
        objects.publish(shape(dtype).symbol(name, dtype.name), objects.load(code, symbol))


class Compiled(Kernels):
    """Machine code of a program. Its source is readable in the cache folder."""

    masks = masks
    direct_step = staticmethod(direct.direct_step)

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        super().__init__(source, dtype)
        library(dtype)
        key = disk.key_of(source.text, dtype.name, versions())

        def build() -> tuple[bytes, str]:
            from rsref_fast.cpu import build

            return build.program(source.text, dtype, shape(dtype), Path(f"{key}.py"))

        code, symbol = disk.fetch(key, source.text, build)
        try:
            self.address = objects.load(code, symbol)
        except RuntimeError:
            self.address = objects.load(*build())

    @staticmethod
    def panel_width(dtype: np.dtype[Any]) -> int:
        return shape(dtype).width

    def execute(self, plan: Plan, arrays: Sequence[Array]) -> None:
        crew.run(plan, arrays)

    def repeated(self, plans: Sequence[Plan], arrays: Sequence[Array]) -> crew.Repeated:
        first, last = plans
        tape, scratch = Arena(max(p.tape for p in plans)), Arena(max(p.scratch_bytes for p in plans))
        every = [*arrays, tape.bytes, scratch.bytes]
        crew.run(first, every)  # what it prepares stays where it is
        return crew.Repeated(last.prepared_before, every, kept=(tape, scratch))
