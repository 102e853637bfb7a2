"""A call's two passes over memory that is there: what is done around the programs, and with which addresses.

So whoever owns the memory, the engine or XLA, the same is done. Everything is put into a script; nothing runs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rsref_fast.cpu.plan import Plan
from rsref_fast.cpu.specialised import Specialised
from rsref_fast.cuda.arrays import DeviceArray
from rsref_fast.cuda.choice import Choice
from rsref_fast.cuda.launching import put
from rsref_fast.cuda.masks import Packed, Rows

if TYPE_CHECKING:
    from rsref_fast.cuda.engine import CudaEngine

Groups = list[list[DeviceArray]]


@dataclass
class Tape:
    """What backward has to know of a forward run: its arguments, as kernels read them, and the memory that it filled.

    With a mask, constants, states and finals are in the order of the packed samples. Where a batch is one sample of the
    programs, sequences are (time, batch, ...). scratch: memory for a program, None if the script is to ask for it.
    """

    special: Specialised
    arguments: Groups
    outputs: list[DeviceArray]
    choice: Choice
    stream: int
    packed: Packed | None
    kept: Any = None
    scratch: Any = None
    finals: list[DeviceArray] = field(default_factory=list)

    def shapes(self) -> list[list[tuple[int, ...]]]:
        """Return the shapes of the arguments as the caller has them."""
        sequences, *others = self.arguments
        return [[a.shape for a in group] for group in (_turned(self.special, sequences), *others)]


def leaves_of(engine: CudaEngine) -> Any:
    graph = engine.recurrence.graph
    return graph.sequences, graph.constants, graph.states, [p.tensor for p in graph.parameters]


def begin(engine: CudaEngine, rows: Rows, given: Groups, mask: DeviceArray | None, choice: Choice) -> Tape:
    """Return a tape with the arguments as kernels read them, and no answers yet."""
    given = [_turned(rows.special, given[0]), *given[1:]]
    arguments = [[rows.plain(a, t.dtype) for a, t in zip(*pair)] for pair in zip(given, leaves_of(engine))]
    packed = None
    if mask is not None:
        packed = rows.packed(rows.plain(mask, "bool"), choice.shards, engine.recurrence.truncate)
        arguments[1:3] = [[rows.reordered(a, packed) for a in group] for group in arguments[1:3]]
    return Tape(rows.special, arguments, [], choice, rows.stream, packed)


def _turned(special: Specialised, arrays: Sequence[DeviceArray]) -> list[DeviceArray]:
    """Return sequences with the time first, if the programs have them so, and the other way round: the same memory."""
    return [a.time_first() for a in arrays] if special.whole else [*arrays]


def forward_pass(engine: CudaEngine, rows: Rows, tape: Tape, plan: Plan, answers: Sequence[DeviceArray]) -> None:
    """Fill a tape's outputs, what it keeps, and the final states. answers: theirs, in the order of the batch."""
    packed = tape.packed
    tape.finals = [*answers] if packed is None else [rows.new(s.shape, s.dtype) for s in answers]
    if packed is not None:
        for y in tape.outputs:
            rows.script.fill(y.address, y.nbytes)
    outputs = tape.outputs
    if tape.special.whole:
        outputs = [rows.brief(y.time_first().shape, y.dtype) for y in outputs]
    arrays = [a.address for group in (*tape.arguments, outputs, tape.finals) for a in group]
    put(engine, rows.script, plan, [*arrays, tape.kept.address], tape)
    if tape.special.whole:
        for own, y in zip(outputs, tape.outputs):
            rows.written(own.time_first(), y)
    if packed is not None:
        for s, answer in zip(tape.finals, answers):
            rows.restored(s, packed, answer)
        if not engine.recurrence.zero_output_for_mask:
            for y in tape.outputs:
                rows.held(y, packed.mask)


def backward_pass(
    engine: CudaEngine, rows: Rows, tape: Tape, plan: Plan, d_outputs: list[DeviceArray], d_states: list[DeviceArray],
    answers: Sequence[Sequence[DeviceArray | None]],
) -> None:  # fmt: skip
    """Fill the gradients of all arguments, None for those that have none, in the order of the batch."""
    packed, found = tape.packed, [[*group] for group in answers]
    if packed is not None:
        if not engine.recurrence.zero_output_for_mask:
            d_outputs = [rows.collected(d, packed.mask) for d in d_outputs]
        d_states = [rows.cleared(rows.reordered(d, packed), packed) for d in d_states]
        for d in found[0]:
            if d is not None:
                rows.script.fill(d.address, d.nbytes)
        found[1:3] = [[None if d is None else rows.new(d.shape, d.dtype) for d in group] for group in found[1:3]]
    if tape.special.whole:
        d_outputs = [rows.plain(d.time_first(), "float") for d in d_outputs]
        found[0] = [None if d is None else rows.new(d.time_first().shape, d.dtype) for d in found[0]]
    arrays = [a.address for group in tape.arguments for a in group]
    arrays += [tape.kept.address, *(d.address for d in (*d_outputs, *d_states))]
    arrays += [0 if d is None else d.address for group in found for d in group]
    put(engine, rows.script, plan, [*arrays, 0], replace(tape, stream=rows.stream))
    if packed is not None:
        for mixed, group in zip(found[1:3], answers[1:3]):
            for d, answer in zip(mixed, group):
                if d is not None:
                    rows.restored(d, packed, answer)
    if tape.special.whole:
        for d, answer in zip(found[0], answers[0]):
            if d is not None and answer is not None:
                rows.written(d.time_first(), answer)
    rows.script.keep((d_outputs, d_states, found))
