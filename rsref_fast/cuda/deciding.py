"""What is decided about a call by its sizes: how it is spread over the device, and for how many rows there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsref_fast.cpu.source import Source
from rsref_fast.cpu.specialised import Specialised
from rsref_fast.cuda.choice import Choice, choose
from rsref_fast.cuda.holding import blocks_for
from rsref_fast.lengths import sized

if TYPE_CHECKING:
    from rsref_fast.cuda.engine import CudaEngine

MOST = 2**32
"""Elements that one loop goes over: places are divided as 32-bit numbers."""


def decided(engine: CudaEngine, special: Specialised, batch: int, masked: bool, taped: bool) -> Choice:
    """Return how calls of some samples are spread over the device; see `CudaEngine.chosen`."""
    compiled = special.compiled
    strategy = "alternating" if engine.products == "cublas" else engine.strategy
    programs = [compiled.forward, compiled.backward] if taped else [compiled.inference]
    tile = engine.tile.of(special.dtype.itemsize)
    about = (programs, compiled.mixes, batch, engine.device.limits, tile, strategy)
    alone = compiled.mixes or special.whole or strategy == "alternating"
    holding = (0, 1) if alone else _holding(engine, special, batch)
    choice = choose(*about, products="tiles" if masked else engine.products, holding=holding)
    if choice.products != "tiles" and engine.lacking:
        return choose(*about, holding=holding)
    return choice


def _holding(engine: CudaEngine, special: Specialised, batch: int) -> tuple[int, int]:
    """Return how many blocks can hold a step's weights, 0 if they cannot, and in how many lines."""
    own = engine.of_team(special, Choice("persistent", "units", 1, 0))
    programs = [own.forward.held, own.backward.held]
    return blocks_for(programs, batch, engine.device.limits, engine.tile, special.dtype.itemsize)


def check_sizes(source: Source, rows: int) -> bool:
    """See that places of a program's loops are 32-bit numbers, else ValueError. rows: the most that one goes over."""
    for memory in source.memory:
        if sized(memory.size, rows) >= MOST:
            raise ValueError(
                f"{rows} rows of {memory.name} are {sized(memory.size, rows):,} numbers; at most {MOST - 1:,}"
            )
    return True
