"""A call laid out: where everything lies that the programs of a shard read and write, and what is done around them.

Addresses are said as places in the arrays of a call, which are numbered: the arguments, then the results, of which the
last two are what forward keeps for backward, and scratch memory. So a plan serves every call of the same sizes, and
callers that hold no Python.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref.tensor import ConstantSource, Parameter
from rsref_fast.cpu.kernels import Kernels
from rsref_fast.cpu.memory import ALIGNMENT, Frame
from rsref_fast.cpu.source import Memory, Source
from rsref_fast.cpu.splitting import Split
from rsref_fast.lengths import sized
from rsref_fast.packing import Shard

if TYPE_CHECKING:
    from rsref_fast.cpu.specialised import Specialised

Array = np.ndarray
FIXED = -1
"""The number of an array for places whose address is known."""

HEADER = 32
"""Words before those that say where memory is. The last ones are not the plan's but for notes about its calls."""

LEFT, EVERY, ALONE_NOW, OWN, THEN, OTHER, TURN, TOTAL, WENT = range(17, 26)
"""Which words are for notes: see `trials`."""

BRIEF = 4_000_000
"""Additions and multiplications up to which a step is brief: some ten microseconds."""

FLOPS_FORGIVEN = 400
"""Additions and multiplications for which a nanosecond is forgiven: a common core does a hundred in each."""

CONTEXT, LINE, NUMBERS = 64, 16, 16
"""64-bit words: of what threads share (see `crew_native`), from one thread's counts there to the next one's, and of N.

A line of counts is two of the cache's: processors fetch them in pairs.
"""


@dataclass(frozen=True)
class Place:
    """Some elements of an array of the call; or an array of their own, if `fixed` is one."""

    array: int
    offset: int
    size: int
    dtype: np.dtype[Any]
    fixed: Array | None = None

    @property
    def words(self) -> list[int]:
        """The number of the array and the offset in bytes, as compiled code reads them."""
        if self.fixed is not None:
            return [FIXED, self.fixed.__array_interface__["data"][0]]
        return [self.array, self.offset]

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass
class Plan:
    """A call of one program.

    shards: samples that are computed apart, with the places of P for each. split: which threads compute which.
    copies: (target, source), before all else. clears: what is to be zero. prepares: whether `prepare` is run.
    prepared: how many bytes it fills, the first ones of scratch memory.
    arrays: how many the call has. tape, scratch: bytes of the last two.
    brief: whether a step takes so little that waiting for a thread without a processor would cost far more.
    forgiven: nanoseconds that a call may take longer than it should, a quarter of that.
    leader: the plan of forward, if this is backward's: where one thread did that one, it does this one, too.
    """

    kernels: Kernels
    shards: Sequence[tuple[Shard, list[Place]]]
    split: Split
    taped: bool
    limit: int
    prepares: bool
    prepared: int
    copies: list[tuple[Place, Place]]
    clears: list[Place]
    arrays: int
    tape: int
    scratch: int
    brief: bool
    forgiven: int
    kept: list[Any] = field(default_factory=list)
    leader: Plan | None = None

    def __deepcopy__(self, _memo: Any) -> Plan:
        return self  # its address is that of its own words: a copied engine runs it too

    @property
    def threads(self) -> int:
        return self.split.teams * self.split.team

    @cached_property
    def prepared_before(self) -> Plan:
        """The plan for scratch memory that `prepare` has filled already."""
        return replace(self, prepares=False)

    @cached_property
    def alone(self) -> Plan | None:
        """The plan by which one thread does the work of a team, with the same answers, if that may be better."""
        return replace(self, split=replace(self.split, team=1)) if self.split.team > 1 and self.brief else None

    @cached_property
    def words(self) -> Array:
        """The plan as compiled code reads it (`crew_native`)."""
        slots = len(self.shards[0][1])
        body: list[int] = []
        for shard, places in self.shards:
            body += [shard.count, shard.steps, max(self.limit, shard.count)]
            for place in places:
                body += place.words
        for target, source in self.copies:
            body += [*target.words, *source.words, target.bytes]
        for target in self.clears:
            body += [*target.words, target.bytes]
        head = [
            getattr(self.kernels, "address", 0), slots, len(self.shards), self.split.team, self.arrays, self.scratch,
            self.tables, self.numbers, len(self.copies), len(self.clears), int(self.prepares),
            int(self.kernels.source.backward), int(self.taped),
            self.alone.address if self.alone else 0, self.forgiven, self.leader.address if self.leader else 0,
            self.split.teams,
        ]  # fmt: skip
        assert len(head) == LEFT
        return np.array([*head, *[0] * (HEADER - LEFT), *body], np.int64)

    @property
    def tables(self) -> int:
        """Where P of the shards begins, in 64-bit words of what threads share."""
        return CONTEXT + LINE * self.threads

    @property
    def numbers(self) -> int:
        """Where N begins: for each shard as often as a team has threads."""
        return self.tables + len(self.shards) * len(self.shards[0][1])

    @cached_property
    def scratch_bytes(self) -> int:
        """How much scratch memory a call needs, with what its threads share."""
        numbers = NUMBERS * len(self.shards) * self.split.team
        return self.scratch + ALIGNMENT + 8 * (self.numbers + numbers + self.arrays)

    @cached_property
    def address(self) -> int:
        return int(self.words.__array_interface__["data"][0])


