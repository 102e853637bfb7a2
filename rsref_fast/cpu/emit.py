"""From programs to source: one function for each unit, and the loops over blocks and steps that call them.

All memory is the caller's: `P` holds its addresses and `N` numbers (see `Numbers`). Rows are packed: those of step s
are `off[s]` to `off[s + 1]`, as many as take part in it, the same ones first at every step; `pos` says which sample and
time of the caller's arrays a row is, `rid` which row of the shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsref.tensor import ConstantSource, Parameter, Tensor
from rsref_fast.cpu import loops, products
from rsref_fast.cpu.text import INDENT, Function, collapsed
from rsref_fast.expressions import Expression, cast, expression, literal
from rsref_fast.fuse import Unit
from rsref_fast.layout import BLOCKWISE, Section
from rsref_fast.lengths import text_of, times
from rsref_fast.program import Compiled, Program
from rsref_fast.rows import Rows
from rsref_fast.views import Buffer, Space, View, row_major, whole

POINTERS = {"float": "floats", "int": "ints", "bool": "bytes_"}
FIRST_SLOT = 4
"""P[0] to P[3]: off, pos, rid, cut."""


@dataclass(frozen=True)
class Memory:
    """A piece of memory that a program is given: its name, what its elements are, how many rows it has."""

    name: str
    kind: str
    space: Space
    size: Any
    """A `Length`, for as many rows as the space has."""
    given: bool = False
    """Whether it is an array of the caller's, not the engine's own memory."""


@dataclass
class Source:
    """A program as text.

    text: a module that defines `entries`, functions of P and N. memory: what P holds after its first slots.
    fixed: for each parameter or fixed array that is read, by the memory's name, the leaf it is.
    folds: names of the memory that holds sums over a shard's samples. prepared: written by `prepare`.
    """

    text: str
    entries: tuple[str, ...]
    memory: list[Memory]
    fixed: dict[str, Tensor]
    folds: list[str] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)


class Writer:
    """Collects functions and memory of one program."""

    def __init__(self, program: Program, width: int):
        self.program = program
        self.layout = program.layout
        self.width = width
        self.functions: list[Function] = []
        self.users: list[Function] = []
        self.texts: dict[str, str] = {}
        self.memory: dict[str, Memory] = {}
        self.fixed: dict[str, Tensor] = {}
        self.panels: dict[tuple[Any, ...], Buffer] = {}
        self.shadows: dict[Buffer, Buffer] = {}
        self.packing: list[str] = []
        self.values: dict[Buffer, Any] = {
            buffer: leaf.source.value.reshape(())[()]
            for buffer, leaf in self.layout.constants.items()
            if isinstance(leaf.source, ConstantSource) and leaf.source.value.size == 1
        }

    # --- memory ---------------------------------------------------------------------------------------------------

    def variable(self, buffer: Buffer) -> str:
        """Return the name of the variable that holds a buffer's address, and make room for it in P."""
        name = buffer.memory or buffer.name
        leaf = self.layout.constants.get(buffer)
        if leaf is not None:
            self.fixed[name] = leaf
        space = buffer.space
        space = Space.CURRENT if space is Space.PREVIOUS else Space.FLOW_IN if space is Space.FLOW_OUT else space
        given = leaf is not None or re.fullmatch(r"(constant|d_constant|d_parameter)\d+", name) is not None
        self.memory.setdefault(name, Memory(name, buffer.kind, space, buffer.size, given))
        return name

    def external(self, name: str, kind: str, space: Space, size: Any) -> str:
        self.memory.setdefault(name, Memory(name, kind, space, size, True))
        return name

    def pointer(self, buffer: Buffer, section: Section) -> str:
        """Return the address of the rows that a section works on."""
        if section in BLOCKWISE and buffer.space in (Space.ROW, Space.PREVIOUS, Space.FLOW_IN):
            return self.variable(self.shadow(buffer))
        rows = {
            (Space.BLOCK, Section.LOOP): "i",
            (Space.PACKED, Section.LOOP): "r",
            (Space.PREVIOUS, Section.LOOP): "prev",
            (Space.CURRENT, Section.LOOP): "(n0 + r)",
            (Space.FLOW_IN, Section.LOOP): "slot * n0",
            (Space.FLOW_OUT, Section.LOOP): "(1 - slot) * n0",
            (Space.PACKED, Section.BEFORE): "(r0 - q)",
            (Space.PACKED, Section.AFTER): "(r0 - q)",
            (Space.CURRENT, Section.BEFORE): "(n0 + r0 - q)",
            (Space.CURRENT, Section.AFTER): "(n0 + r0 - q)",
        }.get((buffer.space, section))
        name = self.variable(buffer)
        return name if rows is None else f"at({name}, {rows} * {buffer.width})"

    def shadow(self, buffer: Buffer) -> Buffer:
        """Return memory for a block's rows of what otherwise has one row a sample, or is there for one step."""
        if buffer not in self.shadows:
            self.shadows[buffer] = Buffer(f"{buffer.name}_block", buffer.kind, Space.BLOCK, buffer.shape)
        return self.shadows[buffer]

    # --- functions ------------------------------------------------------------------------------------------------

    def call(self, function: Function, section: Section, rows: str) -> str:
        """Return the call of a function on the rows of a section; functions of one text are one."""
        function.name = self._shared(function)
        return ", ".join(
            [f"{function.name}({rows}", *(self.pointer(b, section) for b in function.parameters), *function.extra]
        ) + ")"  # fmt: skip

    def _shared(self, function: Function) -> str:
        text = function.source().replace(f"def {function.name}(", "def (").replace(function.comment, "")
        if text not in self.texts:
            self.texts[text] = function.name
            self.functions.append(function)
        self.users.append(function)
        return self.texts[text]

    def new_function(self, label: str, comment: str) -> Function:
        return Function(f"{label}_{len(self.users)}", comment, self.values)

    def unit(self, unit: Unit, section: Section, rows: str) -> str:
        """Return the line that computes a unit; nothing if its parts were computed in place."""
        names = "_".join(dict.fromkeys(t.op.name for t in unit.tensors if t.op))
        comment = f"{', '.join(t.op.name for t in unit.tensors if t.op)}: {' x '.join(text_of(n) for n in unit.shape)}"
        function = self.new_function(names if len(unit.tensors) == 1 else "fused", comment)
        tensor = unit.tensors[0]
        views = self.layout.views
        add = section is Section.AFTER and self.layout.rows[tensor] is Rows.SUM
        if unit.fused and tensor.op is not None and tensor.op.name not in loops.RULES:
            self._fused(function, unit)
        elif tensor.op is not None and tensor.op.name == "matmul":
            self._product(function, tensor, add)
        else:
            loops.emit(function, tensor, views[tensor], [views[i] for i in tensor.inputs], add)
        return self.call(function, section, rows) if function.lines else ""

    def _product(self, function: Function, tensor: Tensor, add: bool) -> None:
        left, right = (self.layout.views[i] for i in tensor.inputs)
        panels = None
        if products.has_panels(tensor.inputs[1], right):
            key = (right.buffer, right.offset, right.shape, right.strides)
            if key not in self.panels:
                self.panels[key] = products.panels_of(f"panels{len(self.panels)}", right, self.width)
                packing = self.new_function("pack", "weights into panels")
                products.pack(packing, right, self.panels[key])
                self.packing.append(self.call(packing, Section.PREPARE, "0"))
            panels = self.panels[key]
        products.product(function, self.layout.views[tensor], left, right, panels, add)

    def _fused(self, function: Function, unit: Unit) -> None:
        views = self.layout.views
        members = {t: f"v{i}" for i, t in enumerate(unit.tensors)}
        read = {i for t in unit.tensors for i in t.inputs if i not in members and t.op and t.op.name != "count"}
        used = [*read, *unit.stored]
        shape, flat = collapsed(unit.shape, [views[t] for t in used])
        place = dict(zip(used, flat))
        with function.nest(shape) as index:
            loaded: dict[Tensor, Expression] = {}
            for tensor in unit.tensors:
                if tensor.op is not None and tensor.op.name == "count":
                    value = self._count(tensor)
                else:
                    for i in tensor.inputs:
                        if i not in members and i not in loaded:
                            loaded[i] = self._loaded(function, place[i], index, f"x{len(loaded)}")
                    operands = [Expression(members[i], i.dtype) if i in members else loaded[i] for i in tensor.inputs]
                    value = self._value(tensor, operands)
                function.add(f"{members[tensor]} = {cast(value, tensor.dtype).text}")
                if tensor in unit.stored:
                    function.store(place[tensor], index, members[tensor])

    def _loaded(self, function: Function, view: View, index: list[str], name: str) -> Expression:
        value = function.load(view, index)
        if view.buffer in self.values:
            return value
        function.add(f"{name} = {value.text}")
        return Expression(name, value.kind)

    def _value(self, tensor: Tensor, operands: list[Expression]) -> Expression:
        if tensor.op is not None and tensor.op.name == "cast":
            return cast(operands[0], tensor.dtype)
        return expression(tensor.op, operands)  # type: ignore[arg-type]

    def _count(self, tensor: Tensor) -> Expression:
        shape = self.layout.shapes[tensor.inputs[0]]
        length = times(1, *(shape[a] for a in tensor.attrs["axes"]))
        return literal(float(length)) if isinstance(length, int) else Expression(f"F({text_of(length)})", "float")

    def copied(self, section: Section, source: View, target: Buffer, rows: str, add: bool = False) -> str:
        """Return the line that copies a view into memory, or adds it to what is there."""
        function = self.new_function("add" if add else "copy", f"into {target.name}")
        shape = target.shape
        loops.copy(function, View(target, shape, row_major(shape)), source, add)
        return self.call(function, section, rows)

    def scattered(self, section: Section, source: View, name: str, kind: str) -> str:
        """Return the line that writes a block's rows to their places in an array (batch, time, ...)."""
        width = source_width(source)
        target = Buffer(name, kind, Space.FIXED, (width,))
        function = self.new_function("scatter", f"into {name}")
        function.extra.append("index")
        with function.nest(source.shape[:1]) as row:
            function.add(f"o = index[{row[0]}]*{width}")
            inner = source.shape[1:]
            with function.nest(inner, "j") as i:
                flat = View(target, inner, row_major(inner))
                place = function.place(flat, i)
                value = function.load(source, [*row, *i])
                text = f"U({value.text})" if kind == "bool" else cast(value, kind).text
                function.add(f"{function.pointer(target)}[o + {place}] = {text}")
        function.name = self._shared(function)
        arguments = [name if buffer is target else self.pointer(buffer, section) for buffer in function.parameters]
        self.external(name, kind, Space.FIXED, width)
        return f"{function.name}(rows, {', '.join(arguments)}, at(pos, r0))"

    # --- the module ----------------------------------------------------------------------------------------------

    def section(self, section: Section, rows: str) -> list[str]:
        lines = (self.unit(unit, section, rows) for unit in self.program.units[section])
        return [line for line in lines if line]

    def module(self, entries: Iterable[tuple[str, str, list[str]]], title: str) -> Source:
        """Return the source of all functions and of the entries (name, comment, lines)."""
        names = []
        parts = [f'"""{title}"""', "from rsref_fast.cpu.runtime import *"]
        parts += [f.source() for f in self.functions]
        slots = {name: i + FIRST_SLOT for i, name in enumerate(self.memory)}
        for name, comment, lines in entries:
            names.append(name)
            body = "\n".join(lines)
            variables = [
                f"{INDENT}{m.name} = {POINTERS[m.kind]}(P, {slots[m.name]})"
                for m in self.memory.values()
                if _mentions(body, m.name)
            ]
            header = [f"@entry\ndef {name}(P, N):", f'{INDENT}"""{comment}"""']
            parts.append("\n".join([*header, *variables, *(INDENT + line for line in lines), f"{INDENT}return 0"]))
        choice = "".join(f"{INDENT}if N[5] == {i}:\n{INDENT * 2}{name}(P, N)\n" for i, name in enumerate(names))
        parts.append(f'@entry\ndef run(P, N):\n{INDENT}"""What N[5] asks for."""\n{choice}{INDENT}return 0')
        return Source("\n\n\n".join(parts) + "\n", tuple(names), list(self.memory.values()), dict(self.fixed))


