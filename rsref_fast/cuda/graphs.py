"""Launches recorded once for a set of sizes, and then run again and again: a CUDA graph.

A graph's kernels read their words at an address that never changes; each call writes its own words there first, in the
stream's order. So a graph belongs to a stream. A library's products read the addresses of their operands in a list of
pointers, which a kernel makes of those words before all else.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref_fast.cuda.library import POINTERS
from rsref_fast.cuda.products import Product
from rsref_fast.remembered import remembered

if TYPE_CHECKING:
    from rsref_fast.cpu.plan import Plan
    from rsref_fast.cuda.driver import Device
    from rsref_fast.cuda.script import Loaded


@dataclass(frozen=True)
class Call:
    """A kernel, how many blocks in how many lines, and its two numbers; or a product that the library computes.

    recorded: or some of these, to be recorded together.
    """

    kernel: Loaded | None = None
    blocks: int = 1
    numbers: tuple[int, int] = (0, 0)
    product: Product | None = None
    lines: int = 1
    recorded: tuple[Call, ...] = ()


KEPT = 64


class Graph:
    """The launches of one program for some sizes, on one stream.

    tables, numbers: words of P and of N. pointing: the kernel that makes pointers of P, if there are products.
    packed: whether any kernel reads weights that `prepare` packs.
    """

    def __init__(
        self, device: Device, calls: Sequence[Call], plan: Plan, tables: int, numbers: int, stream: int,
        dtype: np.dtype[Any], pointing: Loaded | None = None, packed: bool = True,
    ):  # fmt: skip
        self.device, self.plan, self.tables, self.packed = device, plan, tables, packed
        products = [call.product for call in calls if call.product is not None]
        places = _places(products, dtype.itemsize)
        self.memory = device.allocate(8 * (tables + numbers + places.size + places.size // 2), stream)
        fixed = self.memory.address + 8 * (tables + numbers)
        device.upload(fixed, places, stream)
        words = self.memory.address, self.memory.address + 8 * tables, tables

        def launch(own: int) -> None:
            pointers = fixed + places.nbytes
            if pointing is not None:
                count = places.size // 2
                blocks = -(-count // pointing.threads)
                device.launch(pointing.handle, blocks, pointing.threads, (*words, fixed, count, 0), own, False)
            for call in calls:
                if call.product is not None:
                    device.library.multiply(call.product, dtype, pointers)
                    pointers += 8 * POINTERS
                elif call.kernel is not None:
                    arguments = (*words, self.memory.address, *call.numbers)
                    device.launch(call.kernel.handle, call.blocks, call.kernel.threads, arguments, own, False)

        self.workspace = device.library.workspace(stream) if products else None
        self.handle = device.record(launch, self._library_on)
        weakref.finalize(self, device.give_back, "cuGraphExecDestroy", self.handle)

    def _library_on(self, stream: int) -> contextlib.AbstractContextManager[None]:
        """Let the library's products go to the stream that is recorded, if there are any."""
        if self.workspace is None:
            return contextlib.nullcontext()
        return self.device.library.on(stream, self.workspace)

    def run(self, words: np.ndarray, stream: int) -> None:
        self.device.upload(self.memory.address, words, stream)
        self.device.replay(self.handle, stream)

    def numbers(self) -> int:
        """Return the address of N."""
        return int(self.memory.address) + 8 * self.tables


class Graphs:
    """Graphs by what they belong to; those that were made first go first."""

    def __init__(self) -> None:
        self._made: dict[Any, Graph] = {}

    def get(self, key: Any, make: Callable[[], Graph]) -> Graph:
        return remembered(self._made, key, make, KEPT)


def _places(products: Sequence[Product], itemsize: int) -> np.ndarray:
    """Return, for each pointer of each product, the slot of P that it is made of, and the bytes behind that."""
    operands = (p for product in products for p in (product.right, product.left, product.target))
    pairs = [(m.first.slot, m.first.elements * itemsize) for m in operands]
    return np.array(pairs, np.int64).reshape(-1)
