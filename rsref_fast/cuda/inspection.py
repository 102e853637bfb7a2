"""What a step becomes on a GPU that need not be there: its plan, kernels, registers, shared memory and occupancy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsref.recurrence import Recurrence
from rsref.tensor import Tensor
from rsref_fast.cpu.programs import backward_source, forward_source
from rsref_fast.cpu.source import Held, Source
from rsref_fast.cpu.target import Target
from rsref_fast.cuda.choice import ROWS, Choice, choose
from rsref_fast.cuda.driver import Limits
from rsref_fast.cuda.holding import blocks_for
from rsref_fast.cuda.options import check_options
from rsref_fast.cuda.shares import lines
from rsref_fast.cuda.target import CUDA, OWNED
from rsref_fast.cuda.tile import Tile, tile_for
from rsref_fast.explain import explain
from rsref_fast.numbered import as_one_sample, picks_samples
from rsref_fast.program import Compiled, build

ARCHITECTURES = {
    "sm_75": Limits(multiprocessors=40, threads=1024, registers=65536, shared=65536, shared_block=65536),
    "sm_80": Limits(multiprocessors=108, threads=2048, registers=65536, shared=167936, shared_block=166912),
    "sm_90": Limits(multiprocessors=132, threads=2048, registers=65536, shared=233472, shared_block=232448),
    "sm_100": Limits(multiprocessors=148, threads=2048, registers=65536, shared=233472, shared_block=232448),
}
"""One card of each: T4, A100, H100 SXM, B200."""

BLOCKS, WARP, UNIT = 32, 32, 256
"""Blocks that a multiprocessor holds (16 on sm_75), threads of a warp, registers that a warp is given at once."""

ENTRIES = ("prepare", "shard", "fold", "finish")
PROGRAMS = ("forward", "inference", "backward")
BATCHES = (1, 16, 64, 256)


@dataclass(frozen=True)
class KernelFacts:
    """A kernel on an architecture: what it needs, and how much of it a multiprocessor holds.

    team: what shares memory, the grid, the grid with parts for each block ("units"), or a block. shared: bytes of
    shared memory beside what blocks hold. doubles: instructions on float64. syncs: places where the team meets.
    blocks: that a multiprocessor runs at once. image: the machine code.
    """

    program: str
    entry: str
    team: str
    ptx: str
    registers: int
    shared: int
    spilled: int
    stack: int
    doubles: int
    syncs: int
    blocks: int
    cooperative: bool
    image: bytes


@dataclass(frozen=True)
class Inspection:
    """A compiled step on an architecture; as text with `str`. batch: the only one, if samples are picked by number.

    products: who computes those that are launches of their own; see `Choice`. held: weights that blocks can hold, of
    forward and backward.
    """

    compiled: Compiled
    arch: str
    dtype: np.dtype[Any]
    tile: Tile
    kernels: list[KernelFacts]
    sources: dict[str, str]
    batch: int | None = None
    products: str = "auto"
    held: tuple[Sequence[Held], ...] = ()

    @property
    def limits(self) -> Limits:
        return ARCHITECTURES[self.arch]

    def choice(self, batch: int, strategy: str = "auto") -> Choice:
        """Return how a call of some samples would be computed."""
        samples = 1 if self.batch is not None else batch
        at_once = min((k.blocks for k in self.kernels if k.entry == "shard" and k.team == "grid"), default=1)
        alone = self.compiled.mixes or self.batch is not None
        about = (samples, self.limits, self.tile, self.dtype.itemsize)
        holding = (0, 1) if alone else blocks_for(self.held, *about)
        return choose(
            [self.compiled.forward, self.compiled.backward], self.compiled.mixes, samples, self.limits,
            self.tile.of(self.dtype.itemsize), strategy, at_once, self.products, holding,
        )  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterable[str]:
        yield f"{self.dtype.name} on {self.arch}"
        yield explain(self.compiled, self.dtype.itemsize)
        yield f"blocks of {self.tile.threads} threads; products in tiles of {self.tile.rows} x {self.tile.columns}"
        for batch in BATCHES if self.batch is None else [self.batch]:
            choice = self.choice(batch)
            yield f"a batch of {batch}: {choice}"
            samples, rows = (batch, ROWS) if self.batch is None else (1, ROWS // self.batch)
            yield from lines(self.sources, samples, choice, self.tile, self.compiled.mixes, max(1, rows))
        for k in self.kernels:
            yield (
                f"{k.program} {k.entry} ({k.team}): {k.registers} registers, {k.shared:,} bytes shared, "
                f"{k.spilled} spilled, {k.blocks} blocks a multiprocessor"
                f"{', cooperative' if k.cooperative else ''}"
            )


def inspect(
    rnn: Any, arch: str = "sm_90", dtype: Any = np.float32, programs: Iterable[str] = PROGRAMS,
    tile: Tile | None = None, entries: Iterable[str] = ENTRIES, batch: int | None = None, products: str = "auto",
) -> Inspection:  # fmt: skip
    """Compile a step for an architecture, with no GPU and no driver, and return what became of it.

    rnn: a `Recurrence`, a built recurrent layer or cell, all of whose inner lengths are known. arch: one of
    `ARCHITECTURES`. programs, entries: which of them are compiled. batch: for which size of it, if the step picks
    samples by their number. products: who computes those that are launches of their own: "cublas", "tiles", or "auto"
    for who is reckoned to take less, if cuBLAS is there.
    Errors: ValueError for an unknown architecture, dtype, program, entry or products, or a step that leaves lengths
    open; ImportError without numba-cuda; NotImplementedError, naming it, for what cannot be compiled.
    """
    from rsref_fast.api import recurrence_of

    if arch not in ARCHITECTURES:
        raise ValueError(f"arch must be one of {', '.join(map(repr, ARCHITECTURES))}; got {arch!r}")
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64; got {dtype}")
    programs, entries = _some("programs", programs, PROGRAMS), _some("entries", entries, ENTRIES)
    check_options("auto", products)
    recurrence = recurrence_of(rnn)
    tile = tile or tile_for(capability_of(arch))
    batch = batch if picks_samples(recurrence.graph) else None
    compiled = built(recurrence, batch)

    def source_of(program: str, target: Target) -> Source:
        if program == "backward":
            return backward_source(compiled, tile.columns, target)
        return forward_source(compiled, tile.columns, program == "forward", target)

    facts, texts = [], {}
    for program in programs:
        source = source_of(program, CUDA)
        texts[program] = source.text
        for entry in source.entries:
            if entry not in entries:
                continue
            for team in ("grid", "block") if entry == "shard" and not compiled.mixes else ("grid",):
                facts.append(_facts(program, source, entry, team, dtype, tile, arch))
        if "shard" in entries and not compiled.mixes:
            own = source_of(program, OWNED)
            if own.held:
                facts.append(_facts(program, own, "shard", "units", dtype, tile, arch))
    held = tuple(source_of(program, OWNED).held for program in ("forward", "backward"))
    return Inspection(compiled, arch, dtype, tile, facts, texts, batch, products, held)


def _some(name: str, given: Iterable[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Return names as a tuple; ValueError if one is not known."""
    names = (given,) if isinstance(given, str) else tuple(given)
    if not set(names) <= set(known):
        raise ValueError(f"{name} must be some of {', '.join(map(repr, known))}; got {names}")
    return names


