"""Calls that differ in nothing but where their memory is: planned once, and then run with the addresses of each.

Planning takes the host as long as all the rest of a small call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref_fast.cpu.specialised import Specialised
from rsref_fast.cuda.arrays import DeviceArray
from rsref_fast.cuda.choice import Choice
from rsref_fast.cuda.masks import Rows
from rsref_fast.cuda.passes import Groups, Tape, backward_pass, begin, forward_pass, leaves_of
from rsref_fast.cuda.script import Address, Piece, Script
from rsref_fast.remembered import remembered

if TYPE_CHECKING:
    from rsref_fast.cuda.engine import CudaEngine

Arrays = list[DeviceArray]
Kind = tuple[Any, ...]
KEPT = 64
"""How many kinds of calls an engine remembers, and how many backward runs of each."""


def kind_of(array: DeviceArray | None) -> Kind:
    """Return what a call's plan depends on in an array."""
    return () if array is None else (array.shape, array.strides, array.dtype.num)


@dataclass
class Taped:
    """What backward needs of a call: how it was planned, its arguments, and where all its pieces of memory are.

    memory: what keeps those that backward reads.
    """

    recipe: Recipe
    arrays: Arrays
    pieces: list[int]
    memory: list[Any]
    stream: int

    @property
    def special(self) -> Specialised:
        return self.recipe.tape.special

    @property
    def outputs(self) -> Arrays:
        return self.recipe.outputs

    @property
    def finals(self) -> Arrays:
        return self.recipe.finals


@dataclass
class Recipe:
    """Forward runs of a kind. Pieces of memory: arguments, the mask, outputs, final states, what is kept.

    tape: what backward has to know, with addresses that are pieces. kept: bytes.
    """

    tape: Tape
    script: Script
    outputs: Arrays
    finals: Arrays
    kept: int
    backward: dict[Kind, BackwardRecipe] = field(default_factory=dict)

    def run(self, engine: CudaEngine, arrays: Arrays, stream: int) -> tuple[Arrays, Arrays, Taped]:
        """Do it for some arguments, the mask last; return outputs, final states, and what backward needs."""
        outputs, finals = ([engine.new(a.shape, a.dtype, stream) for a in own] for own in (self.outputs, self.finals))
        kept = engine.allocate(max(1, self.kept), stream)
        given = [*(a.address for a in (*arrays, *outputs, *finals)), kept.address]
        head, own = self.script.run(engine.device, engine.allocate, stream, given)
        engine.done(head, self.script, stream)
        pieces = given + [0 if memory is None else memory.address for memory in own]
        return outputs, finals, Taped(self, arrays, pieces, [kept, *own], stream)

    def run_back(
        self, engine: CudaEngine, taped: Taped, d: Sequence[DeviceArray | None], stream: int
    ) -> list[list[DeviceArray | None]]:  # fmt: skip
        """Walk the steps back. d: gradients of outputs and final states. Return those of all arguments."""
        key = (stream, *map(kind_of, d))
        own = remembered(
            self.backward, key, lambda: planned_back(engine, self, len(taped.pieces), d, stream), KEPT
        )  # fmt: skip
        found = [
            [None if a is None else engine.new(a.shape, a.dtype, stream) for a in group] for group in own.found
        ]  # fmt: skip
        for memory in (*taped.memory, *(a.owner for a in taped.arrays)):
            engine.device.lend(memory, stream)
        flowing = [a for a in (*d, *(a for group in found for a in group)) if a is not None]
        given = [*taped.pieces, *(a.address for a in flowing)]
        head, _ = own.script.run(engine.device, engine.allocate, stream, given)
        engine.done(head, own.script, stream)
        return found


@dataclass
class BackwardRecipe:
    """Backward runs of a kind. Pieces: those of the forward run, gradients that flow in, gradients that are answered.

    found: the gradients, None for what has none.
    """

    script: Script
    found: list[list[DeviceArray | None]]


def planned(
    engine: CudaEngine, given: Groups, mask: DeviceArray | None, sizes: tuple[int, int, Any], taped: bool,
    special: Specialised, choice: Choice, stream: int,
) -> Recipe:  # fmt: skip
    """Plan forward runs. sizes: steps, samples, and shapes and kinds of outputs."""
    length, batch, specs = sizes
    shapes = [((batch, length, *shape[1:]), special.dtype_of(kind)) for shape, kind in specs]
    states = zip(given[2], engine.recurrence.graph.states)
    shapes_of_states = [(a.shape, special.dtype_of(state.dtype)) for a, state in states]
    arguments = sum(map(len, given)) + (mask is not None)
    script = Script(arguments + len(shapes) + len(shapes_of_states) + 1)
    rows, places = Rows(engine, script, special, stream), count()
    groups = [[_piece(a, places) for a in group] for group in given]
    own_mask = None if mask is None else _piece(mask, places)
    outputs, finals = ([_new(shape, d, places) for shape, d in group] for group in (shapes, shapes_of_states))
    tape = begin(engine, rows, groups, own_mask, choice)
    tape.outputs, tape.kept = outputs, Piece(Address(next(places)))
    plan = engine.plan(tape, "forward" if taped else "inference", batch, length)
    forward_pass(engine, rows, tape, plan, finals)
    return Recipe(tape, script, outputs, finals, plan.tape)


def planned_back(
    engine: CudaEngine, recipe: Recipe, pieces: int, d: Sequence[DeviceArray | None], stream: int
) -> BackwardRecipe:
    """Plan backward runs. pieces: how many forward runs have."""
    tape, places = recipe.tape, count(pieces)
    leaves = list(zip(tape.shapes(), leaves_of(engine)))
    answered = [[leaf.dtype == "float" for leaf in group] for _, group in leaves]
    script = Script(pieces + sum(a is not None for a in d) + sum(map(sum, answered)))
    rows = Rows(engine, script, tape.special, stream)
    values = [*tape.outputs, *tape.finals]
    flowing = [rows.flowing(a if a is None else _piece(a, places), value) for a, value in zip(d, values)]
    found = [
        [_new(shape, tape.special.dtype, places) if leaf.dtype == "float" else None for shape, leaf in zip(*pair)]
        for pair in leaves
    ]
    batch, length = tape.outputs[0].shape[:2]
    plan, count_of_outputs = engine.plan(tape, "backward", batch, length), len(tape.outputs)
    backward_pass(engine, rows, tape, plan, flowing[:count_of_outputs], flowing[count_of_outputs:], found)
    return BackwardRecipe(script, found)


def _piece(array: DeviceArray, places: Iterator[int]) -> DeviceArray:
    """Return an array of a call as a piece of memory."""
    return DeviceArray(Address(next(places)), array.shape, array.dtype, None, None, array.strides)


def _new(shape: tuple[int, ...], dtype: np.dtype[Any], places: Iterator[int]) -> DeviceArray:
    return DeviceArray(Address(next(places)), shape, dtype, None, None)
