"""What a call does on a device, one thing after the other: planned first, with no device, then run in a stream's order.

All words that kernels read (addresses and numbers) are put together and copied to the device at once. Memory need not
be there yet: it is a piece with a number, and each run says where the pieces are, so that calls that differ in nothing
else are planned once.
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
class Address:
    """Where something will be: in which piece of memory, and how many bytes behind its start."""

    piece: int
    behind: int = 0

    def __add__(self, size: int) -> Address:
        return Address(self.piece, self.behind + size)


Where = int | Address
"""An address, or what becomes one in a run."""


@dataclass(frozen=True)
class Piece:
    """Memory that a script asks for when it runs. address: where, from then on."""

    address: Address


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


@dataclass
class Run:
    """A run of a script. head: the address of its words on the device. words: the same here. pieces: addresses."""

    device: Device
    stream: int
    head: int
    words: np.ndarray
    pieces: Sequence[int]

    def at(self, where: Where) -> int:
        return self.pieces[where.piece] + where.behind if isinstance(where, Address) else where


Thing = Callable[[Run], None]


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

    def __call__(self, run: Run) -> None:
        words = (run.head + 8 * self.table, run.head + 8 * self.numbers, self.slots, run.head + 8 * self.other)
        run.device.launch(
            self.kernel.handle, self.blocks, self.kernel.threads, (*words, *self.steps), run.stream,
            self.kernel.cooperative, self.kernel.shared, self.lines,
        )  # fmt: skip


@dataclass
class Script:
    """Launches, fills and copies, in order, and the words that they read.

    given: how many pieces of memory each run brings along; those that the script asks for come after them.
    """

    given: int = 0
    words: list[Where] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    brief: set[int] = field(default_factory=set)
    _sealed: tuple[np.ndarray, ...] | None = None

    def memory(self, size: int, brief: bool = False) -> Piece:
        """Return memory that each run asks for. brief: whether nobody needs it afterwards."""
        if brief:
            self.brief.add(len(self.sizes))
        self.sizes.append(max(1, size))
        return Piece(Address(self.given + len(self.sizes) - 1))

    def numbers(self, first: int, count: int) -> list[int]:
        """Return some words that are no addresses."""
        found = self.words[first : first + count]
        assert not any(isinstance(word, Address) for word in found)
        return found  # type: ignore[return-value]

    def table(self, values: Sequence[Where]) -> int:
        """Add words; return the place of the first one."""
        start = len(self.words)
        self.words.extend(values)
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

    def fill(self, address: Where, size: int, value: int = 0) -> None:
        self.things.append(lambda run: run.device.fill(run.at(address), size, run.stream, value))

    def copy(self, target: Where, source: Where, size: int) -> None:
        self.things.append(lambda run: run.device.copy(run.at(target), run.at(source), size, run.stream))

    def add(self, thing: Thing) -> None:
        """Add anything that a run can do."""
        self.things.append(thing)

    def flag(self, numbers: int, source: int) -> None:
        """Add a copy of N from where a graph has written it. numbers: the place of N."""
        self.things.append(lambda run: run.device.copy(run.head + 8 * numbers, source, 8 * NUMBERS, run.stream))

    def note(self, numbers: int, shards: int) -> None:
        """Remember where a program says whether an index was out of range."""
        self.flags += [numbers + i * NUMBERS + ERROR for i in range(shards)]

    def keep(self, thing: Any) -> None:
        """Hold memory as long as the script: what is given back after a run is so in the stream's order."""
        self.kept.append(thing)

    def run(
        self, device: Device, allocate: Callable[[int, int], Any], stream: int, given: Sequence[int] = ()
    ) -> tuple[Any, list[Any]]:  # fmt: skip
        """Do it all. given: the addresses of the pieces that are there.

        Return the memory of the words, which must live until it is done, and the memory that was asked for, None in
        place of what nobody needs any more.
        """
        if self._sealed is None:
            self._sealed = self._split()
        numbers, places, pieces, behind = self._sealed
        own = [allocate(size, stream) for size in self.sizes]
        addresses = [*given, *(memory.address for memory in own)]
        words = numbers.copy()
        if len(places):
            words[places] = np.array(addresses, np.int64)[pieces] + behind
        head = allocate(8 * max(1, len(words)), stream)
        device.upload(head.address, words, stream)
        run = Run(device, stream, head.address, words, addresses)
        for thing in self.things:
            thing(run)
        return head, [None if i in self.brief else memory for i, memory in enumerate(own)]

    def _split(self) -> tuple[np.ndarray, ...]:
        """Return the words as numbers, and for those that become addresses: their places, pieces and what is behind."""
        found = [(i, word) for i, word in enumerate(self.words) if isinstance(word, Address)]
        numbers = np.array([0 if isinstance(word, Address) else word for word in self.words], np.int64)
        rest = ([i for i, _ in found], [word.piece for _, word in found], [word.behind for _, word in found])
        return numbers, *(np.array(values, np.int64) for values in rest)
