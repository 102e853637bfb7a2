"""A plan's launches put into a script: the words that its kernels read, and which kernels there are for a strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref_fast.cpu.plan import Place, Plan
from rsref_fast.cpu.source import FIRST_SLOT
from rsref_fast.cuda.choice import Choice
from rsref_fast.cuda.driver import Device
from rsref_fast.cuda.graphs import Call, Graph
from rsref_fast.cuda.products import Product
from rsref_fast.cuda.script import Run, Script, Where
from rsref_fast.cuda.shares import calls_of, segments_of
from rsref_fast.cuda.words import CUTTING, EVEN, NUMBERS

if TYPE_CHECKING:
    from rsref_fast.cuda.engine import CudaEngine
    from rsref_fast.cuda.passes import Tape


@dataclass(frozen=True)
class Segments:
    """The launches of a plan for a choice. packed: whether any reads weights that `prepare` packs."""

    choice: Choice
    calls: list[Call]
    packed: bool


def put(engine: CudaEngine, script: Script, plan: Plan, arrays: list[Where], tape: Tape) -> None:
    """Put the launches of a plan into a script. arrays: addresses of all but scratch memory."""
    choice, packed, stream = tape.choice, tape.packed, tape.stream
    scratch = script.memory(plan.scratch, brief=True) if tape.scratch is None else tape.scratch
    first = 0 if packed is None else FIRST_SLOT
    fixed = _fixed(engine.device, plan, first)
    script.keep(plan)  # whose tables the words name, so they must not be given back before
    places = [*arrays, scratch.address]

    def address(place: Place) -> Where:
        return fixed[id(place.fixed)] if place.fixed is not None else places[place.array] + place.offset

    for target, source in plan.copies:
        script.copy(address(target), address(source), source.bytes)
    for target in plan.clears:
        script.fill(address(target), target.bytes)
    slots = len(plan.shards[0][1])
    tables: list[Where] = []
    numbers: list[int] = []
    for i, (shard, own) in enumerate(plan.shards):
        tables += [*([] if packed is None else packed.slots(i)), *(address(place) for place in own[first:])]
        cutting = int(bool(shard.cut.any()) if packed is None else engine.recurrence.truncate is not None)
        row = [shard.count, shard.steps, max(plan.limit, shard.count), 0, int(plan.taped)]
        own_numbers = row + [0] * (NUMBERS - len(row))
        own_numbers[EVEN], own_numbers[CUTTING] = int(packed is None), cutting
        numbers += own_numbers
    numbers += [0] * (choice.lines if choice.team == "units" else 0)
    table, number = script.table(tables), script.table(numbers)
    kernels: Any = plan.kernels
    spots = table, number, slots
    graph, segments, packs = None, None, plan.prepares
    apart = choice.products != "tiles" and packed is None and choice.team != "block"
    if apart and not (choice.strategy == "alternating" and engine.gathers):  # a graph says where an index is wrong
        segments = _segments(script.numbers(number, NUMBERS), plan, choice)
        packs = packs and segments.packed
    elif choice.strategy == "alternating":
        graph = _graph(engine, script, plan, spots, tape)
        packs = packs and graph.packed
    _all_over(script, kernels, "prepare" if packs else "unpacked" if plan.prepares else "", spots)
    if graph is not None:
        _run(engine, script, graph, spots)
    elif segments is not None:
        _launch(engine, script, plan, segments, spots, stream)
    else:
        blocks = len(plan.shards) if choice.team == "block" else choice.blocks
        kernel = kernels.entry("shard", choice.team, blocks if choice.team == "units" else 0)
        script.launch(kernel, blocks, table, number, slots, lines=choice.lines)
    if plan.kernels.source.backward:
        for i in range(1, len(plan.shards)):
            _all_over(script, kernels, "fold", spots, table + i * slots)
        if plan.kernels.source.finishes:
            _all_over(script, kernels, "finish", spots)
    if engine.gathers:
        script.note(number, len(plan.shards))


def _all_over(
    script: Script, kernels: Any, name: str, spots: tuple[int, int, int], other: int | None = None
) -> None:  # fmt: skip
    """Put an entry, if there is one of this name, into a script, by as many blocks as run at once.

    other: the place of Q.
    """
    if name == "unpacked":
        name = name if kernels.apart.unpacked else ""
    if name:
        kernel = kernels.piece(kernels.apart, name) if name == "unpacked" else kernels.entry(name)
        script.launch(kernel, kernel.at_once, *spots, other)


def _segments(numbers: list[int], plan: Plan, choice: Choice) -> Segments:
    """Return the launches of a program that are not recorded, found out once."""
    for thing in plan.kept:
        if isinstance(thing, Segments) and thing.choice == choice:
            return thing
    found = Segments(choice, *segments_of(plan.kernels, plan, choice, numbers))  # type: ignore[arg-type]
    plan.kept.append(found)
    return found


def _launch(
    engine: CudaEngine, script: Script, plan: Plan, segments: Segments, spots: tuple[int, int, int], stream: int
) -> None:  # fmt: skip
    """Put launches, a library's products and graphs of steps into a script, one after the other."""
    kernels: Any = plan.kernels
    table, _, slots = spots
    words, library = script.words, engine.device.library
    for i, call in enumerate(segments.calls):
        if call.kernel is not None:
            script.launch(call.kernel, call.blocks, *spots, steps=call.numbers, lines=call.lines)
        elif call.product is not None:
            product, matrices = call.product, (call.product.right, call.product.left, call.product.target)
            own = [words[table + m.first.slot] + m.first.elements * kernels.dtype.itemsize for m in matrices]
            workspace = library.workspace(stream)
            script.keep(workspace)
            script.add(partial(_multiply, product=product, dtype=kernels.dtype, own=own, workspace=workspace))
        else:
            make = partial(_recorded, engine, plan, call.recorded, slots, stream)
            _run(engine, script, engine.graphs.get((id(plan), i, stream, segments.choice), make), spots)


