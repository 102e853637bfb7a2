"""What turns generated source into functions, and runs them on the shards of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rsref_fast.cpu import interpreted
from rsref_fast.cpu.emit import FIRST_SLOT, Source
from rsref_fast.cpu.memory import Arena, Frame

Array = np.ndarray
Call = tuple[Any, Array]
Pieces = Sequence[tuple[Frame, Arena]]


class Kernels:
    """The functions of one program, for a working precision. Subclasses say how they are made and run."""

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        self.source = source
        self.dtype = dtype
        self.slots = {m.name: i + FIRST_SLOT for i, m in enumerate(source.memory)}
        self.size = len(source.memory) + FIRST_SLOT

    @staticmethod
    def panel_width(dtype: np.dtype[Any]) -> int:
        """Return how many columns a panel of packed weights has."""
        raise NotImplementedError

    def table(self, first: Sequence[Array], given: Mapping[str, Array], pieces: Pieces) -> Any:
        """Return P for a call: its first slots, arrays by name, and arenas cut up by frames."""
        raise NotImplementedError

    def run(self, entry: str, calls: Sequence[Call]) -> None:
        """Call a function of the program once for each of the calls: pairs of P and N."""
        raise NotImplementedError


class Interpreted(Kernels):
    """Runs the generated source with Python itself: slow, and every index is checked."""

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        super().__init__(source, dtype)
        self.names = interpreted.load(source.text, dtype)

    @staticmethod
    def panel_width(dtype: np.dtype[Any]) -> int:
        return interpreted.WIDTH

    def table(self, first: Sequence[Array], given: Mapping[str, Array], pieces: Pieces) -> Any:
        memory: list[Array | None] = [None] * self.size
        memory[:FIRST_SLOT] = first
        for frame, arena in pieces:
            for name in frame.names:
                if name in self.slots:
                    memory[self.slots[name]] = frame.view(arena, name)
        for name, array in given.items():
            if name in self.slots:
                memory[self.slots[name]] = array.reshape(-1)
        return memory

    def run(self, entry: str, calls: Sequence[Call]) -> None:
        with np.errstate(all="ignore"):
            for memory, numbers in calls:
                self.names[entry](memory, numbers)