def source_width(view: View) -> int:
    return Buffer("", view.buffer.kind, Space.BLOCK, view.shape).width


def _mentions(body: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", body) is not None


SHARD = [
    "n0 = N[0]",
    "steps = N[1]",
    "limit = N[2]",
    "taped = N[4]",
    "off = ints(P, 0)",
    "pos = ints(P, 1)",
    "rid = ints(P, 2)",
]


def forward_source(compiled: Compiled, width: int) -> Source:
    """Return the forward program of a step. width: columns of a panel of packed weights."""
    program = compiled.forward
    w = Writer(program, width)
    layout = program.layout
    prepare = w.section(Section.PREPARE, "0")
    once = w.section(Section.ONCE, "n0")
    before = w.section(Section.BEFORE, "rows")
    loop = w.section(Section.LOOP, "n")
    for tensor, (_, after) in zip(compiled.new_states, compiled.states):
        if layout.views[tensor].buffer is not after or not layout.views[tensor].contiguous:
            loop.append(w.copied(Section.LOOP, layout.views[tensor], after, "n"))
    after_loop = w.section(Section.AFTER, "rows")
    scatters = []
    for i, tensor in enumerate(compiled.outputs):
        scatters.append(w.scattered(Section.AFTER, layout.views[tensor], f"output{i}", tensor.dtype))
    finals = [_final(w, i, after) for i, (_, after) in enumerate(compiled.states)]
    keep = [
        f"copy_rows(n, {b.width}, at({w.variable(b)}, (n0 + off[last - 1] - q) * {b.width}), {w.variable(b)})"
        for _, b in compiled.states
    ]
    lines = [
        *SHARD, *once,
        "n = off[1] - off[0] if steps > 0 else 0",
        "following = n",
        *(f"copy_rows(n0 - n, {b.width}, at({w.variable(b)}, n * {b.width}), at(final{i}, n * {b.width}))"
          for i, (_, b) in enumerate(compiled.states)),
        "k = 0",
        "while k < steps:",
        "    last = k + 1",
        "    r0 = off[k]",
        "    while last < steps and off[last + 1] - r0 <= limit:",
        "        last += 1",
        "    rows = off[last] - r0",
        "    q = 0 if taped else r0",
        *_indented(_gathers(w, program), 1),
        *_indented(_row_shadows(w), 1),
        *_indented(before, 1),
        "    for s in range(k, last):",
        "        n = off[s + 1] - off[s]",
        "        r = off[s] - q",
        "        i = off[s] - r0",
        "        prev = 0 if s == 0 or (s == k and not taped) else n0 + off[s - 1] - q",
        *_indented(_step_shadows(w), 2),
        *_indented(loop, 2),
        "        following = off[s + 2] - off[s + 1] if s + 1 < steps else 0",
        "        if following < n:",
        *_indented(finals or ["pass"], 3),
        *_indented(after_loop, 1),
        *_indented(scatters, 1),
        "    if not taped:",
        *_indented(keep or ["pass"], 2),
        "    k = last",
    ]  # fmt: skip
    source = w.module(
        [("prepare", "What depends on parameters alone.", [*prepare, *w.packing]), ("shard", "The time loop.", lines)],
        "Forward.",
    )
    source.prepared = _prepared(w)
    return source


def backward_source(compiled: Compiled, width: int) -> Source:
    """Return the backward program of a step. width: columns of a panel of packed weights."""
    program = compiled.backward
    w = Writer(program, width)
    layout = program.layout
    prepare = w.section(Section.PREPARE, "0")
    once = w.section(Section.ONCE, "n0")
    before = w.section(Section.BEFORE, "rows")
    loop = w.section(Section.LOOP, "n")
    folds: list[Buffer] = []
    totals: dict[int, View] = {}
    for i, tensor in enumerate(compiled.d_constants):
        if tensor is not None:
            target = Buffer(f"d_constant{i}", "float", Space.ROW, layout.shapes[compiled.graph.constants[i]] if
                            compiled.graph.constants[i] in layout.shapes else layout.shapes[tensor])  # fmt: skip
            loop.append(w.copied(Section.LOOP, layout.views[tensor], target, "n", add=True))
    for i, tensor in enumerate(compiled.d_parameters):
        if tensor is not None and layout.section.get(tensor) in (Section.LOOP, None):
            target = Buffer(f"total{i}", "float", Space.FIXED, compiled.graph.parameters[i].shape)
            loop.append(w.copied(Section.LOOP, layout.views[tensor], target, "n", add=True))
            folds.append(target)
            totals[i] = whole(target)
    entering, ending = [], []
    for i, (tensor, flow) in enumerate(zip(compiled.d_states, compiled.flows)):
        if flow is None:
            continue
        into, out = flow
        width_of = into.width
        name = w.variable(into)
        w.external(f"d_final{i}", "float", Space.ROW, into.size)
        w.external(f"d_state{i}", "float", Space.ROW, into.size)
        entering.append(
            f"copy_rows(n - active, {width_of}, at(d_final{i}, active * {width_of}), "
            f"at({name}, (slot * n0 + active) * {width_of}))"
        )
        if tensor is None:
            loop.append(f"zero(n * {width_of}, {w.pointer(out, Section.LOOP)})")
        elif layout.views[tensor].buffer is not out or not layout.views[tensor].contiguous:
            loop.append(w.copied(Section.LOOP, layout.views[tensor], out, "n"))
        loop.append(f"cut_rows(n, {width_of}, at(cut, off[s]), {w.pointer(out, Section.LOOP)})")
        ending += [
            f"copy_rows(active, {width_of}, at({name}, slot * n0 * {width_of}), d_state{i})",
            f"copy_rows(n0 - active, {width_of}, at(d_final{i}, active * {width_of}), at(d_state{i}, active * {width_of}))",
        ]
    after_loop = w.section(Section.AFTER, "rows")
    for tensor, section in layout.section.items():
        if section is Section.AFTER and layout.rows[tensor] is Rows.SUM and tensor not in layout.moved:
            folds.append(layout.views[tensor].buffer)
    scatters = [
        w.scattered(Section.AFTER, layout.views[tensor], f"d_sequence{i}", "float")
        for i, tensor in enumerate(compiled.d_sequences)
        if tensor is not None
    ]
    finish = w.section(Section.FINISH, "0")
    for i, tensor in enumerate(compiled.d_parameters):
        if tensor is not None:
            target = Buffer(f"d_parameter{i}", "float", Space.FIXED, compiled.graph.parameters[i].shape)
            finish.append(w.copied(Section.FINISH, totals.get(i, layout.views[tensor]), target, "0"))
    folds = list(dict.fromkeys(folds))
    zeros = [f"zero({b.width}, {w.variable(b)})" for b in folds]
    zeros += [
        f"zero(n0 * {b.width}, {w.variable(b)})"
        for b in (p for f in w.users for p in f.parameters)
        if b.name.startswith("d_constant")
    ]
    lines = [
        *SHARD, "cut = bytes_(P, 3)", *once, *zeros,
        "q = 0",
        "slot = 0",
        "active = 0",
        "k = steps",
        "while k > 0:",
        "    first = k - 1",
        "    while first > 0 and off[k] - off[first - 1] <= limit:",
        "        first -= 1",
        "    r0 = off[first]",
        "    rows = off[k] - r0",
        *_indented(_gathers(w, program), 1),
        *_indented(_row_shadows(w), 1),
        *_indented(_previous_shadows(w), 1),
        *_indented(before, 1),
        "    for s in range(k - 1, first - 1, -1):",
        "        n = off[s + 1] - off[s]",
        "        r = off[s]",
        "        i = off[s] - r0",
        "        prev = 0 if s == 0 else n0 + off[s - 1]",
        *_indented(entering, 2),
        "        active = n",
        *_indented(_step_shadows(w, Space.FLOW_IN), 2),
        *_indented(loop, 2),
        "        slot = 1 - slot",
        *_indented(after_loop, 1),
        *_indented(scatters, 1),
        "    k = first",
        *ending,
    ]  # fmt: skip
    source = w.module(
        [
            ("prepare", "What depends on parameters alone.", [*prepare, *w.packing]),
            ("shard", "The time loop, from its end.", lines),
            ("finish", "Gradients of the parameters, from sums over all samples.", finish),
        ],
        "Backward.",
    )
    source.folds = [b.name for b in folds]
    source.prepared = _prepared(w)
    return source


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
        f"at(final{i}, following * {after.width}))"
    )


