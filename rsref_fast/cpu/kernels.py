"""What turns generated source into functions, and runs them on the shards of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsref_fast.cpu import interpreted
from rsref_fast.cpu.emit import Source

Array = np.ndarray
Call = tuple[Sequence[Array | None], Array]


class Kernels:
    """The functions of one program, for a working precision. Subclasses say how they are made and run."""

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        self.source = source
        self.dtype = dtype

    @staticmethod
    def panel_width(dtype: np.dtype[Any]) -> int:
        """Return how many columns a panel of packed weights has."""
        raise NotImplementedError

    @staticmethod
    def fresh(size: int, dtype: np.dtype[Any]) -> Array:
        """Return memory whose content does not matter."""
        return np.empty(size, dtype)

    def run(self, entry: str, calls: Sequence[Call]) -> None:
        """Call a function of the program once for each of the calls: pairs of memory and numbers."""
        raise NotImplementedError


class Interpreted(Kernels):
    """Runs the generated source with Python itself: slow, and every index is checked."""

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        super().__init__(source, dtype)
        self.names = interpreted.load(source.text, dtype)

    @staticmethod
    def panel_width(dtype: np.dtype[Any]) -> int:
        return interpreted.WIDTH

    @staticmethod
    def fresh(size: int, dtype: np.dtype[Any]) -> Array:
        poison = {"f": np.nan, "i": -(2**40), "u": 77}[dtype.kind]
        return np.full(size, poison, dtype)

    def run(self, entry: str, calls: Sequence[Call]) -> None:
        with np.errstate(all="ignore"):
            for memory, numbers in calls:
                self.names[entry](memory, numbers)
