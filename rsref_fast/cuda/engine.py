"""The engine for arrays on a GPU: plans a call, and hands it to the device in a stream's order, waiting for nothing.

All arrays are the caller's own, in place; a mask on the device is made into packed rows there.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from rsref.engine import Gradients
from rsref.recurrence import Recurrence
from rsref_fast.compiling import Compiling, shapes_of
from rsref_fast.cpu.plan import Plan
from rsref_fast.cpu.specialised import Specialised
from rsref_fast.cpu.splitting import Split
from rsref_fast.cuda.arrays import DeviceArray, device_array, gradients_of
from rsref_fast.cuda.choice import Choice
from rsref_fast.cuda.deciding import check_sizes, decided
from rsref_fast.cuda.driver import Device
from rsref_fast.cuda.graphs import Graphs
from rsref_fast.cuda.inspection import BATCHES
from rsref_fast.cuda.kernels import Helpers, on
from rsref_fast.cuda.masks import Rows
from rsref_fast.cuda.options import check_library, check_options, lacking
from rsref_fast.cuda.parted import PartedEngine, PartedTape
from rsref_fast.cuda.passes import Groups, Tape, leaves_of
from rsref_fast.cuda.recipes import KEPT, Recipe, Taped, kind_of, planned
from rsref_fast.cuda.script import Script
from rsref_fast.cuda.shares import lines
from rsref_fast.cuda.stepwise import StepTape, step_by_step, steps_back
from rsref_fast.cuda.target import CUDA, OWNED
from rsref_fast.cuda.tile import Tile, tile_for
from rsref_fast.cuda.unchecked import Unchecked
from rsref_fast.explain import explain
from rsref_fast.packing import most_rows, whole_batch
from rsref_fast.program import Compiled
from rsref_fast.prologue import parted
from rsref_fast.remembered import remembered

Array = np.ndarray
Answer = tuple[list[DeviceArray], list[DeviceArray], Any]
"""Outputs, final states, and the tape: a `Taped`, a `StepTape`, a `PartedTape`, or None."""

KNOWN = 256
"""Calls about which what was found out is remembered."""


class CudaEngine(Compiling[PartedEngine]):
    """Runs a recurrence on a GPU; see `rsref.engine.Engine`, with device arrays in place of NumPy's.

    device: where. strategy: "persistent" (the whole sequence in one launch), "alternating" (a launch for each unit of
    each step), or "auto" for what suits the sizes. products: who computes matrix products that are launches of their
    own: "cublas", which leaves only "alternating", "tiles", or "auto" for who is reckoned to take less. tile: how a
    block of threads computes its own products; None for what suits the GPU.
    allocate: what gives memory (bytes, stream), an object with an `address`, which is held as long as it is needed;
    None for the driver's own pool.
    An index that is out of range is found out by `check_indices`, which waits; until then the first entry is used.
    Threads may call it at once: what they ask for is put into their streams one call after the other.
    """

    on_device = True

    def __init__(
        self, recurrence: Recurrence, device: Device, strategy: str = "auto", tile: Tile | None = None,
        products: str = "auto", **sizes: int,
    ):  # fmt: skip
        check_options(strategy, products)
        check_library(device, products)
        super().__init__(recurrence, blocks=False, phases=False, biases=False, joints=False)
        self.device = device
        self.strategy = strategy
        self.tile = tile = tile or tile_for(device.capability)
        self.products = products
        self.kernels = on(device, tile, CUDA, **sizes)
        self.holding = on(device, tile, OWNED, **sizes)
        """Kernels of programs in whose time loop each block has a part of its own."""
        self.allocate: Callable[[int, int], Any] = device.allocate
        self.choice: Choice | None = None
        """How calls are spread over the device, if that is not to be chosen by their sizes."""
        self.graphs = Graphs()
        self._owned: dict[int, tuple[Specialised, Specialised]] = {}
        """By identity, so the first one, whose identity it is, is kept."""
        self._known_of: dict[Any, Any] = {}
        """What was found out about calls, by all that it depends on: checks of shapes, choices, sizes of plans."""
        self._recipes: dict[Any, Recipe] = {}
        self._of_steps: dict[Any, Recipe] = {}
        """How calls are done, by kind; and calls of single steps."""
        self._helpers: dict[str, Helpers] = {}
        self.gathers = any(t.op_name == "take" for t in recurrence.graph.order)
        self._unchecked = Unchecked()
        self._lock = threading.RLock()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One call at a time: a graph's words are written and read by two calls of the driver."""
        with self._lock, self.device.bound():
            yield

    @property
    def parted(self) -> PartedEngine | None:
        """Two engines for training, if what depends on no step is worth going back through once only."""
        if self._parts is not None:
            self._lend(self._parts.first)
            self._lend(self._parts.step)
        return self._parts

    @cached_property
    def _parts(self) -> PartedEngine | None:
        parts = None if self.picks else parted(self.recurrence.graph)
        if parts is None:
            return None
        first, step = (
            CudaEngine(own, self.device, self.strategy, self.tile, self.products)
            for own in (Recurrence(parts.first), replace(self.recurrence, graph=parts.step))
        )
        return PartedEngine(parts, first, step)

    def one_step(self) -> CudaEngine:
        """Return an engine for single steps of the same recurrence, with the same compiled code."""
        one = CudaEngine(Recurrence(self.recurrence.graph), self.device, self.strategy, self.tile, self.products)
        one._special, one._owned, one._recipes = self._special, self._owned, self._of_steps
        self._lend(one)
        return one

    def _lend(self, other: CudaEngine) -> None:
        """Let another engine have what is this one's, but for what is compiled."""
        other.kernels, other.holding, other.strategy, other.choice = (
            self.kernels, self.holding, self.strategy, self.choice
        )  # fmt: skip
        other.products = self.products
        other.allocate, other.graphs, other._lock = self.allocate, self.graphs, self._lock
        other._helpers, other._unchecked = self._helpers, self._unchecked

    # --- compiling ------------------------------------------------------------------------------------------------

    def of_team(self, special: Specialised, choice: Choice) -> Specialised:
        """Return the same step with the programs of those who share it."""
        if choice.team != "units":
            return special
        if id(special) not in self._owned:
            self._owned[id(special)] = special, replace(special, kernels=self.holding, framed={}, calls={})
        return self._owned[id(special)][1]

    def special_of(self, compiled: Compiled, dtype: np.dtype[Any], batch: int | None = None) -> Specialised:
        return Specialised(self.recurrence, compiled, dtype, self.kernels, self.kernels.panel_width(dtype), batch)

    def helpers(self, dtype: np.dtype[Any]) -> Helpers:
        if dtype.name not in self._helpers:
            self._helpers[dtype.name] = Helpers(self.device, dtype, self.tile)
        return self._helpers[dtype.name]

    def explain(self) -> str:
        """Return what was hoisted, sunk, merged and fused, and how calls of some sizes are spread over the device.

        `rsref_fast.cuda.inspect` tells registers, shared memory and PTX as well.
        Errors: ValueError if nothing is compiled yet and the step leaves inner lengths open.
        """
        texts = []
        for title, engine in self.known():
            for one in engine.compiled().values():
                sources = {"forward": one.forward.text, "backward": one.backward.text}
                found = [f"{title}{one.dtype.name}, {self.device.limits.multiprocessors} multiprocessors"]
                found.append(explain(one.compiled, one.dtype.itemsize))
                if self.products == "auto" and self.lacking:
                    found.append(f"products: our tiles, for {self.lacking}")
                for n in BATCHES if one.batch is None else [one.batch]:
                    samples = one.samples(n)
                    choice = self.chosen(one, samples)
                    found.append(f"a batch of {n}: {choice}")
                    rows = one.block_rows(one.forward, samples)
                    found += lines(sources, samples, choice, self.tile, one.compiled.mixes, rows)
                texts.append("\n".join(found))
        return "\n\n".join(texts)

    # --- forward --------------------------------------------------------------------------------------------------

    def forward(
        self,
        sequences: Sequence[Any],
        constants: Sequence[Any],
        states: Sequence[Any],
        parameters: Sequence[Any],
        mask: Any = None,
        steps: int | None = None,
        taped: bool = True,
        stream: int = 0,
    ) -> Answer:
        """Run the loop; see `Engine`. stream: the driver's handle of the one in whose order it is to be done."""
        groups = (sequences, constants, states, parameters)
        with self.alone():
            given = [
                [device_array(a, f"{name} {i}", self.device, stream) for i, a in enumerate(group)]
                for name, group in zip(("sequence", "constant", "state", "parameter"), groups)
            ]
            own_mask = None if mask is None else device_array(mask, "mask", self.device, stream)
            floating = [a.dtype for group in given for a in group if a.dtype.kind == "f"]
            dtype = np.result_type(np.float32, *floating)
            if taped and self.parted is not None:
                self._checked(given, own_mask, steps)
                return self.parted.forward(given, own_mask, steps, dtype, stream)
            return self.run(given, own_mask, steps, taped, dtype, stream)

    def _checked(self, given: Groups, mask: DeviceArray | None, steps: int | None) -> tuple[int, int, Any]:
        """Return the steps, the samples, and shapes and kinds of outputs. Errors: as `ReferenceEngine.check`."""
        key = (
            tuple(tuple((a.shape, a.dtype) for a in group) for group in given),
            None if mask is None else mask.shape,
            steps,
        )
        return self._once(key, lambda: self._check(given, mask, steps))

    def _once(self, key: Any, find: Callable[[], Any]) -> Any:
        """Return what is found out about calls of a kind, once."""
        return remembered(self._known_of, key, find, KNOWN)

    def _check(self, given: Groups, mask: DeviceArray | None, steps: int | None) -> tuple[int, int, Any]:
        length = self.reference.length(given[0], steps)  # type: ignore[arg-type]
        batch = next((a.shape[0] for group in given[:3] for a in group), 1)
        likes = [[np.broadcast_to(np.zeros((), a.dtype), a.shape) for a in group] for group in given]
        self.reference.check_kinds(likes)
        like = None if mask is None else np.broadcast_to(np.zeros((), bool), mask.shape)
        return length, batch, self.reference.check(likes[0], likes[1], likes[2], likes[3], like, length, batch)

    def run(
        self, given: Groups, own_mask: DeviceArray | None, steps: int | None, taped: bool, dtype: np.dtype[Any],
        stream: int,
    ) -> Answer:  # fmt: skip
        """Run the loop with the whole step. dtype: in which floats are computed."""
        if own_mask is not None and (special := self._special_for(given, dtype)).compiled.mixes:
            return self._mixed(given, own_mask, steps, taped, special, stream)
        key = (
            taped, steps, dtype.num, stream, self.strategy, self.products, self.choice, kind_of(own_mask),
            *(tuple(map(kind_of, group)) for group in given),
        )  # fmt: skip
        recipe = remembered(
            self._recipes, key, lambda: self._planned(given, own_mask, steps, taped, dtype, stream), KEPT
        )  # fmt: skip
        arrays = [a for group in (*given, [] if own_mask is None else [own_mask]) for a in group]
        outputs, finals, tape = recipe.run(self, arrays, stream)
        return (*self._answers(outputs, finals), tape if taped else None)

    def _planned(
        self, given: Groups, own_mask: DeviceArray | None, steps: int | None, taped: bool, dtype: np.dtype[Any],
        stream: int,
    ) -> Recipe:  # fmt: skip
        """Plan calls of a kind."""
        sizes, special = self._checked(given, own_mask, steps), self._special_for(given, dtype)
        choice = self.choice or self.chosen(special, special.samples(sizes[1]), own_mask is not None, taped)
        return planned(self, given, own_mask, sizes, taped, self.of_team(special, choice), choice, stream)

    def _special_for(self, given: Groups, dtype: np.dtype[Any]) -> Specialised:
        return self.specialised(shapes_of(*given[:3]), dtype)

    def _mixed(
        self, given: Groups, mask: DeviceArray, steps: int | None, taped: bool, special: Specialised, stream: int
    ) -> Answer:
        """Run a step that mixes samples with a mask."""
        length, batch, specs = self._checked(given, mask, steps)
        rows = Rows(self, Script(), special, stream, self.allocate)
        outputs = [rows.new((batch, length, *s[1:]), special.dtype_of(kind)) for s, kind in specs]
        arguments = [[rows.plain(a, t.dtype) for a, t in zip(*pair)] for pair in zip(given, leaves_of(self))]
        for y in outputs:
            rows.script.fill(y.address, y.nbytes)
        mask = rows.plain(mask, "bool")
        rows.finish(self.allocate)
        _, finals, tape = step_by_step(self, special, arguments, outputs, mask, taped, stream)
        if not self.recurrence.zero_output_for_mask:
            rows = Rows(self, Script(), special, stream)
            for y in outputs:
                rows.held(y, mask)
            rows.finish(self.allocate)
        return (*self._answers(outputs, finals), tape)

    def array(self, memory: Any, shape: tuple[int, ...], dtype: np.dtype[Any], stream: int) -> DeviceArray:
        """Return an array in some memory."""
        place = (self.device.dlpack_kind, self.device.number)
        return DeviceArray(memory.address, shape, dtype, memory, stream, None, place, self.device)

    def new(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: int) -> DeviceArray:
        """Return an array with nothing in it."""
        return self.array(self.allocate(max(1, math.prod(shape) * dtype.itemsize), stream), shape, dtype, stream)

    def _answers(
        self, outputs: list[DeviceArray], states: list[DeviceArray]
    ) -> tuple[list[DeviceArray], list[DeviceArray]]:  # fmt: skip
        graph = self.recurrence.graph
        return (
            [_as_bools(y, t.dtype) for y, t in zip(outputs, graph.outputs)],
            [_as_bools(s, t.dtype) for s, t in zip(states, graph.states)],
        )

    def chosen(self, special: Specialised, batch: int, masked: bool = False, taped: bool = True) -> Choice:
        """Return how calls of some samples are spread over the device.

        masked: whether a mask says of how many rows. taped: whether backward will follow.
        """
        key = id(special), batch, masked, taped, self.strategy, self.products
        found: Choice = self._once(key, lambda: (decided(self, special, batch, masked, taped), special))[0]
        return found  # and the step is kept as long as its identity stands for it

    @cached_property
    def lacking(self) -> str:
        """Why cuBLAS is not there; nothing if it is. It is loaded where it would be used, not before."""
        return lacking(self.device)

    # --- backward -------------------------------------------------------------------------------------------------

    def backward(
        self, tape: Taped | StepTape | PartedTape, d_outputs: Sequence[Any], d_states: Sequence[Any],
        stream: int | None = None,
    ) -> Gradients:  # fmt: skip
        """Walk the steps from the last to the first; see `Engine`. stream: None for that of the forward run."""
        stream = tape.stream if stream is None else stream
        with self.alone():
            self.device.follow(stream, tape.stream)
            if not isinstance(tape, PartedTape):
                self.check_tape(tape)
                return self.run_back(tape, d_outputs, d_states, stream)
            assert self.parted is not None
            return self.parted.backward(tape, d_outputs, d_states, stream)

    def run_back(
        self, tape: Taped | StepTape, d_outputs: Sequence[Any], d_states: Sequence[Any], stream: int
    ) -> Gradients:
        """Walk the steps of a tape of `run`."""
        tape.special.compiled.derivative.check(d_outputs)
        given = gradients_of("output", d_outputs, tape.outputs, self.device, stream)
        ends = gradients_of("final state", d_states, tape.finals, self.device, stream)
        if isinstance(tape, Taped):
            return Gradients(*tape.recipe.run_back(self, tape, [*given, *ends], stream))  # type: ignore[arg-type]
        rows = Rows(self, Script(), tape.special, stream, self.allocate)
        flowing = [rows.flowing(d, y) for d, y in zip(given, tape.outputs)]
        last = [rows.flowing(d, s) for d, s in zip(ends, tape.finals)]
        if not self.recurrence.zero_output_for_mask:
            flowing = [rows.collected(d, tape.mask) for d in flowing]
        rows.finish(self.allocate)
        return steps_back(self, tape, flowing, last, stream)

    # --- running --------------------------------------------------------------------------------------------------

    def plan(self, tape: Tape, kind: str, batch: int, length: int) -> Plan:
        """Return the plan of a program for a call's sizes."""
        deal = whole_batch if tape.packed is None else most_rows
        key = (tape.special.samples(batch), length, tape.choice.shards, self.recurrence.truncate)
        plan: Plan = getattr(tape.special.call(deal, key, Split(tape.choice.shards, 1)), kind)
        most = max(plan.limit, *(shard.count for shard, _ in plan.shards))
        self._once((id(plan.kernels), most), lambda: check_sizes(plan.kernels.source, most))
        return plan

    # --- indices --------------------------------------------------------------------------------------------------

    def done(self, head: Any, script: Script, stream: int) -> None:
        """Take note of a script that was run. head: the memory of its words."""
        self._unchecked.remember(head, script, stream)

    def check_indices(self) -> None:
        """Wait for the last calls, and see whether all their indices were in range. Errors: IndexError."""
        with self.alone():
            self._unchecked.check(self.device)


def _as_bools(array: DeviceArray, kind: str) -> DeviceArray:
    if kind == "bool":
        array.dtype = np.dtype(np.bool_)
    return array
