"""Who computes which product where a launch is one part of a step: cuBLAS or our tiles.

Decided product by product, by its sizes and by how its operands lie; `lines` says it, so that nobody need guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rsref_fast.cuda.alternating import Piece, Pieces, cut
from rsref_fast.cuda.choice import Choice, pays
from rsref_fast.cuda.graphs import Call
from rsref_fast.cuda.library import can
from rsref_fast.cuda.products import Finder, Product
from rsref_fast.cuda.tile import Tile
from rsref_fast.cuda.words import CUTTING, NUMBERS

if TYPE_CHECKING:
    from rsref_fast.cpu.plan import Plan
    from rsref_fast.cuda.kernels import DeviceKernels

NAMED = re.compile(r'@kernel\ndef (\w+)\(.*\):\n    """((?:matmul|einsum)\b.*)"""')
PLACES = {"start": "once a call", "before": "hoisted", "step": "step by step", "after": "sunk", "end": "once a call"}


def by_library(product: Product, choice: Choice, tile: Tile, recorded: bool) -> bool:
    """Return whether cuBLAS computes a product: where that is asked for whenever it can, else if it takes less.

    recorded: whether the product is part of a graph.
    """
    less = choice.products == "auto" and pays(product.sizes, choice.blocks, tile, recorded)
    wanted = choice.products == "cublas" or less
    return wanted and can(product)


def calls_of(
    kernels: DeviceKernels, plan: Plan, choice: Choice, numbers: Sequence[int], masked: bool
) -> tuple[list[Call], bool]:
    """Return the launches of a plan, and whether any of them reads weights that `prepare` packs.

    numbers: N. masked: whether a mask on the device says how many rows a step has; then all products are our tiles'.
    """
    shard, _ = plan.shards[0]
    block = max(1, max(plan.limit, shard.count) // max(1, shard.count))
    sizes = (shard.steps, block, plan.taped, bool(numbers[CUTTING]), masked)

    def ours(pieces: Pieces, piece: Piece, a: int, b: int) -> Call:
        return Call(kernels.piece(pieces, piece.entry), choice.blocks, (a, b))

    if choice.products != "tiles" and not masked:
        pieces, off = kernels.apart, shard.off.tolist()
        launches = [*pieces.launches(*sizes)]
        products = [kernels.finder.product(p.entry, off, numbers, a, b) if p.product else None for p, a, b in launches]
        theirs = [product is not None and by_library(product, choice, kernels.tile, True) for product in products]
        if any(theirs):
            packed = any(p is not None and p.packed and not library for p, library in zip(products, theirs))
            return [
                Call(product=product) if library else ours(pieces, *launch)
                for launch, product, library in zip(launches, products, theirs)
            ], packed
    return [ours(kernels.pieces, *launch) for launch in kernels.pieces.launches(*sizes)], True


def segments_of(kernels: DeviceKernels, plan: Plan, choice: Choice, numbers: Sequence[int]) -> tuple[list[Call], bool]:
    """Return the launches of a plan that are not recorded, but for a block's steps, and whether `prepare` must pack.

    The steps of a block are one launch, or, if the strategy is "alternating", several that are recorded together. As
    many blocks as run at once compute what is outside of the steps. numbers: N.
    """
    shard, _ = plan.shards[0]
    block = max(1, max(plan.limit, shard.count) // max(1, shard.count))
    alternating = choice.strategy == "alternating"
    pieces, finder = (kernels.apart, kernels.finder) if alternating else (kernels.looped, kernels.looped_finder)
    packed = not alternating and choice.team != "units"  # products of the steps read it too
    stepwise, off = frozenset(pieces.step), shard.off.tolist()
    calls: list[Call] = []
    steps: list[Call] = []
    for piece, a, b in pieces.launches(shard.steps, block, plan.taped, bool(numbers[CUTTING]), False):
        product = finder.product(piece.entry, off, numbers, a, b) if piece.product else None
        if product is not None and by_library(product, choice, kernels.tile, piece in stepwise):
            call = Call(product=product)
        else:
            packed = packed or (product is not None and product.packed)
            kernel = kernels.piece(pieces, piece.entry, choice.blocks if choice.team == "units" else 0)
            within = piece is pieces.loop or piece in stepwise
            call = Call(
                kernel, choice.blocks if within else kernel.at_once, (a, b), lines=choice.lines if within else 1
            )
        if piece in stepwise:
            steps.append(call)
            continue
        if steps:
            calls.append(Call(recorded=tuple(steps)))
            steps.clear()
        calls.append(call)
    return [*calls, *([Call(recorded=tuple(steps))] if steps else [])], packed


def lines(
    texts: dict[str, str], batch: int, choice: Choice, tile: Tile, mixes: bool, rows: int
) -> Iterator[str]:  # fmt: skip
    """Yield a line for each product of some programs, by their names: its sizes, and who computes it.

    batch: samples of a call, without a mask, and with steps enough for one block. mixes: whether samples are mixed;
    then a mask is read on the host. rows: of a block.
    """
    if choice.products == "tiles":
        return
    if not mixes:
        yield "  with a mask, which only the device reads: our tiles, all of them"
    steps = max(1, rows // max(1, batch))
    off = [batch * s for s in range(steps + 1)]
    for name, text in texts.items():
        numbers = [batch, steps, max(rows, batch), 0, int(name != "inference"), *[0] * (NUMBERS - 5)]
        for title, what, who in _shares(text, name == "backward", off, numbers, choice, tile):
            yield f"  {name}, {title}, {what}: {who}"


def _shares(
    text: str, backward: bool, off: Sequence[int], numbers: Sequence[int], choice: Choice, tile: Tile
) -> Iterator[tuple[str, str, str]]:
    """Yield for each product of a program when it is computed, its sizes, and by whom. off: of the rows. numbers: N."""
    pieces = cut(text, backward, apart=True)
    finder, named = Finder(pieces.text), dict(NAMED.findall(text))

    def ours(text: str, entry: str, title: str) -> Iterator[tuple[str, str, str]]:
        words = set(re.findall(r"\w+", text.partition(f"def {entry}(")[2].split("\n\n\n")[0]))
        for function, comment in named.items():
            if function in words:
                yield title, comment, "our tiles" if function in pieces.products else "loops of our own"

    for place, title in PLACES.items():
        if place == "step" and choice.strategy == "persistent":  # parts of one launch, in which no library computes
            continue
        for piece in getattr(pieces, place):
            if not piece.product:
                yield from ours(pieces.text, piece.entry, title)
                continue
            product = finder.product(piece.entry, off, numbers, 0, 0 if place == "step" else len(off) - 1)
            what = "rows x columns x terms " + " x ".join(f"{n:,}" for n in product.sizes)
            yield title, what, "cuBLAS" if by_library(product, choice, tile, place == "step") else "our tiles"
    for entry in ("prepare", "finish"):  # a program without one has no words of it
        yield from ours(text, entry, "once a call")
