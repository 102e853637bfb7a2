"""Who computes which product where a launch is one part of a step: cuBLAS or our tiles.

Decided product by product, by its sizes and by how its operands lie; `lines` says it, so that nobody need guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rsref_fast.cuda.alternating import Pieces, cut
from rsref_fast.cuda.choice import Choice, pays
from rsref_fast.cuda.graphs import Call
from rsref_fast.cuda.library import can
from rsref_fast.cuda.products import Finder, Product
from rsref_fast.cuda.tile import Tile
from rsref_fast.cuda.words import CUTTING

if TYPE_CHECKING:
    from rsref_fast.cpu.plan import Plan
    from rsref_fast.cuda.kernels import DeviceKernels

OTHERS = re.compile(r'@kernel\ndef ((?:matmul|einsum)_\d+)\(.*\):\n    """(.*)"""')
PLACES = {"start": "once a call", "before": "hoisted", "step": "step by step", "after": "sunk", "end": "once a call"}


def by_library(product: Product, choice: Choice, tile: Tile) -> bool:
    """Return whether cuBLAS computes a product: where that is asked for whenever it can, else if it takes less."""
    wanted = choice.products == "cublas" or (choice.products == "auto" and pays(product.sizes, choice.blocks, tile))
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
    if choice.products != "tiles" and not masked:
        pieces, off = kernels.apart, shard.off.tolist()
        found = []
        for piece, a, b in pieces.launches(*sizes):
            product = kernels.finder.product(piece.entry, off, numbers, a, b) if piece.product else None
            found.append((piece, a, b, product, product is not None and by_library(product, choice, kernels.tile)))
        if any(theirs for *_, theirs in found):
            packed = any(product is not None and product.packed and not theirs for *_, product, theirs in found)
            calls = [
                Call(product=product) if theirs else Call(kernels.piece(pieces, piece.entry), choice.blocks, (a, b))
                for piece, a, b, product, theirs in found
            ]
            return calls, packed
    pieces = kernels.pieces
    launches = pieces.launches(*sizes)
    return [Call(kernels.piece(pieces, piece.entry), choice.blocks, (a, b)) for piece, a, b in launches], True


def lines(
    texts: dict[str, str], batch: int, choice: Choice, tile: Tile, mixes: bool, rows: int
) -> Iterator[str]:  # fmt: skip
    """Yield a line for each product of some programs, by their names: its sizes, and who computes it.

    batch: samples of a call, without a mask, and with steps enough for one block. mixes: whether samples are mixed;
    then a mask is read on the host. rows: of a block.
    """
    if choice.strategy != "alternating" or choice.products == "tiles":
        return
    if not mixes:
        yield "  with a mask, which only the device reads: our tiles, all of them"
    for name, text in texts.items():
        pieces = cut(text, name == "backward", apart=True)
        finder = Finder(pieces.text)
        others = {function: comment for function, comment in OTHERS.findall(text) if function not in pieces.products}
        steps = max(1, rows // max(1, batch))
        off = [batch * s for s in range(steps + 1)]
        numbers = [batch, steps, max(rows, batch), 0, int(name != "inference"), *[0] * 11]
        for place, title in PLACES.items():
            for piece in getattr(pieces, place):
                a, b = {"step": (0, 0)}.get(place, (0, steps))
                if piece.product:
                    product = finder.product(piece.entry, off, numbers, a, b)
                    who = "cuBLAS" if by_library(product, choice, tile) else "our tiles"
                    what = " x ".join(f"{n:,}" for n in product.sizes)
                    yield f"  {name}, {title}, rows x columns x terms {what}: {who}"
                for function in sorted(_called(pieces, piece.entry) & set(others)):
                    yield f"  {name}, {title}, {others[function]}: loops of our own"


def _called(pieces: Pieces, entry: str) -> set[str]:
    """Return the names of what a piece's text has."""
    start = pieces.text.index(f"def {entry}(")
    return set(re.findall(r"\w+", pieces.text[start:].split("\n\n\n")[0]))