def forward_plan(
    special: Specialised,
    shards: Sequence[Shard],
    steps: int,
    split: Split,
    taped: bool,
    tabled: bool = False,
    zeroed: bool = False,
) -> Plan:
    """Return the plan of a forward run. Shards follow each other in the batch.

    Arrays: sequences, constants, states, parameters; outputs, final states, what is kept, scratch.
    tabled: two more arguments say what the shards' rows are (see `Tables`); the shards say how many at most.
    zeroed: what is computed for some rows only is zero before.
    """
    source, kernels = (special.forward, special.run_forward) if taped else (special.inference, special.run_inference)
    graph = special.compiled.graph
    counts = [len(g) for g in (graph.sequences, graph.constants, graph.states, graph.parameters)]
    starts = [int(n) for n in np.cumsum([0, *counts, len(graph.outputs), len(graph.states)])]
    first_parameter, tables = starts[3], Tables(starts[4]) if tabled else None
    starts[4:] = [n + (2 if tabled else 0) for n in starts[4:]]
    batch = sum(shard.count for shard in shards)
    tape = Cutter(starts[6])
    call = _Layout(special, source, kernels, first_parameter, starts[6] + 1, tables, shards, split)
    found: list[tuple[Shard, list[Place]]] = []
    copies, first = [], 0
    for shard in shards:
        kept, _ = special.frames(source, shard, taped, call.limit)
        own = tape.cut(kept)
        for i, leaf in enumerate(graph.sequences):
            own[f"sequence{i}"] = call.whole(i, leaf, batch * steps)
        for i, leaf in enumerate(graph.constants):
            own[f"constant{i}"] = call.rows(starts[1] + i, leaf, first, shard.count)
        for i, leaf in enumerate(graph.outputs):
            own[f"output{i}"] = call.whole(starts[4] + i, leaf, batch * steps)
        for i, leaf in enumerate(graph.states):
            own[f"final{i}"] = call.rows(starts[5] + i, leaf, first, shard.count)
            start, target = call.rows(starts[2] + i, leaf, first, shard.count), own[f"state{i}"]
            copies.append((Place(target.array, target.offset, start.size, start.dtype), start))
        found.append((shard, call.places(own, shard, taped, len(found))))
        first += shard.count
    cleared = graph.outputs if tabled and not zeroed else ()
    clears = [call.whole(starts[4] + i, leaf, batch * steps) for i, leaf in enumerate(cleared)]
    return call.plan(found, split, taped, copies, clears, tape.total)


