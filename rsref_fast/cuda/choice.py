"""How a call is spread over a GPU: which threads share what, and how many blocks there are."""

from __future__ import annotations

from dataclasses import dataclass

from rsref_fast.cuda.driver import Limits
from rsref_fast.explain import flops_of
from rsref_fast.layout import Section
from rsref_fast.program import Program

STRATEGIES = ("auto", "persistent", "alternating")

ALONE = 300_000
"""Additions and multiplications of a step that one block does sooner than all blocks of a GPU have met twice."""


LARGE = 4_000_000_000
"""Additions and multiplications of a step that take a GPU so long that a launch costs nothing beside them."""


@dataclass(frozen=True)
class Choice:
    """strategy: "persistent" or "alternating". team: "grid", or "block" if each has some samples of its own.

    shards: among how many parts the samples are dealt. blocks: of a launch on the whole grid.
    """

    strategy: str
    team: str
    shards: int
    blocks: int

    def __str__(self) -> str:
        if self.strategy == "alternating":
            return f"alternating: a launch for each unit of a step, {self.blocks} blocks"
        if self.team == "block":
            return f"persistent: {self.shards} blocks, each with samples of its own; no block waits for another"
        return f"persistent: one cooperative launch, {self.blocks} blocks that share each step"


def choose(
    program: Program, mixes: bool, batch: int, limits: Limits, strategy: str = "auto", at_once: int = 0
) -> Choice:
    """Return how a call of some samples is computed.

    at_once: blocks that a multiprocessor runs at the same time. The thresholds are reckoned, not measured.
    """
    flops = loop_flops(program)
    most = max(1, min(batch, limits.multiprocessors))
    if strategy != "alternating" and not mixes and flops * -(-batch // most) <= ALONE:
        return Choice("persistent", "block", most, limits.multiprocessors)
    room = max(1, at_once) * limits.multiprocessors
    if strategy == "alternating" or (strategy == "auto" and flops * batch > LARGE):
        return Choice("alternating", "grid", 1, room)
    return Choice("persistent", "grid", 1, room)


def loop_flops(program: Program) -> int:
    """Return the additions and multiplications of a step for one sample, without what leaves the loop."""
    layout = program.layout
    inside = [t for t, section in layout.section.items() if section is Section.LOOP and t not in layout.moved]
    return sum(flops_of(layout, tensor) for tensor in inside)
