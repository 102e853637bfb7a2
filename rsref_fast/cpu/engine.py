"""The engine: packs a call's arrays, hands memory to the kernels, and answers as the reference engine does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rsref.engine import Gradients, ReferenceEngine
from rsref.recurrence import Recurrence
from rsref.tensor import ConstantSource, Parameter, Tensor
from rsref_fast.cpu.emit import FIRST_SLOT, Memory, Source, backward_source, forward_source
from rsref_fast.cpu.kernels import Kernels
from rsref_fast.cpu.memory import Arena, Frame, frame
from rsref_fast.explain import explain, flops_a_row
from rsref_fast.lengths import sized
from rsref_fast.packing import Shard, gathered_back, held, masked_batch, whole_batch
from rsref_fast.program import Compiled, build
from rsref_fast.threads import get_num_threads
from rsref_fast.views import Space

Array = np.ndarray
DTYPES = {"int": np.dtype(np.int64), "bool": np.dtype(np.uint8)}
BLOCK_ROWS = 96
"""Rows for which sequences are projected at once: few enough to stay in the cache until they are used."""

FLOPS_A_THREAD = 1_000_000
"""Additions and multiplications below which waking a thread costs more than it gains."""

NOTHING = Shard(
    slice(0, 0), 0, np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8),
    np.zeros(0, bool),
)  # fmt: skip
"""A shard without samples, for what needs none."""


@dataclass
class Specialised:
    """A step compiled for inner shapes and a precision; each program when it is first needed."""

    compiled: Compiled
    dtype: np.dtype[Any]
    kernels: type[Kernels]
    width: int

    @cached_property
    def flops(self) -> int:
        """For one sample and step, forward."""
        return flops_a_row(self.compiled.forward)

    @cached_property
    def forward(self) -> Source:
        return forward_source(self.compiled, self.width)

    @cached_property
    def backward(self) -> Source:
        return backward_source(self.compiled, self.width)

    @cached_property
    def run_forward(self) -> Kernels:
        return self.kernels(self.forward, self.dtype)

    @cached_property
    def run_backward(self) -> Kernels:
        return self.kernels(self.backward, self.dtype)


@dataclass
class Tape:
    """What backward needs of a forward run: its arguments, and the memory that its shards filled."""

    special: Specialised
    sequences: list[Array]
    constants: list[Array]
    states: list[Array]
    parameters: list[Array]
    mask: Array | None
    outputs: list[Array]
    shards: Sequence[Shard]
    kept: list[Arena]
    pieces: list[Any]
    """Tapes of single steps, if the step mixes samples and a mask leaves some out."""


class FastEngine:
    """Runs a recurrence with kernels generated for it; see `rsref.engine.Engine` for the contract.

    kernels: what makes functions of generated source. threads: among how many shards a batch is split; None for
    `rsref_fast.get_num_threads()` at each call, fewer where there is too little to do for several.
    Errors: NotImplementedError for a step that cannot be compiled; all others as those of the reference engine.
    """

    def __init__(self, recurrence: Recurrence, kernels: type[Kernels], threads: int | None = None):
        self.recurrence = recurrence
        self.kernels = kernels
        self.threads = threads
        self.reference = ReferenceEngine(recurrence)
        self._special: dict[Any, Specialised] = {}
        self._checked: dict[Any, Any] = {}
        self._framed: dict[Any, Any] = {}

    # --- compiling ------------------------------------------------------------------------------------------------

    def specialised(
        self, sequences: Sequence[Array], constants: Sequence[Array], states: Sequence[Array], dtype: np.dtype[Any]
    ) -> Specialised:
        """Return the step compiled for arrays of these inner shapes."""
        shapes = [s.shape[:1] + s.shape[2:] for s in sequences] + [a.shape for a in (*constants, *states)]
        key = (dtype, *(shape[1:] for shape in shapes))
        if key not in self._special:
            graph = self.recurrence.graph
            leaves = (*graph.sequences, *graph.constants, *graph.states)
            compiled = build(graph, dict(zip(leaves, shapes)))
            self._special[key] = Specialised(compiled, dtype, self.kernels, self.kernels.panel_width(dtype))
        return self._special[key]

    def check(self) -> None:
        """Generate the source, if the step's lengths are known, so that what cannot be compiled is refused early.

        Errors: NotImplementedError, naming it.
        """
        if not self._open():
            for special in self._compiled().values():
                assert special.forward and special.backward

    def _open(self) -> bool:
        graph = self.recurrence.graph
        leaves = (*graph.sequences, *graph.constants, *graph.states)
        return any(n is None for leaf in leaves for n in leaf.shape[1:])

    def explain(self) -> str:
        """Return what was hoisted, sunk, merged and fused, memory and arithmetic, for each compiled set of shapes.

        Errors: ValueError if nothing is compiled yet and the step leaves inner lengths open.
        """
        return "\n\n".join(
            f"{s.dtype.name}, {', '.join(str(shape) for shape in key[1:]) or 'no inputs'}; "
            f"{self.threads or get_num_threads()} threads; panels of {s.width} columns\n"
            + explain(s.compiled, s.dtype.itemsize)
            for key, s in self._compiled().items()
        )

    @property
    def source(self) -> str:
        """The generated source of all that is compiled."""
        return "\n\n".join(f"{s.forward.text}\n\n{s.backward.text}" for s in self._compiled().values())

    def _compiled(self) -> dict[Any, Specialised]:
        if not self._special:
            graph = self.recurrence.graph
            leaves = (*graph.sequences, *graph.constants, *graph.states)
            if self._open():
                raise ValueError("the step leaves lengths open: call the engine once, so that they are known")
            kinds = {"float": np.float32, "int": np.int64, "bool": np.bool_}
            shapes = [tuple(n or 0 for n in leaf.shape[1:]) for leaf in leaves]
            arrays = [np.zeros((1, *s), kinds[leaf.dtype]) for leaf, s in zip(leaves, shapes)]
            count = len(graph.sequences), len(graph.sequences) + len(graph.constants)
            self.specialised(
                [a[:, None] for a in arrays[: count[0]]], arrays[count[0] : count[1]], arrays[count[1] :],
                np.dtype(np.float32),
            )  # fmt: skip
        return self._special

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
    ) -> tuple[list[Array], list[Array], Tape]:
        """Run the loop; see `Engine`. taped: whether backward will follow."""
        length = self.reference.length(sequences, steps)
        batch = next((len(a) for a in (*sequences, *constants, *states)), 1)
        specs = self._specs(sequences, constants, states, parameters, mask, length, batch)
        floating = [a.dtype for a in (*parameters, *states, *sequences, *constants) if a.dtype.kind == "f"]
        dtype = np.result_type(np.float32, *floating)
        special = self.specialised(sequences, constants, states, dtype)
        mask = None if mask is None or mask.all() else np.asarray(mask, bool)
        arrays = [[_plain(a, dtype) for a in group] for group in (sequences, constants, states, parameters)]
        make = np.empty if mask is None else np.zeros
        outputs = [make((batch, length, *s[1:]), _dtype(kind, dtype)) for s, kind in specs]
        tape = Tape(special, *arrays, mask, outputs, (), [], [])
        if special.compiled.mixes and mask is not None:
            return self._step_by_step(tape, length)
        shards = self._shards(special, batch, int(mask.sum()) if mask is not None else batch * length)
        truncate = self.recurrence.truncate
        tape.shards = (
            whole_batch(batch, length, shards, truncate) if mask is None else masked_batch(mask, shards, truncate)
        )
        finals = [np.empty_like(s) for s in tape.states]
        self._run_forward(tape, finals, taped)
        if mask is not None and not self.recurrence.zero_output_for_mask:
            tape.outputs = [held(y, mask) for y in outputs]
        graph = self.recurrence.graph
        answers = [y.astype(bool) if t.dtype == "bool" else y for y, t in zip(tape.outputs, graph.outputs)]
        finals = [s.astype(bool) if t.dtype == "bool" else s for s, t in zip(finals, graph.states)]
        return answers, finals, tape

    def _shards(self, special: Specialised, batch: int, rows: int) -> int:
        """Return among how many threads a batch is split."""
        if special.compiled.mixes:
            return 1
        if self.threads is not None:
            return max(1, min(self.threads, batch))
        enough = 1 + special.flops * rows // FLOPS_A_THREAD
        return max(1, min(get_num_threads(), batch, enough))

    def _specs(
        self, sequences: Any, constants: Any, states: Any, parameters: Any, mask: Any, length: int, batch: int
    ) -> Any:
        groups = (sequences, constants, states, parameters)
        key = (length, None if mask is None else mask.shape, *(tuple(a.shape for a in group) for group in groups))
        if key not in self._checked:
            self._checked[key] = self.reference.check(*groups, mask, length, batch)
        return self._checked[key]

    def _run_forward(self, tape: Tape, finals: list[Array], taped: bool) -> None:
        special, source = tape.special, tape.special.forward
        shared = self._fixed(special, source, tape.parameters)
        shared.update({f"sequence{i}": s for i, s in enumerate(tape.sequences)})
        shared.update({f"output{i}": y for i, y in enumerate(tape.outputs)})
        kernels = special.run_forward
        pieces = self._prepare(kernels, source, shared, special.dtype)
        calls, waiting = [], []
        for shard in tape.shards:
            own = {f"constant{i}": _rows(c, shard) for i, c in enumerate(tape.constants)}
            ends = [_rows(f, shard) if isinstance(shard.rows, slice) else np.empty((shard.count, *f.shape[1:]), f.dtype)
                    for f in finals]  # fmt: skip
            own.update({f"final{i}": f for i, f in enumerate(ends)})
            kept, scratch = self._frames(special, source, shard, taped)
            tape.kept.append(Arena(kept.total))
            for i, state in enumerate(tape.states):
                if f"state{i}" in kept.names:
                    start = _rows(state, shard).reshape(-1)
                    kept.view(tape.kept[-1], f"state{i}")[: start.size] = start
            memory = [*pieces, (kept, tape.kept[-1]), (scratch, Arena(scratch.total))]
            waiting.append((shard, ends, (own, memory)))  # addresses keep nothing alive
            calls.append((kernels.table(_packed(shard), {**shared, **own}, memory), self._numbers(shard, taped)))
        special.run_forward.run("shard", calls)
        self._check_numbers(calls)
        for shard, ends, _ in waiting:
            if not isinstance(shard.rows, slice):
                for final, end in zip(finals, ends):
                    final[shard.rows] = end

    # --- memory ---------------------------------------------------------------------------------------------------

    def _fixed(self, special: Specialised, source: Source, parameters: Sequence[Array]) -> dict[str, Array]:
        """Return the parameters and fixed arrays that a program reads, by name."""
        place = {p.tensor: i for i, p in enumerate(special.compiled.graph.parameters)}
        found = {}
        for name, leaf in source.fixed.items():
            if isinstance(leaf.source, Parameter):
                found[name] = parameters[place[leaf]]
            elif isinstance(leaf.source, ConstantSource):
                found[name] = _plain(leaf.source.value, special.dtype)
        return found

    def _prepare(self, kernels: Kernels, source: Source, shared: dict[str, Array], dtype: np.dtype[Any]) -> Any:
        """Compute what depends on parameters alone; answer the memory that holds it."""
        if not source.prepared:
            return []
        key = (id(source), "prepared")
        if key not in self._framed:
            wanted = set(source.prepared)
            self._framed[key] = frame(
                (m.name, kernels.slots[m.name], sized(m.size, 0), _dtype(m.kind, dtype))
                for m in source.memory if m.name in wanted
            )  # fmt: skip
        piece = (self._framed[key], Arena(self._framed[key].total))
        kernels.run("prepare", [(kernels.table(_packed(NOTHING), shared, [piece]), self._numbers(NOTHING, False))])
        return [piece]

    def _frames(self, special: Specialised, source: Source, shard: Shard, taped: bool) -> tuple[Frame, Frame]:
        """Return how a shard's memory is cut up: what backward will read, and the rest."""
        key = (id(source), shard.count, len(shard.pos), taped)
        if key not in self._framed:
            rows = len(shard.pos)
            block = min(rows, max(BLOCK_ROWS, shard.count))
            window = rows if taped else block
            parts: tuple[list[Any], list[Any]] = ([], [])
            for i, m in enumerate(source.memory):
                if m.name in source.prepared or m.given:
                    continue
                tape = m.space in (Space.PACKED, Space.CURRENT)
                size = _elements(m, shard.count, block, window)
                parts[not tape].append((m.name, i + FIRST_SLOT, size, _dtype(m.kind, special.dtype)))
            if len(self._framed) > 256:
                self._framed.clear()
            self._framed[key] = (frame(parts[0]), frame(parts[1]))
        found: tuple[Frame, Frame] = self._framed[key]
        return found

    def _numbers(self, shard: Shard, taped: bool) -> Array:
        return np.array([shard.count, shard.steps, max(BLOCK_ROWS, shard.count), 0, taped, 0], np.int64)

    def _check_numbers(self, calls: Sequence[tuple[Any, Array]]) -> None:
        if any(numbers[3] for _, numbers in calls):
            raise IndexError("take: an index is out of range")

    # --- backward -------------------------------------------------------------------------------------------------

    def backward(self, tape: Tape, d_outputs: Sequence[Array | None], d_states: Sequence[Array | None]) -> Gradients:
        """Walk the steps from the last to the first; see `Engine`."""
        from rsref.engine import checked_gradients

        special = tape.special
        d_outputs = checked_gradients("output", d_outputs, tape.outputs, special.dtype)
        d_states = checked_gradients("final state", d_states, tape.states, special.dtype)
        graph, dtype = special.compiled.graph, special.dtype
        found = Gradients(
            [np.zeros_like(s) if t.dtype == "float" else None for s, t in zip(tape.sequences, graph.sequences)],
            [np.zeros_like(c) if t.dtype == "float" else None for c, t in zip(tape.constants, graph.constants)],
            [np.zeros_like(s) if t.dtype == "float" else None for s, t in zip(tape.states, graph.states)],
            [np.zeros_like(p) for p in tape.parameters],
        )
        d_outputs = [None if d is None else np.ascontiguousarray(d, dtype) for d in d_outputs]
        if tape.mask is not None and not self.recurrence.zero_output_for_mask:
            d_outputs = [None if d is None else gathered_back(d, tape.mask) for d in d_outputs]
        ends = [None if d is None else np.ascontiguousarray(d, dtype) for d in d_states]
        if tape.pieces:
            self._steps_back(tape, found, d_outputs, ends)
        else:
            self._run_backward(tape, found, d_outputs, ends)
        return found

    def _run_backward(
        self, tape: Tape, found: Gradients, d_outputs: Sequence[Array | None], ends: Sequence[Array | None]
    ) -> None:
        special, source = tape.special, tape.special.backward
        compiled = special.compiled
        shared = self._fixed(special, source, tape.parameters)
        shared.update({f"sequence{i}": s for i, s in enumerate(tape.sequences)})
        shared.update({f"d_sequence{i}": d for i, d in enumerate(found.sequences) if d is not None})
        for i, (y, d) in enumerate(zip(tape.outputs, d_outputs)):
            shared[f"d_output{i}"] = np.zeros(y.shape, special.dtype) if d is None else d
        shared.update({f"d_parameter{i}": d for i, d in enumerate(found.parameters)})
        kernels = special.run_backward
        pieces = self._prepare(kernels, source, shared, special.dtype)
        calls, waiting = [], []
        for shard, arena in zip(tape.shards, tape.kept):
            own: dict[str, Array] = {f"constant{i}": _rows(c, shard) for i, c in enumerate(tape.constants)}
            answers: list[tuple[Array, Array]] = []
            for i, d in enumerate(found.constants):
                if d is not None and compiled.d_constants[i] is not None:
                    own[f"d_constant{i}"] = np.empty((shard.count, *d.shape[1:]), special.dtype)
                    answers.append((d, own[f"d_constant{i}"]))
            for i, d in enumerate(found.states):
                if d is None:
                    continue
                end = np.zeros_like(d) if ends[i] is None else ends[i]
                own[f"d_final{i}"] = _rows(end, shard).copy()  # type: ignore[arg-type]
                own[f"d_final{i}"][shard.cut_end] = 0
                own[f"d_state{i}"] = np.empty((shard.count, *d.shape[1:]), special.dtype)
                answers.append((d, own[f"d_state{i}"]))
            _, scratch = self._frames(special, source, shard, True)
            kept, _ = self._frames(special, special.forward, shard, True)
            read = self._read(kernels, kept)
            memory = [*pieces, (read, arena), (scratch, Arena(scratch.total))]
            waiting.append((shard, answers, (own, memory)))
            calls.append((kernels.table(_packed(shard), {**shared, **own}, memory), self._numbers(shard, True)))
        kernels.run("shard", calls)
        for shard, answers, _ in waiting:
            for whole, part in answers:
                whole[shard.rows] = part
        first, *others = (memory[-1] for _, _, (_, memory) in waiting)
        for name in source.folds:
            for frame_, arena in others:
                first[0].view(first[1], name)[...] += frame_.view(arena, name)
        kernels.run("finish", [calls[0]])

    def _read(self, kernels: Kernels, kept: Frame) -> Frame:
        """Return forward's frame with the slots that backward has for it."""
        chosen = [i for i, name in enumerate(kept.names) if name in kernels.slots]
        return Frame(
            tuple(kept.names[i] for i in chosen),
            np.array([kernels.slots[kept.names[i]] for i in chosen], np.int64),
            kept.offsets[chosen],
            tuple(kept.lengths[i] for i in chosen),
            tuple(kept.dtypes[i] for i in chosen),
            kept.total,
        )

    # --- steps that mix samples, with a mask: one step a call, for the rows that take part -----------------------------

    def _step_by_step(self, tape: Tape, length: int) -> tuple[list[Array], list[Array], Tape]:
        mask = tape.mask
        assert mask is not None
        current = [s.copy() for s in tape.states]
        one = FastEngine(Recurrence(self.recurrence.graph), self.kernels)
        one._special, one._checked = self._special, {}
        for t in range(length):
            rows = np.flatnonzero(mask[:, t])
            tape.pieces.append(None)
            if len(rows):
                ys, ends, piece = one.forward(
                    [s[rows, t : t + 1] for s in tape.sequences], [c[rows] for c in tape.constants],
                    [s[rows] for s in current], tape.parameters, steps=1,
                )  # fmt: skip
                tape.pieces[-1] = (rows, piece)
                for y, now in zip(tape.outputs, ys):
                    y[rows, t] = now[:, 0]
                for s, now in zip(current, ends):
                    s[rows] = now
        if not self.recurrence.zero_output_for_mask:
            tape.outputs = [held(y, mask) for y in tape.outputs]
        graph = self.recurrence.graph
        answers = [y.astype(bool) if t.dtype == "bool" else y for y, t in zip(tape.outputs, graph.outputs)]
        current = [s.astype(bool) if t.dtype == "bool" else s for s, t in zip(current, graph.states)]
        return answers, current, tape

    def _steps_back(
        self, tape: Tape, found: Gradients, d_outputs: Sequence[Array | None], ends: Sequence[Array | None]
    ) -> None:
        one = FastEngine(Recurrence(self.recurrence.graph), self.kernels)
        truncate = self.recurrence.truncate
        flowing = [
            None if d is None else np.zeros_like(d) if end is None else end.copy() for d, end in zip(found.states, ends)
        ]
        for t in range(len(tape.pieces) - 1, -1, -1):
            if tape.pieces[t] is not None:
                rows, piece = tape.pieces[t]
                part = one.backward(
                    piece,
                    [None if d is None else d[rows, t : t + 1] for d in d_outputs],
                    [None if d is None else d[rows] for d in flowing],
                )
                for whole, d in zip(flowing, part.states):
                    if whole is not None:
                        whole[rows] = d
                for whole, d in zip(found.sequences, part.sequences):
                    if whole is not None:
                        whole[rows, t] = d[:, 0]  # type: ignore[index]
                for whole, d in zip(found.constants, part.constants):
                    if whole is not None:
                        whole[rows] += d
                for whole, d in zip(found.parameters, part.parameters):
                    whole += d
            if truncate is not None and t % truncate == 0 and t > 0:
                flowing = [None if d is None else np.zeros_like(d) for d in flowing]
        found.states = flowing


def _plain(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array as kernels read it: contiguous, floats in the working precision, integers of 64 bits."""
    kind = array.dtype.kind
    plain = np.ascontiguousarray(array, dtype if kind == "f" else np.uint8 if kind == "b" else np.int64)
    return plain.reshape(array.shape)


def _dtype(kind: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    return DTYPES.get(kind, dtype)


def _packed(shard: Shard) -> list[Array]:
    return [shard.off, shard.pos, shard.rid, shard.cut]


def _rows(array: Array, shard: Shard) -> Array:
    return array[shard.rows]


def _elements(memory: Memory, count: int, block: int, window: int) -> int:
    """Return how many elements a piece of memory holds."""
    rows = {
        Space.FIXED: 0,
        Space.ROW: count,
        Space.STEP: count,
        Space.BLOCK: block,
        Space.PACKED: window,
        Space.CURRENT: count + window,
        Space.FLOW_IN: 2 * count,
    }[memory.space]
    return sized(memory.size, rows)


__all__ = ["FastEngine", "Tape", "Tensor"]
