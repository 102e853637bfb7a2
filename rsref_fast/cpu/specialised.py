"""A step compiled for inner shapes and a precision: its programs, its kernels, and how their memory is cut up."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from rsref_fast.cpu.emit import FIRST_SLOT, Memory, Source
from rsref_fast.cpu.kernels import Kernels
from rsref_fast.cpu.memory import Arena, Frame, frame
from rsref_fast.cpu.programs import backward_source, forward_source
from rsref_fast.explain import flops_a_row
from rsref_fast.lengths import sized
from rsref_fast.packing import Shard
from rsref_fast.program import Compiled
from rsref_fast.views import Space

Array = np.ndarray
DTYPES: dict[str, np.dtype[Any]] = {"int": np.dtype(np.int64), "bool": np.dtype(np.uint8)}
BLOCK_ROWS = 96
"""Rows for which sequences are projected at once: few enough to stay in the cache until they are used."""

NOTHING = Shard(
    slice(0, 0), 0, np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8),
    np.zeros(0, bool),
)  # fmt: skip
"""A shard without samples, for what needs none."""


@dataclass
class Specialised:
    """Both programs, each generated and compiled when it is first needed."""

    compiled: Compiled
    dtype: np.dtype[Any]
    kernels: type[Kernels]
    width: int
    framed: dict[Any, Any] = field(default_factory=dict)
    plans: dict[Any, Any] = field(default_factory=dict)
    """Calls laid out beforehand (`native`), by sizes; never forgotten, since compiled callers hold their addresses."""

    @cached_property
    def flops(self) -> int:
        """Additions and multiplications for one sample and step, forward."""
        return flops_a_row(self.compiled.forward)

    @cached_property
    def forward(self) -> Source:
        return forward_source(self.compiled, self.width, True)

    @cached_property
    def inference(self) -> Source:
        return forward_source(self.compiled, self.width, False)

    @cached_property
    def backward(self) -> Source:
        return backward_source(self.compiled, self.width)

    @cached_property
    def run_forward(self) -> Kernels:
        return self.kernels(self.forward, self.dtype)

    @cached_property
    def run_inference(self) -> Kernels:
        return self.kernels(self.inference, self.dtype)

    @cached_property
    def run_backward(self) -> Kernels:
        return self.kernels(self.backward, self.dtype)

    def prepare(self, kernels: Kernels, source: Source, shared: dict[str, Array]) -> list[tuple[Frame, Arena]]:
        """Compute what depends on parameters alone; answer the memory that holds it."""
        if not source.prepared:
            return []
        key = (id(source), "prepared")
        if key not in self.framed:
            wanted = set(source.prepared)
            self.framed[key] = frame(
                (m.name, kernels.slots[m.name], sized(m.size, 0), self.dtype_of(m.kind))
                for m in source.memory if m.name in wanted
            )  # fmt: skip
        piece = (self.framed[key], Arena(self.framed[key].total))
        kernels.run("prepare", [(kernels.table(packed(NOTHING), shared, [piece]), numbers(NOTHING, False))])
        return [piece]

    def frames(self, source: Source, shard: Shard, taped: bool) -> tuple[Frame, Frame]:
        """Return how a shard's memory is cut up: what backward will read, and the rest."""
        key = (id(source), shard.count, len(shard.pos), taped)
        if key not in self.framed:
            rows = len(shard.pos)
            block = min(rows, max(BLOCK_ROWS, shard.count))
            window = rows if taped else block
            parts: tuple[list[Any], list[Any]] = ([], [])
            for i, m in enumerate(source.memory):
                if m.name in source.prepared or m.given:
                    continue
                tape = m.space in (Space.PACKED, Space.CURRENT)
                size = _elements(m, shard.count, block, window)
                parts[not tape].append((m.name, i + FIRST_SLOT, size, self.dtype_of(m.kind)))
            if len(self.framed) > 256:
                self.framed.clear()
            self.framed[key] = (frame(parts[0]), frame(parts[1]))
        found: tuple[Frame, Frame] = self.framed[key]
        return found

    def kept(self, shard: Shard) -> Frame:
        """Return forward's frame of what it kept, with the slots that backward has for it."""
        whole, _ = self.frames(self.forward, shard, True)
        slots = self.run_backward.slots
        chosen = [i for i, name in enumerate(whole.names) if name in slots]
        return Frame(
            tuple(whole.names[i] for i in chosen),
            np.array([slots[whole.names[i]] for i in chosen], np.int64),
            whole.offsets[chosen],
            tuple(whole.lengths[i] for i in chosen),
            tuple(whole.dtypes[i] for i in chosen),
            whole.total,
        )

    def dtype_of(self, kind: str) -> np.dtype[Any]:
        """Return what kernels use for floats, integers and bools."""
        return DTYPES.get(kind, self.dtype)

    def plain(self, array: Array) -> Array:
        """Return an array as kernels read it: contiguous, of their dtypes."""
        kind = {"f": "float", "b": "bool"}.get(array.dtype.kind, "int")
        return np.ascontiguousarray(array, self.dtype_of(kind)).reshape(array.shape)


def packed(shard: Shard) -> list[Array]:
    """Return the first slots of P."""
    return [shard.off, shard.pos, shard.rid, shard.cut]


def numbers(shard: Shard, taped: bool) -> Array:
    """Return N: rows, steps, rows of a block, whether an index was out of range, whether all is kept, what to run."""
    return np.array([shard.count, shard.steps, max(BLOCK_ROWS, shard.count), 0, taped, 0], np.int64)


def _elements(memory: Memory, count: int, block: int, window: int) -> int:
    """Return how many elements a piece of memory holds."""
    rows = {
        Space.FIXED: 0,
        Space.ROW: count,
        Space.STEP: count,
        Space.BLOCK: block,
        Space.PACKED: window,
        Space.CURRENT: count + window,
        Space.FLOW_IN: 2 * count,
    }[memory.space]
    return sized(memory.size, rows)
