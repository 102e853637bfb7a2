"""The whole of a compiled step: what its two programs compute, section by section, and in which memory.

Nothing here knows Numba or a device: the emitters turn these programs into source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from rsref.graph import StepGraph, topological_order
from rsref.ops.pointwise import Cast, Pointwise
from rsref.tensor import Tensor
from rsref_fast.concrete import Shape, concrete, shapes_of
from rsref_fast.derivative import Derivative, differentiate
from rsref_fast.fuse import Unit, added_as_computed, fuse
from rsref_fast.later import added_later
from rsref_fast.layout import Layout, Section, lay_out
from rsref_fast.lengths import per_row, sized
from rsref_fast.merge import merge
from rsref_fast.phases import in_phases
from rsref_fast.rows import Rows, rows_of
from rsref_fast.schedule import Schedule, schedule
from rsref_fast.simplify import simplify
from rsref_fast.slices import slice_first
from rsref_fast.sums import reorder
from rsref_fast.together import together
from rsref_fast.views import RULES as MOVING_OPS
from rsref_fast.views import Buffer, Space, View, whole
from rsref_fast.wide import is_wide


@dataclass(frozen=True)
class Program:
    """Units by section, and the memory that the loop around them handles.

    layout: where every tensor lies.
    gathered: buffers that hold a block's rows of a sequence (batch, time, ...), by the caller's name for it.
    outputs, new_states: the tensors that hold them, in a forward program.
    """

    layout: Layout
    units: Mapping[Section, Sequence[Unit]]
    gathered: Mapping[str, Buffer]
    outputs: tuple[Tensor, ...] = ()
    new_states: tuple[Tensor, ...] = ()

    def units_of(self, section: Section, phase: int) -> list[Unit]:
        """Return the units of a section that belong to one loop."""
        return [unit for unit in self.units[section] if self.layout.phase_of(unit.tensors[-1]) == phase]

    @property
    def attended(self) -> int:
        """Values of a sample that every step reads: of wide tensors that are the same at all steps."""
        read = {
            self.layout.views[operand].buffer
            for unit in self.units[Section.LOOP]
            for tensor in unit.tensors
            for operand in tensor.inputs
        }
        return sum(own for b in read if b.space is Space.ROW and is_wide(own := sized(b.size, 1)))


@dataclass(frozen=True)
class Compiled:
    """All programs of a step.

    graph: the step with known inner lengths. mixes: whether a step computes something across samples: then a batch
    cannot be split, and masked rows must be left out of it step by step.
    states: for each state the buffers before and after a step. flows: for each state the buffers of its gradient
    after and before a step; None if it is not floating.
    inference: forward, with nothing kept for backward.
    d_...: the tensors that hold the gradients; None where nothing flows.
    """

    graph: StepGraph
    mixes: bool
    states: tuple[tuple[Buffer, Buffer], ...]
    forward: Program
    inference: Program
    backward: Program
    flows: tuple[tuple[Buffer, Buffer] | None, ...]
    d_sequences: tuple[Tensor | None, ...]
    d_constants: tuple[Tensor | None, ...]
    d_states: tuple[Tensor | None, ...]
    d_parameters: tuple[Tensor | None, ...]
    derivative: Derivative


def build(
    graph: StepGraph,
    shapes: Mapping[Tensor, Sequence[int]],
    blocks: bool = True,
    phases: bool = True,
    biases: bool = True,
    joints: bool = True,
) -> Compiled:
    """Return the programs of a step for inputs of the given shapes (for one step, the batch first).

    blocks: whether gradients of constants had better be added up for all steps of a block (`later`).
    phases: whether the time loop may be several (`phases`). biases: whether products may begin with a row.
    joints: whether the time loop fills concatenations that are made for a block of steps.
    Errors: NotImplementedError, naming it, for what cannot be compiled.
    """
    step = reorder(slice_first(reorder(merge(concrete(graph, shapes)))))
    derivative = differentiate(step, _worth_keeping(step))
    leaves, gathered = _inputs(step)
    states = tuple(
        (
            Buffer(f"state{i}_before", s.dtype, Space.PREVIOUS, _shape(s), f"state{i}"),
            Buffer(f"state{i}", s.dtype, Space.CURRENT, _shape(s), f"state{i}"),
        )
        for i, s in enumerate(step.states)
    )
    leaves.update({leaf: whole(before) for leaf, (before, _) in zip(step.states, states)})

    forward, mixes, saved = _forward(step, derivative.saved, leaves, gathered, states, phases, biases, joints)
    inference, _, _ = _forward(step, (), leaves, gathered, states, phases, biases, joints)
    tape = {leaf: forward.layout.views[tensor] for leaf, tensor in zip(derivative.saved_leaves, saved)}
    lengths = shapes_of([*step.outputs, *step.new_states])
    for leaf, tensor in zip(derivative.shape_leaves, derivative.shaped):
        tape[leaf] = whole(Buffer("shape", leaf.dtype, Space.STEP, lengths[tensor]))
    programs, leaves = (forward, inference), {**leaves, **tape}
    return _with_backward(step, derivative, mixes, states, programs, leaves, gathered, blocks, phases, joints)


def _shape(tensor: Tensor) -> Shape:
    return shapes_of([tensor])[tensor]


def _inputs(step: StepGraph) -> tuple[dict[Tensor, View], dict[str, Buffer]]:
    """Return the views of sequences and constants, and the buffers into which sequences are gathered."""
    leaves: dict[Tensor, View] = {}
    gathered: dict[str, Buffer] = {}
    for i, leaf in enumerate(step.sequences):
        gathered[f"sequence{i}"] = Buffer(f"x{i}", leaf.dtype, Space.BLOCK, _shape(leaf))
        leaves[leaf] = whole(gathered[f"sequence{i}"])
    for i, leaf in enumerate(step.constants):
        leaves[leaf] = whole(Buffer(f"constant{i}", leaf.dtype, Space.ROW, _shape(leaf)))
    return leaves, gathered


def _known_rows(
    results: Sequence[Tensor],
    leaves: Mapping[Tensor, Rows] | None = None,
    views: Mapping[Tensor, View] | None = None,
) -> dict[Tensor, Rows]:
    """Return how tensors depend on samples; one whose memory would hold the batch last counts as mixing them.

    Its rows would not follow each other, as those of a block of steps must, and those that a mask leaves.
    views: of the leaves, which say how many entries of axis 0 each sample has.
    """
    known = dict(leaves or {})
    while True:
        rows = rows_of(results, known, _places(views or {}))
        last = [
            t for t, kind in rows.items()
            if kind is Rows.LAST and t.op is not None and t.op.name not in MOVING_OPS and t not in known
        ]  # fmt: skip
        if not last:
            return rows
        known.update(dict.fromkeys(last, Rows.MIXED))


def _places(views: Mapping[Tensor, View]) -> dict[Tensor, int]:
    """Return how many entries of axis 0 belong to a sample, for leaves that have the batch there."""
    found = {}
    for leaf, view in views.items():
        count = per_row(view.shape[0]) if view.shape else None
        if count is not None:
            found[leaf] = count
    return found


def _worth_keeping(step: StepGraph) -> Callable[[Tensor, bool], bool]:
    """Backward computes again what is a view, or depends on no step, or what few numbers are spread over many places.

    The rest forward keeps, and of what is spread that which must be exact.
    """
    results = [*step.outputs, *step.new_states]
    rows = _known_rows(results)
    plan = schedule(results, rows, stepped=set(step.sequences), carried=set(step.states), needed=set(step.new_states))
    once, fixed = set(plan.once), {t for t in rows if rows[t] is Rows.NONE or t in step.constants}

    sources: dict[Tensor, frozenset[Tensor]] = {}
    for tensor in topological_order(results):
        pointwise = isinstance(tensor.op, Pointwise | Cast) or (tensor.op_name in MOVING_OPS)
        if tensor in once or tensor in fixed:
            sources[tensor] = frozenset()
        elif pointwise:
            sources[tensor] = frozenset().union(*(sources[operand] for operand in tensor.inputs))
        else:
            sources[tensor] = frozenset({tensor})

    def keep(tensor: Tensor, exact: bool) -> bool:
        if tensor not in rows:  # of forward's values, but not drawn
            stepped = any(leaf in step.sequences or leaf in step.states for leaf in topological_order([tensor]))
            return stepped and _known_rows([tensor])[tensor] is Rows.FIRST
        moves = tensor.op_name in MOVING_OPS
        return rows[tensor] is Rows.FIRST and tensor not in once and not moves and (exact or not spread(tensor))

    def spread(tensor: Tensor) -> bool:
        """Whether a tensor is computed element by element of fewer numbers that a step has: so many are not kept."""
        return 0 < sum(map(_width, sources[tensor])) < _width(tensor)

    return keep


def _width(tensor: Tensor) -> int:
    """Return how many values a sample has in a tensor."""
    return prod(n or 0 for n in tensor.shape[1:])


def _forward(
    step: StepGraph,
    keep: Sequence[Tensor],
    leaves: Mapping[Tensor, View],
    gathered: Mapping[str, Buffer],
    states: Sequence[tuple[Buffer, Buffer]],
    phases: bool,
    biases: bool,
    joints: bool,
) -> tuple[Program, bool, Sequence[Tensor]]:
    """Return a forward program that keeps some tensors, whether it mixes samples, and what it keeps, simplified."""
    results = simplify([*step.outputs, *step.new_states, *keep])
    count, end = len(step.outputs), len(step.outputs) + len(step.new_states)
    outputs, new_states, saved = tuple(results[:count]), tuple(results[count:end]), results[end:]
    sequences = {leaf for leaf, view in leaves.items() if view.buffer.space is Space.BLOCK}
    carried = {leaf for leaf, view in leaves.items() if view.buffer.space is Space.PREVIOUS}
    rows = _known_rows(results)
    mixes = any(kind in (Rows.MIXED, Rows.SUM) for kind in rows.values())
    rows = {t: Rows.MIXED if kind is Rows.SUM else kind for t, kind in rows.items()}
    plan = _settled(results, rows, sequences, carried, set(new_states))
    if phases and not mixes:
        plan = in_phases(plan, rows, dict(zip(step.states, new_states)), set(new_states), lasting=True)
    inside = set(plan.loop)
    places: dict[Tensor, Buffer] = {}
    for tensor, (_, after) in zip(new_states, states):
        moved = tensor.op_name in MOVING_OPS
        if tensor in inside and not moved and tensor not in places:
            places[tensor] = after
    layout = lay_out(
        results, rows, plan, leaves, places=places, packed=saved, blockwise=outputs, biases=biases, joints=joints,
        prefix="f",
    )  # fmt: skip
    units = {section: fuse(layout, section, results) for section in Section}
    return Program(layout, units, gathered, outputs, new_states), mixes, saved


def _with_backward(
    step: StepGraph,
    derivative: Derivative,
    mixes: bool,
    states: tuple[tuple[Buffer, Buffer], ...],
    programs: tuple[Program, Program],
    leaves: dict[Tensor, View],
    gathered: Mapping[str, Buffer],
    blocks: bool,
    phases: bool,
    joints: bool,
) -> Compiled:
    gathered = dict(gathered)
    for i, leaf in enumerate(derivative.d_outputs):
        if leaf is not None:
            gathered[f"d_output{i}"] = Buffer(f"dy{i}", "float", Space.BLOCK, _shape(leaf))
            leaves[leaf] = whole(gathered[f"d_output{i}"])
    flows: list[tuple[Buffer, Buffer] | None] = []
    for i, leaf in enumerate(derivative.d_new_states):
        if leaf is None:
            flows.append(None)
            continue
        into = Buffer(f"flow{i}", "float", Space.FLOW_IN, _shape(leaf), f"flow{i}")
        out = Buffer(f"flow{i}_before", "float", Space.FLOW_OUT, _shape(leaf), f"flow{i}")
        flows.append((into, out))
        leaves[leaf] = whole(into)
    groups = (derivative.d_sequences, derivative.d_constants, derivative.d_states, derivative.d_parameters)
    simple = iter(together(simplify(derivative.results)))
    d_sequences, d_constants, d_states, d_parameters = (
        tuple(None if t is None else next(simple) for t in group) for group in groups
    )
    results = [t for group in (d_sequences, d_constants, d_states, d_parameters) for t in group if t is not None]
    carried = {leaf for leaf in derivative.d_new_states if leaf is not None}
    stepped = {leaf for leaf, view in leaves.items() if view.buffer.space is not Space.ROW} - carried
    forward_rows = rows_of([*step.outputs, *step.new_states])
    rows = _known_rows(
        results, {leaf: forward_rows[t] for leaf, t in zip(derivative.shape_leaves, derivative.shaped)}, leaves
    )
    later: set[Tensor] = set()
    if blocks and not mixes:
        lengths = shapes_of(results, {leaf: view.shape for leaf, view in leaves.items()})
        later = added_later(results, rows, lengths, [t for t in d_constants if t is not None])
    needed = {t for t in (*d_states, *d_constants) if t is not None} - later
    plan = _settled(results, rows, stepped, carried, needed)
    if phases and not mixes:
        handed = {leaf: d for leaf, d in zip(derivative.d_new_states, d_states) if leaf is not None}
        plan = in_phases(plan, rows, handed, needed, lasting=False)
    inside = set(plan.loop)
    places: dict[Tensor, Buffer] = {}
    for tensor, flow in zip(d_states, flows):
        if tensor is None or flow is None or tensor not in inside or tensor in places:
            continue
        if tensor.op is not None and tensor.op.name not in MOVING_OPS:
            places[tensor] = flow[1]
    blockwise = [t for t in d_sequences if t is not None]
    layout = lay_out(
        results, rows, plan, leaves, places=places, blockwise=blockwise, later=later, joints=joints, prefix="g"
    )
    others = {t for group in (d_sequences, d_states, d_parameters) for t in group}
    read = [t for t in results if t in others or not added_as_computed(layout, t)]
    added = set(results) - set(read)
    units = {section: fuse(layout, section, read, added) for section in Section}
    backward = Program(layout, units, gathered)
    return Compiled(
        step, mixes, states, *programs, backward, tuple(flows),
        d_sequences, d_constants, d_states, d_parameters, derivative,
    )  # fmt: skip


def _settled(
    results: Sequence[Tensor],
    rows: Mapping[Tensor, Rows],
    stepped: set[Tensor],
    carried: set[Tensor],
    needed: set[Tensor],
) -> Schedule:
    """Return a schedule in which sums over samples that a step reads are not also summed over time."""
    while True:
        plan = schedule(results, rows, stepped=stepped, carried=carried, needed=needed)
        inside = {t for t in plan.loop if rows[t] is Rows.SUM}
        more = {t for t in plan.after if rows[t] is Rows.SUM and inside & set(t.inputs)}
        if not more - needed:
            return plan
        needed = needed | more
