"""The two programs of a step as source: loops over blocks and steps around the calls of the units.

The rows of step s are `off[s]` to `off[s + 1]`, as many as take part in it, the same ones first at every step; `pos`
says which sample and time of the caller's arrays a row is, `rid` which row of the shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rsref.tensor import Tensor
from rsref_fast.cpu.emit import Writer
from rsref_fast.cpu.source import FIRST_SLOT, Source
from rsref_fast.cpu.target import CPU, Target
from rsref_fast.cpu.text import INDENT
from rsref_fast.layout import Section
from rsref_fast.lengths import number
from rsref_fast.program import Compiled, Program
from rsref_fast.rows import Rows
from rsref_fast.views import Buffer, Space, View, whole

SHARD = [
    "n0 = N[0]",
    "steps = N[1]",
    "limit = N[2]",
    "taped = N[4]",
    "off = ints(P, 0)",
    "pos = ints(P, 1)",
    "rid = ints(P, 2)",
]

_FORWARD_AGAIN = ["following = off[k + 1] - r0", "before = off[k - 1] if k > 0 else 0", "here = r0"]
_BACKWARD_AGAIN = [
    "active = off[k + 1] - off[k] if k < steps else 0",
    "slot = (steps - k) % 2",
    "behind = off[k]",
    "here = off[k - 1]",
]
"""What brings a loop's counters back to where they were before the block's first loop."""


def forward_source(compiled: Compiled, width: int, taped: bool, target: Target = CPU) -> Source:
    """Return a forward program. width: columns of a panel of packed weights. taped: for backward to follow."""
    program = compiled.forward if taped else compiled.inference
    w = Writer(program, width, target)
    layout = program.layout
    kept = [*program.outputs, *program.new_states]
    for i, tensor in enumerate(program.outputs):
        w.answer(tensor, f"output{i}")
    prepare, once, before, loops = _until_the_end_of_loops(w, kept)
    phases = [layout.phase_of(leaf) for leaf in compiled.graph.states]
    for tensor, (_, after), phase in zip(program.new_states, compiled.states, phases):
        if layout.views[tensor].buffer is not after or not layout.views[tensor].contiguous:
            loops[phase].append(w.copied(Section.LOOP, layout.views[tensor], after, "n"))
    after_loop = w.section(Section.AFTER, "rows", kept)
    scatters = []
    for i, tensor in enumerate(program.outputs):
        scatters.append(w.scattered(Section.AFTER, layout.views[tensor], f"output{i}", tensor.dtype))
    finals = [_final(w, i, after) for i, (_, after) in enumerate(compiled.states)]
    keep = [
        f"copy_rows(n, {b.width}, at({w.variable(b)}, (n0 + off[last - 1] - q) * {b.width}), {w.variable(b)}, "
        "rank, size)"
        for _, b in compiled.states
    ]

    def the_loop(phase: int) -> list[str]:
        own = [line for line, number in zip(finals, phases) if number == phase]
        return [
            *_indented([*(_FORWARD_AGAIN if phase else []), *before[phase]], 1),
            "    for s in range(k, last):",
            "        n = following",
            "        r = here - q",
            "        i = here - r0",
            "        prev = 0 if s == 0 or (s == k and not taped) else n0 + before - q",
            *_indented([*_step_shadows(w, Space.PREVIOUS, phase), *loops[phase]], 2),
            "        following = off[s + 2] - off[s + 1] if s + 1 < steps else 0",
            "        if following < n:",
            *_indented(own or ["pass"], 3),
            "        before = here",
            "        here = here + n",
        ]

    lines = [
        *SHARD, *once,
        "n = off[1] - off[0] if steps > 0 else 0",
        "following = n",
        "before = 0",
        "here = 0",
        *(
            f"copy_rows(n0 - n, {b.width}, at({w.variable(b)}, n * {b.width}), at(final{i}, n * {b.width}), rank, size)"
            for i, (_, b) in enumerate(compiled.states)
        ),
        "k = 0",
        "while k < steps:",
        "    last = k + 1",
        "    r0 = off[k]",
        "    while last < steps and off[last + 1] - r0 <= limit:",
        "        last += 1",
        "    rows = off[last] - r0",
        "    q = 0 if taped else r0",
        *_indented([*_rooms(w), *_gathers(w, program), *_row_shadows(w)], 1),
        *(line for phase in layout.phases for line in the_loop(phase)),
        *_indented([*after_loop, *scatters], 1),
        "    if not taped and last < steps:",
        *_indented(keep or ["pass"], 2),
        "    k = last",
    ]  # fmt: skip
    source = w.module([_prepare(w, prepare), ("shard", "The time loop.", lines)], "Forward.")
    source.prepared = _prepared(w)
    return source


def backward_source(compiled: Compiled, width: int, target: Target = CPU) -> Source:
    """Return the backward program of a step. width: columns of a panel of packed weights."""
    program = compiled.backward
    w = Writer(program, width, target, backward=True)
    layout = program.layout
    folds: list[Buffer] = []
    totals: dict[int, View] = {}
    accumulators: list[Buffer] = []
    for i, (tensor, leaf) in enumerate(zip(compiled.d_constants, compiled.graph.constants)):
        if tensor is not None:
            accumulators.append(Buffer(f"d_constant{i}", "float", Space.ROW, layout.views[leaf].shape))
            w.add_up(tensor, accumulators[-1])
    for i, tensor in enumerate(compiled.d_parameters):
        if tensor is not None and layout.section.get(tensor) in (Section.LOOP, None):
            folds.append(Buffer(f"total{i}", "float", Space.FIXED, compiled.graph.parameters[i].shape))
            w.add_up(tensor, folds[-1])
            totals[i] = whole(folds[-1])
    kept = [t for t in (*compiled.d_states, *compiled.d_sequences) if t is not None]
    for i, tensor in enumerate(compiled.d_sequences):
        if tensor is not None:
            w.answer(tensor, f"d_sequence{i}")
    prepare, once, before, loops = _until_the_end_of_loops(w, kept)
    entering: list[list[str]] = [[] for _ in layout.phases]
    cuts: list[list[str]] = [[] for _ in layout.phases]
    ending = []
    for i, (tensor, flow) in enumerate(zip(compiled.d_states, compiled.flows)):
        if flow is None:
            continue
        into, out = flow
        carried = compiled.derivative.d_new_states[i]
        assert carried is not None
        phase, width_of = layout.phase_of(carried), into.width
        name = w.variable(into)
        w.external(f"d_final{i}", "float", Space.ROW, into.size)
        w.external(f"d_state{i}", "float", Space.ROW, into.size)
        entering[phase].append(
            f"copy_rows(n - active, {width_of}, at(d_final{i}, active * {width_of}), "
            f"at({name}, (slot * n0 + active) * {width_of}), rank, size)"
        )
        if tensor is None:
            loops[phase].append(f"zero_rows(n, {width_of}, {w.pointer(out, Section.LOOP)}, rank, size)")
        elif layout.views[tensor].buffer is not out or not layout.views[tensor].contiguous:
            loops[phase].append(w.copied(Section.LOOP, layout.views[tensor], out, "n"))
        cut = f"cut_rows(n, {width_of}, at(cut, off[s]), {w.pointer(out, Section.LOOP)}, rank, size)"
        cuts[phase].append(cut)
        ending += [
            f"copy_rows(active, {width_of}, at({name}, slot * n0 * {width_of}), d_state{i}, rank, size)",
            f"copy_rows(n0 - active, {width_of}, at(d_final{i}, active * {width_of}), "
            f"at(d_state{i}, active * {width_of}), rank, size)",
        ]
    after_loop = w.section(Section.AFTER, "rows", kept)
    for tensor, section in layout.section.items():
        if section is Section.AFTER and layout.rows[tensor] is Rows.SUM and tensor not in layout.moved:
            folds.append(layout.views[tensor].buffer)
    scatters = [
        w.scattered(Section.AFTER, layout.views[tensor], f"d_sequence{i}", "float")
        for i, tensor in enumerate(compiled.d_sequences)
        if tensor is not None
    ]
    folds = list(dict.fromkeys(folds))
    finish = w.section(Section.FINISH, "0")
    results: dict[str, int] = {}
    for i, tensor in enumerate(compiled.d_parameters):
        if tensor is None:
            continue
        gradient, view = compiled.graph.parameters[i], totals.get(i) or layout.views[tensor]
        if view.buffer in folds and view.covers and w.variable(view.buffer) not in results:
            results[w.variable(view.buffer)] = i
        else:
            answer = Buffer(f"d_parameter{i}", "float", Space.FIXED, gradient.shape)
            finish.append(w.copied(Section.FINISH, view, answer, "0"))
    zeros = [_zeros(w, b) for b in folds]
    zeros += [f"zero_rows(n0, {b.width}, {w.variable(b)}, rank, size)" for b in accumulators]

    def the_loop(phase: int) -> list[str]:
        return [
            *_indented([*(_BACKWARD_AGAIN if phase else []), *before[phase]], 1),
            "    for s in range(k - 1, first - 1, -1):",
            "        n = behind - here",
            "        r = here",
            "        i = here - r0",
            "        before = here - (off[s] - off[s - 1]) if s > 0 else 0",
            "        prev = 0 if s == 0 else n0 + before",
            "        if active < n:",
            *_indented(entering[phase] or ["pass"], 3),
            *_indented([*_step_shadows(w, Space.FLOW_IN, phase), *loops[phase]], 2),
            "        if cutting != 0:",
            *_indented(cuts[phase] or ["pass"], 3),
            "        active = n",
            "        slot = 1 - slot",
            "        behind = here",
            "        here = before",
        ]

    lines = [
        *SHARD, "cut = bytes_(P, 3)", "cutting = cutting_of(N, off[steps], cut)",
        *(["further = N[9]"] if target.rounds else []),
        *once, *zeros,
        "q = 0",
        "slot = 0",
        "active = 0",
        "behind = off[steps]",
        "here = off[steps - 1] if steps > 0 else 0",
        "k = steps",
        "while k > 0:",
        "    first = k - 1",
        "    while first > 0 and off[k] - off[first - 1] <= limit:",
        "        first -= 1",
        "    r0 = off[first]",
        "    rows = off[k] - r0",
        *([f"    again = 0 if k == steps{' and further == 0' if target.rounds else ''} else 1"] if w.anew else []),
        *_indented([*_rooms(w), *_gathers(w, program), *_row_shadows(w), *_previous_shadows(w)], 1),
        *(line for phase in layout.phases for line in the_loop(phase)),
        *_indented([*after_loop, *scatters], 1),
        "    k = first",
        *ending,
    ]  # fmt: skip
    entries = [
        _prepare(w, prepare),
        ("shard", "The time loop, from its end.", lines),
        ("fold", "What another shard has summed is added.", _folds(w, folds)),
    ]
    if finish:  # sums may be gradients as they are
        entries.append(("finish", "Gradients of the parameters, from sums over all samples.", finish))
    source = w.module(entries, "Backward.")
    source.prepared, source.results = _prepared(w), results
    return source


def _zeros(w: Writer, total: Buffer) -> str:
    """Return the call that makes a sum zero: unless the first block's takes its place, or it goes on."""
    columns = total.shape[-1] if total.shape else 1
    there = ["steps > 0"] if total in w.anew else []
    there += ["further != 0"] if w.target.rounds else []
    unless = f"0 if {' or '.join(there)} else " if there else ""
    rows = f"{unless}{total.width // max(1, number(columns))}"
    return f"zero_rows({rows}, {columns}, {w.variable(total)}, rank, size)"


