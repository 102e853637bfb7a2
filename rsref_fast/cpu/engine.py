"""The engine: packs a call's arrays, hands memory to the kernels, and answers as the reference engine does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np

from rsref.engine import Gradients
from rsref.handed import check_arrays, checked_gradients, full_name
from rsref.recurrence import Recurrence
from rsref_fast.compiling import Compiling, shapes_of
from rsref_fast.cpu import memory
from rsref_fast.cpu.call import Call, Way
from rsref_fast.cpu.explain import machinery
from rsref_fast.cpu.frozen import Frozen
from rsref_fast.cpu.gradients import Maker, Makers, makers_of
from rsref_fast.cpu.kernels import Kernels
from rsref_fast.cpu.masks_plain import gathered_back, of_stepped
from rsref_fast.cpu.memory import Arena, lie_time_first, swapped
from rsref_fast.cpu.parted import PartedEngine, PartedTape
from rsref_fast.cpu.plan import Plan
from rsref_fast.cpu.specialised import REMEMBERED, Specialised, is_plain
from rsref_fast.cpu.splitting import Split, split_of
from rsref_fast.cpu.stepwise import step_by_step, steps_back
from rsref_fast.cpu.stream import Stream
from rsref_fast.cpu.tape import Tape, run_once, run_untaped
from rsref_fast.explain import explain
from rsref_fast.packing import whole_batch, with_room
from rsref_fast.program import Compiled
from rsref_fast.prologue import parted
from rsref_fast.remembered import remembered
from rsref_fast.threads import get_num_threads

Array = np.ndarray
LAYOUT = attrgetter("__class__", "dtype", "shape", "strides")
SINGLE = np.dtype(np.float32)
NOTHING = np.zeros(64, np.uint8)
"""Stands for gradients that there are not, and is not touched."""


@dataclass
class Known:
    """What the shapes, dtypes and strides of a call's arrays say.

    outputs: the shape and kind of each, for one step. time_first: whether sequences lie so. plain: whether kernels can
    read all as they are, or sequences with the time first. special: the step compiled for them, once it was needed.
    way: how calls without a mask are run, once one was.
    """

    length: int
    batch: int
    dtype: np.dtype[Any]
    outputs: Sequence[tuple[tuple[int, ...], str]]
    plain: bool
    time_first: bool
    special: Specialised | None = None
    way: Way | None = None


class FastEngine(Compiling[PartedEngine]):
    """Runs a recurrence with kernels generated for it; see `rsref.engine.Engine` for the contract.

    kernels: what makes functions of generated source. threads: how many compute; None for
    `rsref_fast.get_num_threads()` at each call, fewer where there is too little to do for several.
    split: among how many shards and threads for each, if that is not to be chosen by the sizes of each call.
    least: in which floats are computed at least, see `ReferenceEngine`.
    kinds: the kinds of numbers of sequences, constants, states and parameters. bools: which outputs and states are so.
    Errors: NotImplementedError for a step that cannot be compiled; TypeError for arrays of numbers that kernels do not
    compute with; all others as those of the reference engine.
    """

    checkpoints = False
    """Whether a tape keeps the states of a few steps only."""

    def __init__(self, recurrence: Recurrence, kernels: type[Kernels], threads: int | None = None):
        super().__init__(recurrence, **dict.fromkeys(("phases", "biases", "joints"), kernels.target.pieces))
        self.kernels = kernels
        self.threads = threads
        self.split: Split | None = None
        self.least = SINGLE
        self._checked: dict[Any, Known] = {}
        self.kinds = [[leaf.dtype for leaf in leaves] for leaves in self.reference.leaves]
        self.bools = [
            [t.dtype == "bool" for t in group] for group in (recurrence.graph.outputs, recurrence.graph.states)
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.recurrence, self.kernels, self.threads)  # machine code stays where it is

    @cached_property
    def parted(self) -> PartedEngine | None:
        """Two engines, if what depends on no step is worth going back through, or streaming after it, once only."""
        parts = None if self.picks else parted(self.recurrence.graph)
        if parts is None:
            return None
        whole = Recurrence(parts.first), replace(self.recurrence, graph=parts.step)
        first, step = whole
        return PartedEngine(
            parts, FastEngine(first, self.kernels, self.threads), type(self)(step, self.kernels, self.threads)
        )

    def split_parts(self, parted: PartedEngine) -> PartedEngine:
        """Return the two engines, which heed how this one's calls are to be split."""
        parted.first.split = parted.step.split = self.split
        parted.step.least = self.least
        return parted

    # --- compiling ------------------------------------------------------------------------------------------------

    def special_of(self, compiled: Compiled, dtype: np.dtype[Any], batch: int | None = None) -> Specialised:
        return Specialised(self.recurrence, compiled, dtype, self.kernels, self.kernels.panel_width(dtype), batch)

    def one_step(self) -> FastEngine:
        """Return an engine for single steps of the same recurrence, with the same compiled code and threads."""
        one = self._single
        one.threads, one.split, one.least = self.threads, self.split, self.least
        return one

    @cached_property
    def _single(self) -> FastEngine:
        one = FastEngine(Recurrence(self.recurrence.graph), self.kernels)
        one._special = self._special
        return one

    def stream(
        self, constants: Sequence[Array], states: Sequence[Array], parameters: Sequence[Array], batch: int = 1
    ) -> Stream:
        """Return what runs the recurrence one step at a time; see `Stream`."""
        return Stream(self, constants, states, parameters, batch)

    def freeze(self, parameters: Sequence[Array]) -> Frozen:
        """Return what runs the recurrence forward with the same parameters each time; see `Frozen`."""
        return Frozen(self, parameters)

    def explain(self) -> str:
        """Return what was hoisted, sunk, merged and fused, memory and arithmetic, for each compiled set of shapes.

        Errors: ValueError if nothing is compiled yet and the step leaves inner lengths open.
        """
        texts = []
        for title, engine in self.known():
            for key, s in engine.compiled().items():
                shapes = ", ".join(str(shape) for shape in key[1:]) or "no inputs"
                head = f"{title}{s.dtype.name}, {shapes}; {self.threads or get_num_threads()} threads"
                texts.append(f"{head}\n{explain(s.compiled, s.dtype.itemsize)}\n{machinery(s, self.threads)}")
        return "\n\n".join(texts)

    # --- forward --------------------------------------------------------------------------------------------------

    def forward(
        self,
        sequences: Sequence[Array],
        constants: Sequence[Array],
        states: Sequence[Array],
        parameters: Sequence[Array],
        mask: Array | None = None,
        steps: int | None = None,
        taped: bool = True,
    ) -> tuple[list[Array], list[Array], Any]:
        """Run the loop; see `Engine`."""
        groups = sequences, constants, states, parameters
        return self.run_known(self.known_of(groups, mask, steps, self.least), groups, mask, steps, taped)

    def run_known(
        self,
        known: Known,
        groups: Sequence[Sequence[Array]],
        mask: Array | None,
        steps: int | None,
        taped: bool,
        run: Callable[[Plan, Sequence[Array]], None] = run_untaped,
    ) -> tuple[list[Array], list[Array], Any]:
        """Run the loop on sequences, constants, states and parameters that say what is known. run: as in `Tape`."""
        sequences, constants, states, parameters = groups
        length, batch, dtype = known.length, known.batch, known.dtype
        mask = None if mask is None or mask.all() else np.asarray(mask, bool)
        if constants and (mask is not None or not length):
            constants = of_stepped(constants, np.zeros((batch, 0), bool) if mask is None else mask)
        if taped and self.parted is not None:
            return self.split_parts(self.parted).forward(sequences, constants, states, parameters, mask, steps, dtype)
        special = known.special or self.specialised_for(groups, known)
        as_given = mask is None and known.time_first
        turned = as_given or (special.whole and mask is None)
        given = [swapped(a) for a in sequences] if turned else [*sequences]
        arguments = [given, [*constants], [*states], [*parameters]]
        if not known.plain or turned is not known.time_first:
            arguments = special.plain_groups(arguments, self.kinds)
        held = None if mask is None or self.recurrence.zero_output_for_mask else self.kernels.masks.held_by(mask)
        if mask is not None:
            valid = int(mask.sum())
            every = held is not None and valid + len(held.masked) == mask.size
            makers = _answers(known, special, turned, np.empty if every else np.zeros)
            split, way = split_of(self.split, self.threads, special, batch, valid), None
        else:
            way = self._way(known, special, turned)
            makers, split = way.outputs, way.split
        outputs = [make() for make in makers]
        tape = Tape(special, arguments, mask, outputs, split, batch, length, turned, as_given, run=run, way=way)
        finals = self._walk(tape, taped)
        if turned:
            tape.outputs = [_turned_back(y, as_given) for y in outputs]
        if held is not None:
            tape.held = held
            for y in outputs:
                self.kernels.masks.hold(y, held)
        outputs = _as_bools(tape.outputs, self.bools[0])
        return outputs, _as_bools(finals, self.bools[1]), tape if taped else None

    def specialised_for(self, groups: Sequence[Sequence[Array]], known: Known) -> Specialised:
        """Return the step compiled for the arrays of a call."""
        if known.special is None:
            known.special = self.specialised(shapes_of(*groups[:3]), known.dtype)
        return known.special

    def _way(self, known: Known, special: Specialised, turned: bool) -> Way:
        """Return how a call without a mask is run."""
        asked = self.split, self.threads, self.threads or get_num_threads()
        way = known.way
        if way is None or way.asked != asked:
            split = split_of(self.split, self.threads, special, known.batch, known.batch * known.length)
            way = known.way = Way(asked, split, _answers(known, special, turned))
        return way

    def known_of(
        self,
        groups: Sequence[Sequence[Array]],
        mask: Array | None,
        steps: int | None,
        least: np.dtype[Any] = SINGLE,
    ) -> Known:
        """Return what the arrays of a call say, checked once for each way in which they lie. Errors: as `Engine`.

        least: in which floats are computed at least.
        """
        sequences, constants, states, parameters = groups
        try:
            every = map(LAYOUT, (*sequences, *constants, *states, *parameters))
            shape = None if mask is None else mask.shape
            key = steps, shape, least, len(sequences), len(constants), len(states), *every
        except (AttributeError, TypeError):
            check_arrays(groups, mask)
            raise
        return remembered(self._checked, key, lambda: self._known_anew(groups, mask, steps, least), REMEMBERED)

    def _known_anew(
        self, groups: Sequence[Sequence[Array]], mask: Array | None, steps: int | None, least: np.dtype[Any]
    ) -> Known:
        check_arrays(groups, mask)
        sequences, constants, states, parameters = groups
        length = self.reference.length(sequences, steps)
        batch = next((len(a) for a in (*sequences, *constants, *states)), 1)
        outputs = self.reference.check(sequences, constants, states, parameters, mask, length, batch)
        dtype, time_first = self.precision_of(groups, least), lie_time_first(sequences)
        lie = [map(swapped, sequences) if time_first else sequences, constants, states, parameters]
        plain = [is_plain(a, kind, dtype) for arrays, kinds in zip(lie, self.kinds) for a, kind in zip(arrays, kinds)]
        return Known(length, batch, dtype, outputs, all(plain), time_first)

    def precision_of(self, groups: Sequence[Sequence[Array]], least: np.dtype[Any] = SINGLE) -> np.dtype[Any]:
        """Return the dtype in which floats are computed. Errors: TypeError for numbers that kernels do not take."""
        every = [a.dtype for group in groups for a in group]
        for dtype in every:
            if dtype.kind not in "fiub" or dtype.itemsize > 8:
                other = "use the reference engine" if dtype.kind in "fc" else "convert the array"
                raise TypeError(f"kernels compute with float32 or float64; got {dtype}: {other}")
        self.reference.check_kinds(groups)
        return np.result_type(least, *(dtype for dtype in every if dtype.kind == "f"))

    def _walk(self, tape: Tape, taped: bool) -> list[Array]:
        """Run all steps and return the final states."""
        return self._run_forward(tape, taped)

    def _run_forward(self, tape: Tape, taped: bool) -> list[Array]:
        """Run the tape's steps and return the states after them."""
        if tape.mask is not None and tape.special.compiled.mixes:
            return step_by_step(self, tape, taped)
        call = tape.call = self._laid_out(tape)
        finals = [np.empty_like(s) for s in tape.arguments[2]]
        arrays = *tape.given(), *tape.outputs, *finals
        if taped:
            tape.kept = Arena(call.forward.tape)
            run_once(call.forward, (*arrays, tape.kept.bytes))
        else:
            tape.run(call.inference, arrays)
        return finals if tape.packed is None else [restored(s, tape.packed.order) for s in finals]

    def _laid_out(self, tape: Tape) -> Call:
        """Return how the steps of a tape are run."""
        if tape.way is None:
            return self._laid_out_anew(tape)
        if tape.way.call is None:
            tape.way.call = self._laid_out_anew(tape)
        return tape.way.call

    def _laid_out_anew(self, tape: Tape) -> Call:
        special, split, truncate = tape.special, tape.split, self.recurrence.truncate
        if tape.mask is None:
            sizes = (special.samples(tape.batch), tape.length, split.shards, truncate, tape.stretch, tape.turned)
            return special.call(whole_batch, sizes, split)
        rows = tape.packed = self.kernels.masks.packed(tape.mask, split.shards, truncate, tape.stretch)
        room = (tape.batch, tape.length, split.shards, rows.steps, rows.rows)
        return special.call(with_room, room, split, tabled=True, zeroed=True)

    # --- backward -------------------------------------------------------------------------------------------------

    def backward(self, tape: Any, d_outputs: Sequence[Array | None], d_states: Sequence[Array | None]) -> Gradients:
        """Walk the steps from the last to the first; see `Engine`."""
        if isinstance(tape, PartedTape) and self.parted is not None:
            return self.parted.backward(tape, d_outputs, d_states)
        if not isinstance(tape, Tape):
            raise TypeError(f"backward takes the tape that forward answered; got {full_name(tape)}")
        self.check_tape(tape)
        if bool(tape.parts) is not self.checkpoints:
            other = f"that of an engine {'with' if tape.parts else 'without'} checkpoint=True"
            raise TypeError(f"backward takes the tape that forward answered; got {other}")
        special = tape.special
        d_outputs = checked_gradients("output", d_outputs, tape.outputs, special.dtype)
        special.compiled.derivative.check(d_outputs)
        d_states = checked_gradients("final state", d_states, tape.arguments[2], special.dtype)
        held, nothing = tape.held, self.kernels.masks.nothing
        if held is not None:
            d_outputs = [d if d is None or nothing(d, held) else gathered_back(d, held) for d in d_outputs]
        outputs = [swapped(y) for y in tape.outputs] if tape.turned else tape.outputs
        if tape.turned:
            d_outputs = [None if d is None else swapped(d) for d in d_outputs]
        found = self._walk_back(tape, _filled(d_outputs, outputs), _filled(d_states, tape.arguments[2]))
        if tape.turned:
            found.sequences = [None if d is None else _turned_back(d, tape.as_given) for d in found.sequences]
        return found

    def _walk_back(self, tape: Tape, d_outputs: list[Array], d_states: list[Array]) -> Gradients:
        """Return the gradients of all steps."""
        return self._run_backward(tape, d_outputs, d_states)

    def _run_backward(
        self,
        tape: Tape,
        d_outputs: list[Array],
        d_states: list[Array],
        d_sequences: list[Array | None] | None = None,
    ) -> Gradients:
        """Return the gradients of the tape's steps; those of sequences are written to arrays of all steps."""
        makers, call = self._makers(tape), tape.call
        own = makers.new(d_sequences)
        if call is None:
            return steps_back(self, tape, d_outputs, d_states, makers.grouped(own))
        rows = tape.packed
        if rows is not None:
            d_states = [d[rows.order] for d in d_states]
            for d in d_states:
                d[rows.cut_end] = 0
        assert tape.kept is not None
        gradients = [NOTHING if d is None else d for d in own]
        run_once(call.backward, (*tape.given(), tape.kept.bytes, *d_outputs, *d_states, *gradients, NOTHING))
        found = makers.grouped(own)
        if rows is not None:
            for group in (found.constants, found.states):
                group[:] = [None if d is None else restored(d, rows.order) for d in group]
        return found

    def _makers(self, tape: Tape) -> Makers:
        """Return what makes arrays for the gradients of a tape's arguments."""
        if tape.call is None:  # steps' own gradients are added to them
            return makers_of(tape.special, tape.arguments, np.zeros, np.zeros)
        if tape.mask is not None:
            return makers_of(tape.special, tape.arguments, for_sequences=np.zeros)
        if tape.call.gradients is None:
            tape.call.gradients = makers_of(tape.special, tape.arguments)
        return tape.call.gradients