def built(recurrence: Recurrence, batch: int | None = None) -> Compiled:
    """Return the programs of a step whose lengths are known. Errors: ValueError if they are not.

    batch: for which the programs are, if the step picks samples by their number.
    """
    graph = recurrence.graph
    if batch is None and picks_samples(graph):
        raise ValueError("the step picks samples by their number, so its programs are for a batch, which is not known")
    if batch is not None:
        leaves = (*graph.sequences, *graph.constants, *graph.states)
        graph = as_one_sample(graph, {leaf: (batch, *_known(leaf)) for leaf in leaves})
    leaves = (*graph.sequences, *graph.constants, *graph.states)
    return build(
        graph, {leaf: (1, *_known(leaf)) for leaf in leaves}, blocks=False, phases=False, biases=False, joints=False
    )


def _known(leaf: Tensor) -> list[int]:
    """Return a leaf's inner lengths."""
    found = [n for n in leaf.shape[1:] if n is not None]
    if len(found) < leaf.ndim - 1:
        raise ValueError(f"the step leaves lengths open: {leaf!r} has shape {leaf.shape}")
    return found


def _facts(
    program: str, source: Source, entry: str, team: str, dtype: np.dtype[Any], tile: Tile, arch: str
) -> KernelFacts:  # fmt: skip
    try:
        from rsref_fast.cuda.build import kernel
        from rsref_fast.cuda.linking import link
    except ImportError as error:
        raise ImportError('kernels for CUDA need numba-cuda: pip install "rsref[fast,cuda]"') from error
    text = source.text
    code = kernel(text, entry, dtype, tile, "grid" if team == "units" else team)
    ptx = code.ptx(capability_of(arch))
    linked = link(ptx, code.name, arch, code.cooperative)
    report = linked.report
    return KernelFacts(
        program, entry, team, ptx, report.registers, report.shared, report.spilled, report.stack,
        len(re.findall(r"\.f64\b", ptx)), _body(text, entry).count("meet(N)"),
        occupancy(ARCHITECTURES[arch], tile.threads, report.registers, report.shared), code.cooperative, linked.image,
    )  # fmt: skip


def capability_of(arch: str) -> tuple[int, int]:
    """Return the compute capability of an architecture: (9, 0) for "sm_90"."""
    return divmod(int(arch.removeprefix("sm_")), 10)


def occupancy(limits: Limits, threads: int, registers: int, shared: int) -> int:
    """Return how many blocks a multiprocessor runs at once: as many as its registers, threads and memory allow."""
    warps = -(-threads // WARP)
    a_warp = -(-registers * WARP // UNIT) * UNIT
    by_registers = limits.registers // (max(1, a_warp) * warps)
    reserved = limits.shared - limits.shared_block  # of each block, by the driver
    by_memory = limits.shared // (shared + reserved) if shared else BLOCKS
    return min(BLOCKS if limits.threads > 1024 else 16, limits.threads // threads, by_registers, by_memory)


def _body(text: str, entry: str) -> str:
    return text[text.index(f"def {entry}(") :].split("\n\n\n")[0]