def _prepare(w: Writer, calls: list[str]) -> tuple[str, str, list[str]]:
    return "prepare", "What depends on parameters alone.", [*calls, *w.packing]


def _folds(w: Writer, folds: Sequence[Buffer]) -> list[str]:
    """Return the lines that add another shard's sums to this one's."""
    slots = {name: i + FIRST_SLOT for i, name in enumerate(w.memory)}
    return [f"add_part({b.width}, floats(Q, {slots[b.name]}), {b.name}, rank, size)" for b in folds]


def _until_the_end_of_loops(
    w: Writer, kept: Sequence[Tensor]
) -> tuple[list[str], list[str], list[list[str]], list[list[str]]]:
    """Return the calls of the sections that come once, and for each phase those before its loop and those in it."""
    prepare, once = w.section(Section.PREPARE, "0", kept), w.section(Section.ONCE, "n0", kept)
    before, loops = [], []
    for phase in w.layout.phases:
        before.append(w.section(Section.BEFORE, "rows", kept, phase))
        loops.append(w.section(Section.LOOP, "n", kept, phase))
    return prepare, once, before, loops


def _prepared(w: Writer) -> list[str]:
    """Return the memory that `prepare` writes: computed of parameters alone, once for all shards."""
    names = [b.name for b in w.panels.values()]
    for unit in w.program.units[Section.PREPARE]:
        names += [w.layout.views[t].buffer.name for t in unit.stored]
    return [name for name in dict.fromkeys(names) if name in w.memory]


