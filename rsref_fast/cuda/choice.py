"""How a call is spread over a GPU: which threads share what, how many blocks there are, and what a step then takes.

The times are reckoned from a program and a few figures that were measured on an H100, and serve to choose, not to
promise.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rsref_fast.cuda.driver import Limits
from rsref_fast.cuda.holding import HIGH, WIDE, staged
from rsref_fast.cuda.tile import Tile
from rsref_fast.explain import flops_of
from rsref_fast.layout import Section
from rsref_fast.lengths import sized
from rsref_fast.program import Program

STRATEGIES = ("auto", "persistent", "alternating")

STAGE = 0.9e-6
"""Seconds in which a block has a tile's operands of one depth from the L2 cache, and multiplies the ones before."""

START = 0.65e-6
"""Seconds of a tile in which nothing is multiplied: until its first operands are there, and while parts are summed."""

TERM = 2.3e-9
"""Seconds for a term of a tile, four cycles, where nothing else is waited for: in its last stage."""

MEETING = 1.1e-6
"""Seconds in which all blocks wait for each other."""

UNIT = 1.0e-6
"""Seconds of a part of a step in which little is computed: memory answers twice, one after the other."""

LAUNCH = 1.9e-6
"""Seconds from one kernel to the next in a CUDA graph, and until memory has answered there."""

HELD_STAGE = 3.0e-6
"""Seconds of a stage of a product with held weights in which nothing is multiplied, its meeting included."""

HELD_RATE = 90e9
"""Multiplications a second of one multiprocessor with held weights, where a block of threads has little else."""

TENSOR_START, TENSOR_RATE = 1.8e-6, 120e9
"""The same on tensor cores, by three products each and with waiting for the other operand."""

BRING = 60e9
"""Bytes a second of what a block reads that all others read too."""

PIECES = 8
"""Launches of a block whose steps are one launch of their own, products of cuBLAS among them."""

ASKING = 8e-6
"""Seconds in which the host asks for a launch: where there are many, a GPU that has little to do waits for it."""

RATE = 0.22e12
"""float32 additions and multiplications a second of one multiprocessor by our tiles, half of what it has: sixteen of
them take four cycles, and the two reads of four numbers from shared memory that they need take eight."""

LIBRARY_RATE = 0.38e12
"""float32 additions and multiplications a second of one multiprocessor by cuBLAS: three quarters of an H100's peak."""

LIBRARY_TILE = 64
"""Rows and columns that cuBLAS is taken to compute on a multiprocessor at a time, of all terms; rows by sixteens."""

LIBRARY_START = 4e-6
"""Seconds of a product of cuBLAS in which nothing is multiplied: taken to be more than ours, for it is not written for
matrices that the cache holds."""

RECORDED_RATE = 6e12
"""float32 additions and multiplications a second of cuBLAS's product by a list of pointers, the only one that a graph
of ours can have: what an H100 did for 16 to 128 rows, a tenth of the usual product's."""

ROWS = 8192
"""Rows for which what is not done step by step is done at once, if a call has as many: enough to fill a GPU, and to
keep the host from asking for launches all the time."""

STEPS = 128
"""Steps that a call is taken to have."""


@dataclass(frozen=True)
class Choice:
    """strategy: "persistent" or "alternating". team: "grid", "units" if each of its blocks holds weights for a part of
    the units, or "block" if each has some samples of its own.

    shards: among how many parts the samples are dealt. blocks: of a launch on the whole grid. products: who computes
    those of known rows where a product is a launch: "tiles", "cublas", or "auto" for who is reckoned to take less.
    lines: of how many blocks there are, which share out the samples, where a block has a part of the units.
    """

    strategy: str
    team: str
    shards: int
    blocks: int
    products: str = "tiles"
    lines: int = 1

    def __str__(self) -> str:
        if self.strategy == "alternating":
            by = {"tiles": "our tiles", "cublas": "cuBLAS", "auto": "cuBLAS where that takes less"}[self.products]
            return f"alternating: a launch for each part of a step, {self.blocks} blocks, products by {by}"
        if self.team == "block":
            return f"persistent: {self.shards} blocks, each with samples of its own; no block waits for another"
        if self.team == "units":
            lines = f" in each of {self.lines} lines" if self.lines > 1 else ""
            return f"persistent: one cooperative launch, {self.blocks} blocks{lines} that hold weights of their own"
        return f"persistent: one cooperative launch, {self.blocks} blocks that share each step"


def choose(
    programs: Sequence[Program], mixes: bool, batch: int, limits: Limits, tile: Tile, strategy: str = "auto",
    at_once: int = 1, products: str = "tiles", holding: tuple[int, int] = (0, 1),
) -> Choice:  # fmt: skip
    """Return how a call of some samples is computed: the one that takes least, of those that may be chosen.

    programs: that are run, one or both. at_once: blocks that a multiprocessor runs at the same time. products: see
    `Choice`; only a strategy with a launch for each product can leave all to cuBLAS, so "cublas" leaves no other.
    holding: blocks that can hold a step's weights, 0 if none can, and lines of them.
    """
    room = max(1, at_once) * limits.multiprocessors
    choices = []
    if strategy != "alternating" and products != "cublas":
        for who in dict.fromkeys(("tiles", products)):
            choices.append(Choice("persistent", "grid", 1, room, who))
            if holding[0]:
                choices.append(Choice("persistent", "units", 1, holding[0], who, holding[1]))
        if not mixes:
            choices.append(Choice("persistent", "block", max(1, min(batch, limits.multiprocessors)), room))
    if strategy != "persistent":
        choices.append(Choice("alternating", "grid", 1, room, products))

    def seconds(choice: Choice) -> float:
        return sum(
            step_seconds(p, batch, choice, tile) + outside_seconds(p, batch, choice, tile) for p in programs
        )  # fmt: skip

    return min(choices, key=seconds)


