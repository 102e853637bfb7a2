"""A compiled step in words: what was moved, merged and fused, which memory it takes, and how much it computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from rsref.tensor import Tensor
from rsref_fast.layout import Layout, Section
from rsref_fast.lengths import Varying, sized
from rsref_fast.program import Compiled, Program
from rsref_fast.rows import Rows
from rsref_fast.views import Space

TITLES = {
    Section.PREPARE: "once a call, of parameters alone",
    Section.ONCE: "once a call, for each sample",
    Section.BEFORE: "hoisted: for a block of steps, before its loop",
    Section.LOOP: "step by step",
    Section.AFTER: "sunk: for a block of steps, after its loop",
    Section.FINISH: "once a call, of sums over all samples",
}
LATER_LOOPS = {
    Section.BEFORE: "between loops: for a block of steps, before loop {}",
    Section.LOOP: "step by step, loop {}",
}
STEPPED = (Section.BEFORE, Section.LOOP, Section.AFTER)
FUNCTIONS = (
    "exp", "expm1", "log", "log1p", "power", "sigmoid", "tanh", "erf", "erfc", "softplus", "sin", "cos", "tan",
    "arctan", "arctan2", "sinh", "cosh",
)  # fmt: skip


def flops_a_row(program: Program, sections: Collection[Section] = STEPPED) -> int:
    """Return the additions and multiplications for one sample and step: products exactly, other ops one an element.

    sections: which ones count; of `Section.ONCE` for a sample.
    """
    layout = program.layout
    return sum(
        flops_of(layout, tensor)
        for tensor, section in layout.section.items()
        if section in sections and tensor not in layout.moved
    )


def functions_a_row(program: Program, sections: Collection[Section] = STEPPED) -> int:
    """Return how many exponentials, logarithms and the like one sample and step takes. sections: as above."""
    layout = program.layout
    return sum(
        flops_of(layout, tensor)
        for tensor, section in layout.section.items()
        if section in sections and tensor.op_name in FUNCTIONS
    )


def flops_of(layout: Layout, tensor: Tensor) -> int:
    shape = layout.shapes[tensor]
    elements = 1
    for length in shape:
        elements *= max(1, sized(length, 1))
    if tensor.op_name == "matmul":
        return 2 * elements * sized(layout.shapes[tensor.inputs[0]][-1], 1)
    return elements


def tape_bytes_a_row(compiled: Compiled, itemsize: int) -> int:
    """Return how many bytes forward keeps for backward, for one sample and step."""
    layout = compiled.forward.layout
    buffers = {layout.views[t].buffer for t in layout.section if t not in layout.moved}
    buffers |= {after for _, after in compiled.states}
    kept = [b for b in buffers if b.space in (Space.PACKED, Space.CURRENT)]
    return sum(b.width * (itemsize if b.kind == "float" else 8 if b.kind == "int" else 1) for b in kept)


def explain(compiled: Compiled, itemsize: int) -> str:
    """Return the plan of a step, forward and backward, as text."""
    lines = []
    for name, program in (("forward", compiled.forward), ("backward", compiled.backward)):
        if name == "backward" and compiled.derivative.missing:
            lines.append(f"backward: none, since {compiled.derivative.missing}")
            continue
        if name == "backward":
            lines += [f"backward: not of output {i}, since {why}" for i, why in compiled.derivative.blocked.items()]
        lines.append(f"{name}: {flops_a_row(program):,} flops for each sample and step")
        for section, phase in _parts(program):
            lines += _section(program, section, phase)
    lines.append(f"tape: {tape_bytes_a_row(compiled, itemsize):,} bytes for each sample and step")
    lines.append(
        "samples: mixed by some op, so a batch is not split and masked rows are left out step by step"
        if compiled.mixes
        else "samples: independent, so a batch is split among threads and masked steps cost nothing"
    )
    return "\n".join(lines)


def _parts(program: Program) -> Iterable[tuple[Section, int]]:
    """Return the sections in the order in which they run, those around a loop for each of the phases."""
    loops = [(section, phase) for phase in program.layout.phases for section in (Section.BEFORE, Section.LOOP)]
    return [(Section.PREPARE, 0), (Section.ONCE, 0), *loops, (Section.AFTER, 0), (Section.FINISH, 0)]


def _section(program: Program, section: Section, phase: int) -> Iterable[str]:
    units = program.units_of(section, phase)
    if not units:
        return
    factors = {t.inputs[1] for t in program.layout.section if t.op_name == "matmul"}
    yield f"  {LATER_LOOPS[section].format(phase + 1) if phase else TITLES[section]}:"
    for unit in units:
        shape = " x ".join("rows" if isinstance(n, Varying) else str(n) for n in unit.shape) or "one number"
        names = Counter(t.op.name for t in unit.tensors if t.op)
        what = ", ".join(name if n == 1 else f"{n} {name}" for name, n in names.items())
        total = section is Section.AFTER and program.layout.rows[unit.tensors[-1]] is Rows.SUM
        note = f" fused into one loop, {len(unit.stored)} stored" if len(unit.tensors) > 1 else ""
        if unit.tensors[-1] in factors and "concatenate" in names and section is Section.PREPARE:
            note = f": {len(unit.tensors[-1].inputs)} products merged into one"
        if unit.adds_up:
            note = ": added up as it is computed"
        if unit.tensors[-1] in program.layout.sums:
            row = program.layout.begins_with_row(unit.tensors[-1])
            note = f": the product {'begins with a row' if row else 'is added to what is there'}"
        yield f"    {what} ({shape}{', summed over all samples and steps' if total else ''}){note}"