def _final(w: Writer, i: int, after: Buffer) -> str:
    w.external(f"final{i}", after.kind, Space.ROW, after.size)
    return (
        f"copy_rows(n - following, {after.width}, at({w.variable(after)}, (n0 + r + following) * {after.width}), "
        f"at(final{i}, following * {after.width}), rank, size)"
    )


def _gathers(w: Writer, program: Program) -> list[str]:
    """Return the lines that fetch a block's rows of the sequences that are read."""
    lines = []
    for name, buffer in program.gathered.items():
        if any(buffer in f.parameters for f in w.users):
            w.external(name, buffer.kind, Space.FIXED, buffer.width)
            arguments = f"(rows, {buffer.width}, {name}, at(pos, r0), {w.variable(buffer)}, rank, size)"
            found = w.rows.get(buffer)
            lines.append(f"gather_rows{arguments}" if found is None else f"{found} = rows_at{arguments}")
    return lines


def _rooms(w: Writer) -> list[str]:
    """Return the lines that say where a block's rows of answers are to be written, and how many are copied then."""
    lines = ["apart = 0 if in_a_row(rows, at(pos, r0)) else rows"] if w.rooms else []
    for buffer, name in w.rooms.items():
        lines.append(f"{w.rows[buffer]} = room_at(rows, {buffer.width}, {name}, at(pos, r0), {w.variable(buffer)})")
    return lines


