"""Steps that mix samples, with a mask: one step a call, for the samples that take part in it.

Which these are decides how much there is to compute, so the mask is read on the host: the one place where an engine
waits for the device. All values stay there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref.engine import Gradients
from rsref_fast.cpu.specialised import Specialised
from rsref_fast.cuda.arrays import DeviceArray
from rsref_fast.cuda.masks import Rows
from rsref_fast.cuda.script import Script

if TYPE_CHECKING:
    from rsref_fast.cuda.engine import CudaEngine


@dataclass
class StepTape:
    """What backward needs: for each step the samples that took part, where they stand, and the tape of its call."""

    special: Specialised
    arguments: list[list[DeviceArray]]
    outputs: list[DeviceArray]
    finals: list[DeviceArray]
    mask: DeviceArray
    stream: int
    steps: list[tuple[int, int, int, Any]] = field(default_factory=list)
    memory: Any = None


class _Mover:
    """Moves rows of arrays to and fro, each time with a script of its own."""

    def __init__(self, engine: CudaEngine, special: Specialised, stream: int):
        self.engine, self.special, self.stream = engine, special, stream

    def __enter__(self) -> Rows:
        self.rows = Rows(self.engine, Script(), self.special, self.stream, self.engine.allocate)
        return self.rows

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.rows.finish(self.engine.allocate)


def step_by_step(
    engine: CudaEngine, special: Specialised, arguments: list[list[DeviceArray]], outputs: list[DeviceArray],
    mask: DeviceArray, taped: bool, stream: int,
) -> tuple[list[DeviceArray], list[DeviceArray], StepTape | None]:  # fmt: skip
    """Run forward, one call a step; outputs are zero. Answers as `CudaEngine.forward`."""
    time = mask.shape[1]
    host = np.empty(mask.shape, np.uint8)
    engine.device.download(host, mask.address, stream)
    taking = [np.flatnonzero(host[:, t]) for t in range(time)]
    words = np.concatenate(
        [np.zeros(0, np.int64), *(w for t, rows in enumerate(taking) for w in (rows, rows * time + t))]
    )
    memory = engine.allocate(max(8, words.nbytes), stream)
    engine.device.upload(memory.address, words.astype(np.int64), stream)
    tape = StepTape(special, arguments, outputs, [], mask, stream, memory=memory)
    sequences, constants, states, parameters = arguments
    mover = _Mover(engine, special, stream)
    with mover as rows:
        current = [rows.copied(s) for s in states]
    one = engine.one_step()
    address = memory.address
    for t in range(time):
        count = len(taking[t])
        places, address = (address, address + 8 * count), address + 16 * count
        piece = None
        if count:
            with mover as rows:
                xs = [rows.taken(s, places[1], count, 2) for s in sequences]
                cs, hs = ([rows.taken(a, places[0], count, 1) for a in group] for group in (constants, current))
            ys, ends, piece = one.forward(xs, cs, hs, parameters, steps=1, taped=taped, stream=stream)
            with mover as rows:
                for y, now in zip(outputs, ys):
                    rows.put(now, places[1], count, y)
                for s, now in zip(current, ends):
                    rows.put(now, places[0], count, s)
        tape.steps.append((count, *places, piece))
    tape.finals = current
    return outputs, current, tape if taped else None


def steps_back(
    engine: CudaEngine, tape: StepTape, d_outputs: Sequence[DeviceArray], ends: Sequence[DeviceArray], stream: int
) -> Gradients:
    """Run backward, one call a step."""
    graph, truncate = engine.recurrence.graph, engine.recurrence.truncate
    leaves = (graph.sequences, graph.constants, graph.states, [p.tensor for p in graph.parameters])
    for memory in (tape.memory, tape.mask.owner):
        engine.device.lend(memory, stream)
    mover = _Mover(engine, tape.special, stream)
    with mover as rows:
        found = [
            [rows.zeros(a.shape) if leaf.dtype == "float" else None for a, leaf in zip(arrays, group)]
            for arrays, group in zip(tape.arguments, leaves)
        ]
        flowing = [rows.copied(end) if leaf.dtype == "float" else None for end, leaf in zip(ends, graph.states)]
    one = engine.one_step()
    for t in range(len(tape.steps) - 1, -1, -1):
        count, samples, places, piece = tape.steps[t]
        if count:
            with mover as rows:
                ds = [rows.taken(d, places, count, 2) for d in d_outputs]
                flows = [None if d is None else rows.taken(d, samples, count, 1) for d in flowing]
            part: Any = one.backward(piece, ds, flows, stream)
            with mover as rows:
                for whole, d in zip(flowing, part.states):
                    rows.put(d, samples, count, whole)
                for whole, d in zip(found[0], part.sequences):
                    rows.put(d, places, count, whole)
                for whole, d in zip(found[1], part.constants):
                    rows.put(d, samples, count, whole, "add")
                for whole, d in zip(found[3], part.parameters):
                    rows.added(d, whole)
        if truncate is not None and t % truncate == 0 and t > 0:
            with mover as rows:
                flowing = [None if d is None else rows.zeros(d.shape) for d in flowing]
    return Gradients(found[0], found[1], flowing, found[3])  # type: ignore[arg-type]