def _gathers(w: Writer, program: Program) -> list[str]:
    """Return the lines that fetch a block's rows of the sequences that are read."""
    lines = []
    for name, buffer in program.gathered.items():
        if any(buffer in f.parameters for f in w.users):
            w.external(name, buffer.kind, Space.FIXED, buffer.width)
            lines.append(f"gather_rows(rows, {buffer.width}, {name}, at(pos, r0), {w.variable(buffer)})")
    return lines


def _row_shadows(w: Writer) -> list[str]:
    return [
        f"gather_rows(rows, {b.width}, {w.variable(b)}, at(rid, r0), {w.variable(shadow)})"
        for b, shadow in w.shadows.items()
        if b.space is Space.ROW
    ]


def _step_shadows(w: Writer, space: Space = Space.PREVIOUS) -> list[str]:
    """Return the lines, inside the time loop, that keep what is there for one step only."""
    return [
        f"copy_rows(n, {b.width}, {w.pointer(b, Section.LOOP)}, at({w.variable(shadow)}, i * {b.width}))"
        for b, shadow in w.shadows.items()
        if b.space is space
    ]


def _previous_shadows(w: Writer) -> list[str]:
    """Return the lines that gather, for a block, the states before each step."""
    copies = [
        f"    copy_rows(n, {b.width}, at({w.variable(b)}, prev * {b.width}), "
        f"at({w.variable(shadow)}, (off[s] - r0) * {b.width}))"
        for b, shadow in w.shadows.items()
        if b.space is Space.PREVIOUS
    ]
    if not copies:
        return []
    return [
        "for s in range(first, k):",
        "    n = off[s + 1] - off[s]",
        "    prev = 0 if s == 0 else n0 + off[s - 1]",
        *copies,
    ]


def _indented(lines: Iterable[str], depth: int) -> list[str]:
    return [INDENT * depth + line for line in lines]


__all__ = ["FIRST_SLOT", "Memory", "Source", "backward_source", "forward_source", "np"]