def backward_plan(
    special: Specialised, shards: Sequence[Shard], steps: int, split: Split, tabled: bool = False, zeroed: bool = False
) -> Plan:
    """Return the plan of a backward run.

    Arrays: sequences, constants, states, parameters, what forward kept, gradients of outputs and of final states;
    gradients of sequences, constants, states and parameters, nothing (one byte), scratch.
    tabled, zeroed: as in `forward_plan`; the two arguments follow the parameters.
    """
    compiled, source, kernels = special.compiled, special.backward, special.run_backward
    graph = compiled.graph
    counts = [len(g) for g in (graph.sequences, graph.constants, graph.states, graph.parameters)]
    given = [int(n) for n in np.cumsum([0, *counts, 1, len(graph.outputs), len(graph.states)])]
    tables = Tables(given[4]) if tabled else None
    given[4:] = [n + (2 if tabled else 0) for n in given[4:]]
    starts = [int(n) for n in np.cumsum([given[7], *counts])]
    batch = sum(shard.count for shard in shards)
    tape = Cutter(given[4])
    call = _Layout(special, source, kernels, given[3], starts[4] + 1, tables, shards, split)
    found: list[tuple[Shard, list[Place]]] = []
    first = 0
    for shard in shards:
        kept, _ = special.frames(special.forward, shard, True, call.limit)
        own = tape.cut(kept)
        for i, leaf in enumerate(graph.sequences):
            own[f"sequence{i}"] = call.whole(i, leaf, batch * steps)
            own[f"d_sequence{i}"] = call.whole(starts[0] + i, leaf, batch * steps)
        for i, leaf in enumerate(graph.constants):
            own[f"constant{i}"] = call.rows(given[1] + i, leaf, first, shard.count)
            own[f"d_constant{i}"] = call.rows(starts[1] + i, leaf, first, shard.count)
        for i, leaf in enumerate(graph.outputs):
            own[f"d_output{i}"] = call.whole(given[5] + i, leaf, batch * steps)
        for i, leaf in enumerate(graph.states):
            own[f"d_final{i}"] = call.rows(given[6] + i, leaf, first, shard.count)
            own[f"d_state{i}"] = call.rows(starts[2] + i, leaf, first, shard.count)
        for i, parameter in enumerate(graph.parameters):
            own[f"d_parameter{i}"] = Place(starts[3] + i, 0, math.prod(parameter.shape), special.dtype)
        if len(found) % split.teams == 0:  # what other teams have summed is added to what the first one has
            own |= {name: own[f"d_parameter{i}"] for name, i in source.results.items()}
        found.append((shard, call.places(own, shard, True, len(found))))
        first += shard.count
    clears = []
    groups = (
        (compiled.d_sequences, graph.sequences, starts[0], batch * steps),
        (compiled.d_constants, graph.constants, starts[1], batch),
        (compiled.d_parameters, [p.tensor for p in graph.parameters], starts[3], None),
    )
    for tensors, leaves, start, rows in groups:
        for i, (tensor, leaf) in enumerate(zip(tensors, leaves)):
            unwritten = tensor is None or (tabled and not zeroed and leaves is graph.sequences)
            if unwritten and leaf.dtype == "float":
                clears.append(call.whole(start + i, leaf, rows))
    return call.plan(found, split, True, [], clears, 0)


class Tables:
    """Where a call's two tables have off, pos, rid and cut of each shard, one after the other.

    array: the number of the first, of 64-bit integers; the second has cut, in bytes. A shard has room for its steps
    and rows; those that there are come first, and steps without rows last.
    """

    def __init__(self, array: int):
        self.array = array
        self.words = self.bytes = 0

    def places(self, shard: Shard) -> list[Place]:
        """Return the places of the next shard's off, pos, rid and cut."""
        found = []
        for size in (shard.steps + 1, len(shard.pos), len(shard.rid)):
            found.append(Place(self.array, 8 * self.words, size, np.dtype(np.int64)))
            self.words += size
        found.append(Place(self.array + 1, self.bytes, len(shard.cut), np.dtype(np.uint8)))
        self.bytes += len(shard.cut)
        return found