def _answers(known: Known, special: Specialised, turned: bool, make: Callable[..., Array] = np.empty) -> list[Maker]:
    """Return what makes arrays for the outputs of a call. turned: as in `Tape`. make: of a shape and dtype."""
    sizes = (known.length, known.batch) if turned else (known.batch, known.length)
    return [memory.maker((*sizes, *shape[1:]), special.dtype_of(kind), make) for shape, kind in known.outputs]


def _as_bools(arrays: list[Array], bools: list[bool]) -> list[Array]:
    """Return arrays as callers know them: kernels have bytes for bools."""
    return [a.astype(bool) if b else a for a, b in zip(arrays, bools)] if True in bools else [*arrays]


def _filled(gradients: Sequence[Array | None], values: Sequence[Array]) -> list[Array]:
    """Return gradients of values as kernels read them: zeros for None."""
    return [
        np.zeros(a.shape, a.dtype) if d is None else d if d.flags.c_contiguous else d.copy()
        for d, a in zip(gradients, values)
    ]


def _turned_back(values: Array, as_given: bool) -> Array:
    """Return what kernels have (time, batch, ...) as callers know it. as_given: as in `Tape`."""
    return swapped(values) if as_given else np.ascontiguousarray(swapped(values))


def restored(values: Array, order: Array) -> Array:
    """Return rows that shards had in another order as the batch has them."""
    found = np.empty_like(values)
    found[order] = values
    return found
