"""A step compiled for inner shapes and a precision: its programs, its kernels, and how their memory is cut up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from rsref.handed import converted
from rsref.ops.base import NoGradientError
from rsref.recurrence import Recurrence
from rsref_fast.cpu.call import Call
from rsref_fast.cpu.kernels import Kernels
from rsref_fast.cpu.memory import Frame, frame
from rsref_fast.cpu.programs import backward_source, forward_source
from rsref_fast.cpu.source import Memory, Source
from rsref_fast.cpu.splitting import Split
from rsref_fast.explain import STEPPED, flops_a_row, functions_a_row
from rsref_fast.layout import Section
from rsref_fast.lengths import sized
from rsref_fast.packing import Shard
from rsref_fast.program import Compiled
from rsref_fast.remembered import remembered
from rsref_fast.views import Space

Array = np.ndarray
DTYPES: dict[str, np.dtype[Any]] = {"int": np.dtype(np.int64), "bool": np.dtype(np.uint8)}
BLOCK_ROWS = 96
"""Rows for which sequences are projected at once: few enough to stay in the cache until they are used."""

LARGE, MORE_ROWS = 1 << 20, 384
"""Bytes of gradients that do not stay in the cache, and for how many rows at once they are then added up."""

FUNCTION = 32
"""Additions and multiplications of a product that take as long as an exponential, say."""

REMEMBERED = 256
"""Calls and frames that are kept for the same sizes."""


@dataclass
class Specialised:
    """Both programs, each generated and compiled when it is first needed.

    batch: how many samples of a call are one sample of theirs, if they are (see `rsref_fast.numbered`).
    """

    recurrence: Recurrence
    compiled: Compiled
    dtype: np.dtype[Any]
    kernels: type[Kernels]
    width: int
    batch: int | None = None
    framed: dict[Any, tuple[Frame, Frame]] = field(default_factory=dict)
    calls: dict[Any, Call] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether a batch is one sample of the programs."""
        return self.batch is not None

    def samples(self, batch: int) -> int:
        """Return how many samples a batch is to the programs."""
        return 1 if self.whole else batch

    @cached_property
    def flops(self) -> int:
        """Additions and multiplications for one sample and step, forward."""
        return flops_a_row(self.compiled.forward)

    @cached_property
    def costs(self) -> tuple[int, int]:
        """What one sample takes once a call, and at each step, forward: as `work` answers it."""
        program = self.compiled.forward
        once, stepped = (
            flops_a_row(program, sections) + FUNCTION * functions_a_row(program, sections)
            for sections in ((Section.ONCE,), STEPPED)
        )
        return once, stepped

    def work(self, samples: int, rows: int) -> int:
        """Return what a call takes, forward, in additions and multiplications. rows: of all steps of all samples."""
        once, stepped = self.costs
        return once * samples + stepped * rows

    @cached_property
    def attended(self) -> int:
        """Bytes of a sample that every step reads forward, of what is the same at all steps."""
        return self.compiled.forward.attended * self.dtype.itemsize

    def sources(self) -> tuple[Source, Source]:
        """Return forward's and backward's source, generated now if it was not."""
        return self.forward, self.backward

    @cached_property
    def forward(self) -> Source:
        return forward_source(self.compiled, self.width, True, self.kernels.target)

    @cached_property
    def inference(self) -> Source:
        return forward_source(self.compiled, self.width, False, self.kernels.target)

    @cached_property
    def backward(self) -> Source:
        return backward_source(self.compiled, self.width, self.kernels.target)

    @cached_property
    def run_forward(self) -> Kernels:
        return self.kernels(self.forward, self.dtype)

    @cached_property
    def run_inference(self) -> Kernels:
        return self.kernels(self.inference, self.dtype)

    @cached_property
    def run_backward(self) -> Kernels:
        if self.compiled.derivative.missing:
            raise NoGradientError(self.compiled.derivative.missing)
        return self.kernels(self.backward, self.dtype)

    def block_rows(self, source: Source, rows: int) -> int:
        """Return for how many rows at once a program does what is not done step by step.

        rows: how many a shard has at most; a few more than a block's are one block.
        """
        if self.kernels.block_rows is not None:
            return max(1, self.kernels.block_rows // (self.batch or 1))
        gradients = sum(math.prod(p.shape) for p in self.compiled.graph.parameters) * self.dtype.itemsize
        usual = MORE_ROWS if source.backward and gradients > LARGE else BLOCK_ROWS
        return rows if usual < rows <= usual * 3 // 2 else usual

    def prepared(self, source: Source) -> Frame:
        """Return how the memory is cut up that `prepare` fills."""
        wanted = set(source.prepared)
        return frame((m.name, sized(m.size, 0), self.dtype_of(m.kind)) for m in source.memory if m.name in wanted)

    def call(
        self,
        deal: Callable[..., Sequence[Shard]],
        sizes: tuple[Any, ...],
        split: Split,
        tabled: bool = False,
        zeroed: bool = False,
    ) -> Call:
        """Return how calls of some sizes are run; it is remembered.

        deal: a function of the sizes (samples, steps and more) that answers shards. split and more: as in `Call`.
        """

        def make() -> Call:
            return Call(self, deal(*sizes), sizes[1], split, tabled, zeroed)

        return remembered(self.calls, (deal, sizes, split, tabled, zeroed), make, REMEMBERED)

    def frames(
        self, source: Source, shard: Shard, taped: bool, limit: int, elsewhere: frozenset[str] = frozenset()
    ) -> tuple[Frame, Frame]:
        """Return how a shard's memory is cut up: what backward will read, and the rest.

        limit: rows of a block. elsewhere: names of what lies in results.
        """

        def cut() -> tuple[Frame, Frame]:
            rows = len(shard.pos)
            block = min(rows, max(limit, shard.count))
            window = rows if taped else block
            parts: tuple[list[Any], list[Any]] = ([], [])
            for m in source.memory:
                if m.name in source.prepared or m.name in elsewhere or m.given:
                    continue
                tape = m.space in (Space.PACKED, Space.CURRENT)
                size = _elements(m, shard.count, block, window)
                parts[not tape].append((m.name, size, self.dtype_of(m.kind)))
            return frame(parts[0]), frame(parts[1])

        key = (source, shard.count, len(shard.pos), taped, limit, elsewhere)
        return remembered(self.framed, key, cut, REMEMBERED)

    def dtype_of(self, kind: str) -> np.dtype[Any]:
        """Return what kernels use for floats, integers and bools."""
        return DTYPES.get(kind, self.dtype)

    def plain_groups(self, groups: Sequence[Sequence[Array]], kinds: Sequence[Sequence[str]]) -> list[list[Array]]:
        """Return groups of arrays as kernels read them."""
        return [[*map(self.plain, *pair)] for pair in zip(groups, kinds)]

    def plain(self, array: Array, kind: str = "float") -> Array:
        """Return an array as kernels read it: NumPy's own, contiguous, of their dtype for a kind of number."""
        if is_plain(array, kind, self.dtype):
            return array
        if kind == "bool":
            array = array.astype(bool, copy=False)  # every number but zero is true
        if kind == "int":
            array = converted("a step", array, self.dtype_of(kind))
        return np.ascontiguousarray(array, self.dtype_of(kind)).reshape(array.shape)


def is_plain(array: Array, kind: str, dtype: np.dtype[Any]) -> bool:
    """Whether kernels, which have floats of a dtype, can read an array of a kind of number as it is."""
    fits = kind != "bool" and array.dtype == DTYPES.get(kind, dtype)  # bytes for bools may hold any number
    return fits and type(array) is np.ndarray and array.flags.c_contiguous


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
