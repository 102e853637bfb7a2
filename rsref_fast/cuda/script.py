"""What a call does on a device, one thing after the other: planned first, with no device, then run in a stream's order.

All words that kernels read (addresses and numbers) are put together and copied to the device at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref_fast.cuda.words import ERROR, NUMBERS

if TYPE_CHECKING:
    from rsref_fast.cuda.driver import Device


@dataclass(frozen=True)
class Loaded:
    """A kernel on a device. cooperative: whether all threads of the grid meet in it. at_once: blocks that then fit.

    shared: bytes of shared memory that a launch gives each.
    """

    handle: Any
    threads: int
    cooperative: bool
    at_once: int
    shared: int = 0


@dataclass(frozen=True)
class Launch:
    """A kernel, how many blocks in how many lines, and its arguments; places of words are still to become addresses."""

    kernel: Loaded
    blocks: int
    table: int
    numbers: int
    slots: int
    other: int
    steps: tuple[int, int]
    lines: int = 1


@dataclass(frozen=True)
class Fetch:
    """Where a graph has written N, and the place of N in the script."""

    numbers: int
    source: int


@dataclass
class Script:
    """Launches, fills and copies, in order, and the words that they read."""

    words: list[int] = field(default_factory=list)
    things: list[Any] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)

    def table(self, values: Sequence[int]) -> int:
        """Add words; return the place of the first one."""
        start = len(self.words)
        self.words.extend(int(value) for value in values)
        return start

    def launch(
        self, kernel: Loaded, blocks: int, table: int, numbers: int, slots: int = 0, other: int | None = None,
        steps: tuple[int, int] = (0, 0), lines: int = 1,
    ) -> None:  # fmt: skip
        """Add a launch. table, numbers, other: places of words. blocks: fewer where that many cannot run at once.

        lines: of blocks.
        """
        if kernel.cooperative:
            lines = max(1, min(lines, kernel.at_once // max(1, blocks)))
        blocks = max(1, min(blocks, kernel.at_once) if kernel.cooperative else blocks)
        other = table if other is None else other
        self.things.append(Launch(kernel, blocks, table, numbers, slots, other, steps, lines))

    def fill(self, address: int, size: int, value: int = 0) -> None:
        self.things.append(lambda device, stream: device.fill(address, size, stream, value))

    def copy(self, target: int, source: int, size: int) -> None:
        self.things.append(lambda device, stream: device.copy(target, source, size, stream))

    def add(self, thing: Callable[[Device, int], None]) -> None:
        """Add anything that a device and a stream can do."""
        self.things.append(thing)

    def flag(self, numbers: int, source: int) -> None:
        """Add a copy of N from where a graph has written it."""
        self.things.append(Fetch(numbers, source))

    def note(self, numbers: int, shards: int) -> None:
        """Remember where a program says whether an index was out of range."""
        self.flags += [numbers + i * NUMBERS + ERROR for i in range(shards)]

    def keep(self, thing: Any) -> None:
        """Hold memory until the script has run: what is given back then is so in the stream's order."""
        self.kept.append(thing)

    def run(self, device: Device, allocate: Callable[[int, int], Any], stream: int) -> Any:
        """Do it all; return the memory of the words, which must live until it is done."""
        head = allocate(8 * max(1, len(self.words)), stream)
        words = np.array(self.words, np.int64)
        device.upload(head.address, words, stream)
        for thing in self.things:
            if isinstance(thing, Launch):
                places = (head.address + 8 * thing.table, head.address + 8 * thing.numbers)
                other = head.address + 8 * thing.other
                device.launch(
                    thing.kernel.handle, thing.blocks, thing.kernel.threads,
                    (*places, thing.slots, other, *thing.steps), stream, thing.kernel.cooperative, thing.kernel.shared,
                    thing.lines,
                )  # fmt: skip
            elif isinstance(thing, Fetch):
                device.copy(head.address + 8 * thing.numbers, thing.source, 8 * NUMBERS, stream)
            else:
                thing(device, stream)
        return head
