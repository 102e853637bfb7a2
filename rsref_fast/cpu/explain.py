"""What a step becomes on the CPU, in words: kernels, threads, and every buffer with its bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rsref_fast.cpu.source import Memory, Source
from rsref_fast.cpu.splitting import split_of
from rsref_fast.lengths import sized
from rsref_fast.views import Space

if TYPE_CHECKING:
    from rsref_fast.cpu.specialised import Specialised

PER = {
    Space.FIXED: "a call",
    Space.ROW: "a sample",
    Space.STEP: "a sample",
    Space.BLOCK: "a row of a block",
    Space.PACKED: "a sample and step, kept for backward",
    Space.CURRENT: "a sample and step, kept for backward",
    Space.FLOW_IN: "a sample",
}
BATCHES, STEPS = (1, 8, 32, 256), 100


def machinery(special: Specialised, threads: int | None) -> str:
    """Return the kernels and buffers of both programs as text. threads: as the engine was given them."""
    lines = [f"products: right operands in panels of {special.width} columns, weights packed once a call"]
    for batch in BATCHES:
        split = split_of(None, threads, special, batch, batch * STEPS)
        team = f", {split.team} threads share the units of each" if split.team > 1 else ""
        shards = "1 shard" if split.shards == 1 else f"{split.shards} shards"
        rounds = f" in {split.rounds} rounds" if split.rounds > 1 else ""
        lines.append(f"a batch of {batch}, {STEPS} steps: {shards}{rounds}{team}")
    for name, source in zip(("forward", "backward"), special.sources()):
        lines.append(f"{name}: blocks of {special.block_rows(source, 0)} rows; buffers, in bytes:")
        lines += _buffers(special, source)
        pieces = re.findall(r"for c in range\(0, \w+, (\d+)\):", source.text)
        if pieces:
            lines.append(f"  wide tensors: computed for {' and '.join(dict.fromkeys(pieces))} samples at a time")
    return "\n".join(lines)


def _buffers(special: Specialised, source: Source) -> Iterable[str]:
    """Return a line for each kind of memory; what backward reads of forward's is said there only."""
    tape = (Space.PACKED, Space.CURRENT) if source.backward else ()
    own = [m for m in source.memory if not m.given and m.space not in tape]
    for per in dict.fromkeys(PER[m.space] for m in own):
        sizes = {m.name: _bytes(special, m) for m in own if PER[m.space] == per}
        parts = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        yield f"  {sum(sizes.values()):,} {per}: {parts}"


def _bytes(special: Specialised, memory: Memory) -> int:
    """Return the bytes of a buffer for one row, or of all of it if it has none."""
    rows = 0 if memory.space is Space.FIXED else 2 if memory.space is Space.FLOW_IN else 1
    return sized(memory.size, rows) * special.dtype_of(memory.kind).itemsize