class Cutter:
    """Cuts one array up by frames, one after the other."""

    def __init__(self, array: int):
        self.array = array
        self.total = 0

    def cut(self, frame: Frame) -> dict[str, Place]:
        parts = zip(frame.names, frame.offsets, frame.lengths, frame.dtypes)
        found = {name: Place(self.array, self.total + int(o), n, dtype) for name, o, n, dtype in parts}
        self.total += frame.total
        return found


class _Layout:
    """The places of a call's arrays, fixed arrays and scratch memory, while a plan is made."""

    def __init__(
        self,
        special: Specialised,
        source: Source,
        kernels: Kernels,
        first_parameter: int,
        scratch: int,
        tables: Tables | None,
        shards: Sequence[Shard],
        split: Split,
    ):
        self.split, self.largest = split, max(shards, key=lambda shard: (shard.count, len(shard.pos)))
        self.rooms: list[dict[str, Place]] = []
        self.special, self.source, self.kernels, self.tables = special, source, kernels, tables
        self.limit = special.block_rows(source, len(self.largest.pos))
        self.scratch = Cutter(scratch)
        self.arrays = scratch + 1
        place = {p.tensor: i for i, p in enumerate(special.compiled.graph.parameters)}
        self.shared: dict[str, Place] = {}
        for name, leaf in source.fixed.items():
            if isinstance(leaf.source, Parameter):
                self.shared[name] = self.whole(first_parameter + place[leaf], leaf, None)
            elif isinstance(leaf.source, ConstantSource):
                self.shared[name] = self.fixed(special.plain(leaf.source.value, leaf.dtype).reshape(-1))
        self.shared.update(self.scratch.cut(special.prepared(source)))
        self.prepared = self.scratch.total

    def fixed(self, array: Array) -> Place:
        return Place(FIXED, 0, array.size, array.dtype, array)

    def whole(self, array: int, leaf: Any, rows: int | None) -> Place:
        """Return the place of a whole array; rows: instead of its first axis, or None to keep that."""
        width = _count(leaf.shape if rows is None else leaf.shape[1:])
        return Place(array, 0, width * (1 if rows is None else rows), self.special.dtype_of(leaf.dtype))

    def rows(self, array: int, leaf: Any, first: int, count: int) -> Place:
        dtype, width = self.special.dtype_of(leaf.dtype), _count(leaf.shape[1:])
        return Place(array, first * width * dtype.itemsize, count * width, dtype)

    def places(self, own: dict[str, Place], shard: Shard, taped: bool, number: int) -> list[Place]:
        """Return the places of P for a shard. number: of the shard; a team's shards all use the memory of its first."""
        if number < self.split.teams:
            elsewhere = frozenset(own.keys() & self.source.results)
            _, scratch = self.special.frames(self.source, self.largest, taped, self.limit, elsewhere)
            self.rooms.append(self.scratch.cut(scratch))
        found = {**self.shared, **own, **self.rooms[number % self.split.teams]}
        own_rows = (shard.off, shard.pos, shard.rid, shard.cut)
        first = self.tables.places(shard) if self.tables else [self.fixed(a) for a in own_rows]
        return first + [found[m.name] if m.name in found else self.nothing(m) for m in self.source.memory]

    def nothing(self, memory: Memory) -> Place:
        """Return the place of what forward did not keep, since there are no numbers in it."""
        if sized(memory.size, 1):
            raise KeyError(memory.name)
        return self.fixed(np.zeros(0, self.special.dtype_of(memory.kind)))

    def plan(self, shards: Any, split: Split, taped: bool, copies: Any, clears: Any, tape: int) -> Plan:
        largest = self.special.work(self.largest.count, len(self.largest.pos))
        return Plan(
            self.kernels, shards, split, taped, self.limit, bool(self.source.prepared), self.prepared, copies, clears,
            self.arrays, tape, self.scratch.total, largest // max(1, self.largest.steps) <= BRIEF,
            sum(self.special.work(shard.count, len(shard.pos)) for shard, _ in shards) // FLOPS_FORGIVEN,
        )  # fmt: skip


def _count(shape: Sequence[int | None]) -> int:
    return math.prod(n or 0 for n in shape)