def _recorded(engine: CudaEngine, plan: Plan, calls: Sequence[Call], slots: int, stream: int) -> Graph:
    """Return some calls of a program as a graph."""
    kernels: Any = plan.kernels
    products = any(call.product is not None for call in calls)
    pointing = engine.helpers(kernels.dtype).pointing() if products else None
    return Graph(engine.device, calls, plan, slots, NUMBERS, stream, kernels.dtype, pointing)


def _multiply(run: Run, product: Product, dtype: np.dtype[Any], own: list[Where], workspace: Any) -> None:
    library = run.device.library
    with library.on(run.stream, workspace):
        library.multiply_at(product, dtype, [run.at(where) for where in own])


def _graph(engine: CudaEngine, script: Script, plan: Plan, places: tuple[int, int, int], tape: Tape) -> Graph:
    """Return the launches of a program's pieces, recorded when they are first needed.

    places: of P and N in the script, and how many words P has.
    """
    kernels: Any = plan.kernels
    (_, number, slots), choice, masked = places, tape.choice, tape.packed is not None

    def make() -> Graph:
        own = script.numbers(number, NUMBERS)
        calls, packed = calls_of(kernels, plan, choice, own, masked)
        products = any(call.product is not None for call in calls)
        pointing = engine.helpers(kernels.dtype).pointing() if products else None
        return Graph(
            engine.device, calls, plan, slots, NUMBERS, tape.stream, kernels.dtype, pointing, packed
        )  # fmt: skip

    return engine.graphs.get((id(plan), masked, tape.stream, choice), make)


def _run(engine: CudaEngine, script: Script, graph: Graph, places: tuple[int, int, int]) -> None:
    """Put the launches of a graph into a script."""
    table, number, slots = places

    def replay(run: Run) -> None:
        own = np.concatenate([run.words[table : table + slots], run.words[number : number + NUMBERS]])
        graph.run(own, run.stream)

    script.add(replay)
    if engine.gathers:
        script.flag(number, graph.numbers())


def _fixed(device: Device, plan: Plan, first: int) -> dict[int, int]:
    """Return the addresses of a plan's own arrays on the device, copied there once. first: the first place of those."""
    held = next((thing for thing in plan.kept if isinstance(thing, dict)), None)
    if held is None:
        places = (place for _, own in plan.shards for place in own[first:])
        arrays = {id(place.fixed): place.fixed for place in places if place.fixed is not None}
        held = dict(zip(arrays, device.constants([*arrays.values()])))
        plan.kept.append(held)
    return {key: constant.address for key, constant in held.items()}
