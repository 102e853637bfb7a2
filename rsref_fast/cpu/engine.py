"""The engine: packs a call's arrays, hands memory to the kernels, and answers as the reference engine does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsref.engine import Gradients, ReferenceEngine, checked_gradients
from rsref.recurrence import Recurrence
from rsref.tensor import ConstantSource, Parameter
from rsref_fast.cpu.emit import Source
from rsref_fast.cpu.kernels import Kernels
from rsref_fast.cpu.memory import Arena
from rsref_fast.cpu.specialised import Specialised, numbers, packed
from rsref_fast.cpu.stepwise import step_by_step, steps_back
from rsref_fast.explain import explain
from rsref_fast.packing import Shard, gathered_back, held, masked_batch, whole_batch
from rsref_fast.program import build
from rsref_fast.threads import get_num_threads

Array = np.ndarray
FLOPS_A_THREAD = 1_000_000
"""Additions and multiplications below which waking a thread costs more than it gains."""


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

    def one_step(self) -> FastEngine:
        """Return an engine for single steps of the same recurrence, with the same compiled code."""
        one = FastEngine(Recurrence(self.recurrence.graph), self.kernels)
        one._special = self._special
        return one

    def check(self) -> None:
        """Generate the source, if the step's lengths are known, so that what cannot be compiled is refused early.

        Errors: NotImplementedError, naming it.
        """
        if not self._open():
            for special in self._compiled().values():
                assert special.forward.text
                assert special.backward.text

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
            arrays: list[Array] = [np.zeros((1, *s), kinds[leaf.dtype]) for leaf, s in zip(leaves, shapes)]
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
    ) -> tuple[list[Array], list[Array], Any]:
        """Run the loop; see `Engine`."""
        length = self.reference.length(sequences, steps)
        batch = next((len(a) for a in (*sequences, *constants, *states)), 1)
        specs = self._specs(sequences, constants, states, parameters, mask, length, batch)
        floating = [a.dtype for a in (*parameters, *states, *sequences, *constants) if a.dtype.kind == "f"]
        dtype = np.result_type(np.float32, *floating)
        special = self.specialised(sequences, constants, states, dtype)
        mask = None if mask is None or mask.all() else np.asarray(mask, bool)
        given = (sequences, constants, states, parameters)
        seq, fixed, start, own = ([special.plain(a) for a in group] for group in given)
        make = np.empty if mask is None else np.zeros
        outputs = [make((batch, length, *s[1:]), special.dtype_of(kind)) for s, kind in specs]
        tape = Tape(special, seq, fixed, start, own, mask, outputs, (), [], [])
        if special.compiled.mixes and mask is not None:
            return step_by_step(self, tape, length, taped)
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
        return answers, finals, tape if taped else None

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
        special = tape.special
        source, kernels = (
            (special.forward, special.run_forward) if taped else (special.inference, special.run_inference)
        )
        shared = self._fixed(special, source, tape.parameters)
        shared.update({f"sequence{i}": s for i, s in enumerate(tape.sequences)})
        shared.update({f"output{i}": y for i, y in enumerate(tape.outputs)})
        pieces = special.prepare(kernels, source, shared)
        calls, waiting = [], []
        for shard in tape.shards:
            own = {f"constant{i}": _rows(c, shard) for i, c in enumerate(tape.constants)}
            ends = [_rows(f, shard) if isinstance(shard.rows, slice) else np.empty((shard.count, *f.shape[1:]), f.dtype)
                    for f in finals]  # fmt: skip
            own.update({f"final{i}": f for i, f in enumerate(ends)})
            kept, scratch = special.frames(source, shard, taped)
            tape.kept.append(Arena(kept.total))
            for i, state in enumerate(tape.states):
                if f"state{i}" in kept.names:
                    start = _rows(state, shard).reshape(-1)
                    kept.view(tape.kept[-1], f"state{i}")[: start.size] = start
            memory = [*pieces, (kept, tape.kept[-1]), (scratch, Arena(scratch.total))]
            waiting.append((shard, ends, (own, memory)))  # addresses keep nothing alive
            calls.append((kernels.table(packed(shard), {**shared, **own}, memory), numbers(shard, taped)))
        kernels.run("shard", calls)
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
                found[name] = special.plain(leaf.source.value)
        return found

    def _check_numbers(self, calls: Sequence[tuple[Any, Array]]) -> None:
        if any(n[3] for _, n in calls):
            raise IndexError("take: an index is out of range")

    # --- backward -------------------------------------------------------------------------------------------------

    def backward(self, tape: Tape, d_outputs: Sequence[Array | None], d_states: Sequence[Array | None]) -> Gradients:
        """Walk the steps from the last to the first; see `Engine`."""
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
            steps_back(self, tape, found, d_outputs, ends)
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
        pieces = special.prepare(kernels, source, shared)
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
            _, scratch = special.frames(source, shard, True)
            memory = [*pieces, (special.kept(shard), arena), (scratch, Arena(scratch.total))]
            waiting.append((shard, answers, (own, memory)))
            calls.append((kernels.table(packed(shard), {**shared, **own}, memory), numbers(shard, True)))
        kernels.run("shard", calls)
        for shard, answers, _ in waiting:
            for whole, part in answers:
                whole[shard.rows] = part
        first, *others = (memory[-1] for _, _, (_, memory) in waiting)
        for name in source.folds:
            for frame_, arena in others:
                first[0].view(first[1], name)[...] += frame_.view(arena, name)
        kernels.run("finish", [calls[0]])


def _rows(array: Array, shard: Shard) -> Array:
    return array[shard.rows]
