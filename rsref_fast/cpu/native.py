"""A call laid out beforehand, for callers that hold no Python: all sizes known, all memory the caller's.

A `Plan` is a table of 64-bit words that one compiled function reads (`native_kernel`): where each slot of P points for
each shard, what to copy and to clear first, what to add up at the end. Addresses are said as places in the caller's
arguments and results, of which the last two are the tape (or nothing) and scratch memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from rsref.tensor import ConstantSource, Parameter
from rsref_fast.cpu import cache as disk
from rsref_fast.cpu import objects
from rsref_fast.cpu.compiled import Compiled as Machine
from rsref_fast.cpu.compiled import versions
from rsref_fast.cpu.emit import Source
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.memory import ALIGNMENT
from rsref_fast.cpu.specialised import Specialised, numbers, packed
from rsref_fast.lengths import sized
from rsref_fast.packing import whole_batch

Array = np.ndarray
FIXED, ARGUMENT, RESULT = 0, 1, 2
"""What a place is counted from: nothing (an address), an argument, a result."""

HEADER = 12
ENTRIES = {"prepare": 0, "shard": 1, "finish": 2}


@dataclass
class Plan:
    """words: the table. scratch: bytes of the last result. tape: bytes of the one before, 0 for none.

    kept: arrays whose addresses are in the table.
    """

    words: Array
    tape: int
    scratch: int
    kept: list[Any] = field(default_factory=list)


def can_plan(engine: FastEngine, special: Specialised) -> bool:
    """Whether a recurrence can be called without Python: all its inputs and answers are floats of one precision."""
    graph = special.compiled.graph
    leaves = (*graph.sequences, *graph.constants, *graph.states, *graph.outputs)
    gathers = any(t.op is not None and t.op.name in ("take", "put_add") for t in graph.order)
    return all(t.dtype == "float" for t in leaves) and not gathers and special.kernels is Machine


class _Places:
    """Words that say where memory is: a kind, a number and a byte offset, or an address."""

    def __init__(self) -> None:
        self.words: list[int] = []

    def put(self, kind: int, number: int, offset: int) -> None:
        self.words += [kind, number, offset]


def forward_plan(engine: FastEngine, special: Specialised, batch: int, steps: int, taped: bool) -> Plan:
    """Return the plan of a forward run.

    Arguments: sequences, constants, states, parameters. Results: outputs, final states, tape, scratch.
    """
    source, machine = (special.forward, special.run_forward) if taped else (special.inference, special.run_inference)
    graph, itemsize = special.compiled.graph, special.dtype.itemsize
    counts = [len(graph.sequences), len(graph.constants), len(graph.states)]
    n_sequences, n_constants, n_states = counts
    outputs = len(graph.outputs)
    tape_result, scratch_result = outputs + n_states, outputs + n_states + 1
    shard = whole_batch(batch, steps, 1, engine.recurrence.truncate)[0]
    kept, scratch = special.frames(source, shard, taped)
    where: dict[str, tuple[int, int, int]] = {}
    where.update({f"sequence{i}": (ARGUMENT, i, 0) for i in range(n_sequences)})
    where.update({f"constant{i}": (ARGUMENT, n_sequences + i, 0) for i in range(n_constants)})
    where.update({f"output{i}": (RESULT, i, 0) for i in range(outputs)})
    where.update({f"final{i}": (RESULT, outputs + i, 0) for i in range(n_states)})
    first_parameter = sum(counts)
    where.update({name: (RESULT, tape_result, int(o)) for name, o in zip(kept.names, kept.offsets)})
    copies = []
    for i, state in enumerate(graph.states):
        if f"state{i}" in kept.names:
            size = batch * itemsize * int(np.prod([n or 0 for n in state.shape[1:]], dtype=int))
            copies.append((where[f"state{i}"], (ARGUMENT, n_sequences + n_constants + i, 0), size))
    return _plan(
        special, source, machine, shard, where, scratch, scratch_result, first_parameter, copies, [], kept.total, taped
    )


def backward_plan(engine: FastEngine, special: Specialised, batch: int, steps: int) -> Plan:
    """Return the plan of a backward run.

    Arguments: sequences, constants, states, parameters, tape, gradients of outputs and of final states.
    Results: gradients of sequences, constants, states and parameters, nothing (one byte), scratch.
    """
    compiled, source, machine = special.compiled, special.backward, special.run_backward
    graph, itemsize = compiled.graph, special.dtype.itemsize
    counts = [len(graph.sequences), len(graph.constants), len(graph.states), len(graph.parameters)]
    starts = [int(n) for n in np.cumsum([0, *counts])]
    tape_argument = starts[4]
    first_gradient = tape_argument + 1
    shard = whole_batch(batch, steps, 1, engine.recurrence.truncate)[0]
    _, scratch = special.frames(source, shard, True)
    kept, _ = special.frames(special.forward, shard, True)
    where: dict[str, tuple[int, int, int]] = {}
    where.update({f"sequence{i}": (ARGUMENT, i, 0) for i in range(counts[0])})
    where.update({f"constant{i}": (ARGUMENT, starts[1] + i, 0) for i in range(counts[1])})
    where.update({name: (ARGUMENT, tape_argument, int(o)) for name, o in zip(kept.names, kept.offsets)})
    where.update({f"d_output{i}": (ARGUMENT, first_gradient + i, 0) for i in range(len(graph.outputs))})
    ends = first_gradient + len(graph.outputs)
    where.update({f"d_final{i}": (ARGUMENT, ends + i, 0) for i in range(counts[2])})
    groups = (compiled.d_sequences, compiled.d_constants, compiled.d_states, compiled.d_parameters)
    names = ("d_sequence", "d_constant", "d_state", "d_parameter")
    clears = []
    for name, start, group, leaves in zip(
        names, starts, groups, (graph.sequences, graph.constants, graph.states, [p.tensor for p in graph.parameters])
    ):
        for i, (tensor, leaf) in enumerate(zip(group, leaves)):
            where[f"{name}{i}"] = (RESULT, start + i, 0)
            if tensor is None and name != "d_state":
                rows = {"d_sequence": batch * steps, "d_constant": batch, "d_parameter": 1}[name]
                inner = leaf.shape if name == "d_parameter" else leaf.shape[1:]
                clears.append((where[f"{name}{i}"], rows * itemsize * int(np.prod([n or 0 for n in inner], dtype=int))))
    return _plan(
        special, source, machine, shard, where, scratch, starts[4] + 1, starts[3], [], clears, 0, True
    )  # fmt: skip


PLANS: dict[str, Callable[[FastEngine, Specialised, int, int], Plan]] = {
    "inference": lambda engine, special, batch, steps: forward_plan(engine, special, batch, steps, False),
    "forward": lambda engine, special, batch, steps: forward_plan(engine, special, batch, steps, True),
    "backward": backward_plan,
}


def _plan(
    special: Specialised,
    source: Source,
    machine: Any,
    shard: Any,
    where: dict[str, tuple[int, int, int]],
    scratch: Any,
    scratch_result: int,
    first_parameter: int,
    copies: Sequence[Any],
    clears: Sequence[Any],
    tape: int,
    taped: bool,
) -> Plan:
    kept: list[Any] = [*packed(shard)]
    place = {p.tensor: i for i, p in enumerate(special.compiled.graph.parameters)}
    for name, leaf in source.fixed.items():
        if isinstance(leaf.source, Parameter):
            where[name] = (ARGUMENT, first_parameter + place[leaf], 0)
        elif isinstance(leaf.source, ConstantSource):
            kept.append(special.plain(leaf.source.value))
            where[name] = (FIXED, 0, kept[-1].__array_interface__["data"][0])
    where.update({name: (RESULT, scratch_result, int(o)) for name, o in zip(scratch.names, scratch.offsets)})
    total = scratch.total
    by_name = {m.name: m for m in source.memory}
    for name in source.prepared:
        where[name] = (RESULT, scratch_result, total)
        size = sized(by_name[name].size, 0) * special.dtype_of(by_name[name].kind).itemsize
        total += -(-size // ALIGNMENT) * ALIGNMENT
    slots = _Places()
    for array in packed(shard):
        slots.put(FIXED, 0, array.__array_interface__["data"][0])
    for memory in source.memory:
        slots.put(*where[memory.name])
    table_place = total
    total += 8 * (len(slots.words) // 3 + 16)
    n = numbers(shard, taped)
    tasks = _Places()
    for target, origin, size in copies:
        tasks.words += [*target, *origin, size]
    for target, size in clears:
        tasks.words += [*target, size]
    head = [
        machine.address, len(slots.words) // 3, scratch_result, table_place, len(copies), len(clears),
        int(bool(source.prepared)), int("finish" in source.entries), *(int(v) for v in n[:3]), int(n[4]),
    ]  # fmt: skip
    assert len(head) == HEADER
    return Plan(np.array([*head, *slots.words, *tasks.words], np.int64), tape, total + ALIGNMENT, kept)


@cache
def handler(api_minor: int) -> int:
    """Return the address of a C function that XLA calls: it finds the plan's address in the call's one attribute."""

    def build() -> tuple[bytes, str]:
        from rsref_fast.cpu import native_kernel

        return native_kernel.compiled(api_minor)

    code, symbol = disk.fetch(disk.key_of("handler", api_minor, versions()), "", build)
    return objects.c_entry(objects.load(code, symbol))