def _row_shadows(w: Writer) -> list[str]:
    return [
        f"gather_rows(rows, {b.width}, {w.variable(b)}, at(rid, r0), {w.variable(shadow)}, rank, size)"
        for b, shadow in w.shadows.items()
        if b.space is Space.ROW
    ]


def _step_shadows(w: Writer, space: Space, phase: int) -> list[str]:
    """Return the lines, inside a phase's loop, that keep what is there for one step only."""
    return [
        f"copy_rows(n, {b.width}, {w.pointer(b, Section.LOOP)}, at({w.variable(shadow)}, i * {b.width}), rank, size)"
        for b, shadow in w.shadows.items()
        if b.space is space and w.layout.phase_of_memory(b) == phase
    ]


def _previous_shadows(w: Writer) -> list[str]:
    """Return the lines that gather, for a block, the states before each step."""
    lines = []
    for b, shadow in w.shadows.items():
        if b.space is Space.PREVIOUS:
            arguments = f"(first, k, {b.width}, n0, off, {w.variable(b)}, {w.variable(shadow)}, rank, size)"
            found = w.rows.get(shadow)
            lines.append(f"gather_previous{arguments}" if found is None else f"{found} = previous_at{arguments}")
    return lines


def _indented(lines: Iterable[str], depth: int) -> list[str]:
    return [INDENT * depth + line for line in lines]