def step_seconds(program: Program, batch: int, choice: Choice, tile: Tile) -> float:
    """Return about what a step of the time loop takes."""
    units = len(program.units[Section.LOOP])
    if choice.team == "block":
        rows = -(-batch // choice.shards)
        return max(_products(program, rows, 1, tile), loop_flops(program) * rows / RATE) + units * UNIT
    if choice.team == "units":
        held = [held_seconds(sizes, choice, tile) for sizes in _sizes(program, batch, (Section.LOOP,))]
        return sum(held) + (units - len(held)) * UNIT
    waiting = LAUNCH if choice.strategy == "alternating" else MEETING + UNIT
    steps = "tiles" if choice.strategy == "persistent" else choice.products
    working = _products(program, batch, choice.blocks, tile, steps)
    if steps == "tiles":
        working = max(working, loop_flops(program) * batch / (RATE * choice.blocks))
    return working + units * waiting


def held_seconds(sizes: tuple[int, int, int], choice: Choice, tile: Tile) -> float:
    """Return about how long a product with weights that blocks hold takes. sizes: rows, columns, terms."""
    rows, columns, depth = sizes
    rows = -(-rows // choice.lines)
    if tile.by_tensor_cores(4):
        wide = -(-columns // (choice.blocks * 8)) * 8
        return TENSOR_START + -(-rows // 16) * 16 * wide * depth / TENSOR_RATE + rows * depth * 4 / BRING
    across = -(-columns // (choice.blocks * WIDE))
    top = max(HIGH, min(rows, 64, tile.threads // max(1, across) * HIGH))
    longest = max(HIGH, staged(tile, 4) // (-(-top // HIGH) * HIGH) - 28)
    stages = -(-rows // top) * -(-depth // longest)
    return stages * HELD_STAGE + rows * across * WIDE * depth / HELD_RATE + rows * depth * 4 / BRING


def outside_seconds(program: Program, batch: int, choice: Choice, tile: Tile) -> float:
    """Return about a step's share of the products that are computed for many steps at once."""
    alone = choice.team == "block"
    samples, blocks = (-(-batch // choice.shards), 1) if alone else (batch, choice.blocks * choice.lines)
    rows = max(samples, min(ROWS, samples * STEPS))
    outside = (Section.BEFORE, Section.AFTER)
    launches = PIECES * ASKING if choice.products != "tiles" else 0
    return (_products(program, rows, blocks, tile, choice.products, outside) + launches) * samples / max(1, rows)


def _products(
    program: Program, rows: int, blocks: int, tile: Tile, products: str = "tiles",
    sections: Collection[Section] = (Section.LOOP,),
) -> float:  # fmt: skip
    """Return about how long the products of some sections take for some rows."""
    total = 0.0
    for sizes in _sizes(program, rows, sections):
        ours, theirs = tile_seconds(sizes, blocks, tile), library_seconds(sizes, blocks, Section.LOOP in sections)
        total += {"tiles": ours, "cublas": theirs, "auto": min(ours, theirs)}[products]
    return total


def _sizes(program: Program, rows: int, sections: Collection[Section]) -> Iterator[tuple[int, int, int]]:
    """Yield rows, columns and terms of each product of some sections, for so many samples."""
    layout = program.layout
    for tensor, section in layout.section.items():
        if section in sections and tensor.op_name == "matmul":
            *down, columns = (max(1, sized(n, rows)) for n in layout.shapes[tensor])
            yield math.prod(down), columns, sized(layout.shapes[tensor.inputs[0]][-1], rows)


def tile_seconds(sizes: tuple[int, int, int], blocks: int, tile: Tile) -> float:
    """Return about how long a block fetches operands of a product by our tiles, one after the other.

    sizes: rows, columns, terms.
    """
    rows, columns, depth = sizes
    tiles = -(-rows // tile.rows) * -(-columns // tile.columns)
    stages, last = divmod(max(0, depth - 1), tile.depth)
    return -(-tiles // blocks) * (START + stages * STAGE + (last + 1) * TERM)


def library_seconds(sizes: tuple[int, int, int], multiprocessors: int, recorded: bool) -> float:
    """Return about how long cuBLAS takes for a product.

    sizes: rows, columns, terms. recorded: whether it is part of a graph, and reads a list of pointers.
    """
    rows, columns, depth = sizes
    if recorded:
        return LIBRARY_START + 2 * rows * columns * depth / RECORDED_RATE
    tiles = -(-rows // LIBRARY_TILE) * -(-columns // LIBRARY_TILE)
    high = min(LIBRARY_TILE, -(-rows // 16) * 16)
    return LIBRARY_START + -(-tiles // multiprocessors) * 2 * high * LIBRARY_TILE * depth / LIBRARY_RATE


def pays(sizes: tuple[int, int, int], blocks: int, tile: Tile, recorded: bool) -> bool:
    """Return whether cuBLAS is reckoned to take less for a product than our tiles; see `library_seconds`."""
    return library_seconds(sizes, blocks, recorded) < tile_seconds(sizes, blocks, tile)


def loop_flops(program: Program) -> int:
    """Return the additions and multiplications of a step for one sample, without what leaves the loop."""
    layout = program.layout
    inside = [t for t, section in layout.section.items() if section is Section.LOOP and t not in layout.moved]
    return sum(flops_of(layout, tensor) for tensor in inside)
