"""From programs to source: one function for each unit, and the loops over blocks and steps that call them.

All memory is the caller's: `P` holds its addresses, `N` numbers, `Q` the addresses of another shard. Rows are packed:
those of step s are `off[s]` to `off[s + 1]`, as many as take part in it, the same ones first at every step; `pos` says
which sample and time of the caller's arrays a row is, `rid` which row of the shard.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from rsref.tensor import ConstantSource, Tensor
from rsref_fast.cpu import loops, nests, products
from rsref_fast.cpu.joining import Joined, joined
from rsref_fast.cpu.pieces import Run, memory_of, runs
from rsref_fast.cpu.source import FIRST_SLOT, Held, Memory, Source
from rsref_fast.cpu.target import CPU, Target
from rsref_fast.cpu.text import INDENT, Computed, Function
from rsref_fast.cpu.touches import Touched, anywhere, touched_by
from rsref_fast.expressions import cast
from rsref_fast.fuse import Unit, added_as_computed
from rsref_fast.layout import BLOCKWISE, Section
from rsref_fast.lengths import Varying, text_of
from rsref_fast.program import Program
from rsref_fast.rows import Rows
from rsref_fast.views import Buffer, Space, View, row_major

PARTS = re.compile(r"\bpart_(\d+)\b")
"""Names of words that say which units a block of threads has, of how many."""

POINTERS = {"float": "floats", "int": "ints", "bool": "bytes_"}


class Writer:
    """Collects functions and memory of one program."""

    def __init__(self, program: Program, width: int, target: Target = CPU, backward: bool = False):
        self.target = target
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
        self.backward = backward
        self.rows = {b: f"{b.name}_rows" for b in program.gathered.values()} if target.in_place else {}
        self.rooms: dict[Buffer, str] = {}
        self.packing: list[str] = []
        self.held: list[Held] = []
        self.touched: dict[str, Touched] = {}
        self.early: dict[str, Touched] = {}
        self.added: dict[Tensor | None, list[tuple[View, Buffer]]] = {}
        self.totals: set[Buffer] = set()
        self.anew: set[Buffer] = set()
        self.run = Run(())
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
        buffer = self._seen(buffer, section)
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
        name = self.rows.get(buffer, self.variable(buffer))
        if self.run.samples and isinstance(buffer.size, Varying) and buffer not in self.run.private:
            rows = "c" if rows is None else f"({rows} + c)"
        return name if rows is None else f"at({name}, {rows} * {buffer.width})"

    def answer(self, tensor: Tensor, name: str) -> None:
        """Let a tensor be written to its places in an array (batch, time, ...) where a block's rows follow each other.

        Its memory must hold nothing else, and not be read after the block.
        """
        view = self.layout.views[tensor]
        own = view.covers and view.buffer.space is Space.BLOCK and view.buffer.kind == tensor.dtype == "float"
        if self.target.in_place and own and view.buffer not in self.rows:
            self.rows[view.buffer], self.rooms[view.buffer] = f"{view.buffer.name}_rows", name

    def _seen(self, buffer: Buffer, section: Section) -> Buffer:
        """Return the memory that stands for a buffer in a section."""
        shadowed = section in BLOCKWISE and buffer.space in (Space.ROW, Space.PREVIOUS, Space.FLOW_IN)
        return self.shadow(buffer) if shadowed and buffer not in self.totals else buffer

    def shadow(self, buffer: Buffer) -> Buffer:
        """Return memory for a block's rows of what otherwise has one row a sample, or is there for one step."""
        if buffer not in self.shadows:
            shadow = self.shadows[buffer] = Buffer(f"{buffer.name}_block", buffer.kind, Space.BLOCK, buffer.shape)
            if self.target.in_place and self.backward and buffer.space is Space.PREVIOUS:
                self.rows[shadow] = f"{buffer.name}_rows"
        return self.shadows[buffer]

    # --- functions ------------------------------------------------------------------------------------------------

    def call(self, function: Function, section: Section, rows: str) -> str:
        """Return the call of a function on the rows of a section; functions of one text are one."""
        function.name = self._shared(function)
        pointers = {b: self.pointer(b, section) for b in function.parameters}
        known = {"turn": "s" if section is Section.LOOP else "0", "start": "first", "end": "k", "add": "again"}
        known["index"], known["late"] = "at(pos, r0)", "0"
        known["held"] = "" if function.holds is None else self._held(function.holds)
        extra = [known.get(name, name) for name in function.extra]
        line = f"{function.name}({', '.join([rows, *pointers.values(), *extra])})"
        units = {self._seen(b, section): own for b, own in function.units.items()}
        lined = [self._seen(b, section) for b, own in function.lined.items() if own]
        touched = touched_by(units, [self._seen(b, section) for b in function.written], lined)
        self.touched[line] = touched if section is Section.LOOP else anywhere(touched)
        if "late" in function.extra and function.early is not None:
            row, own_part = function.early
            self.early[line] = touched_by({self._seen(row, section): own_part}, ())
        return line

    def _held(self, own: Held) -> str:
        """Return the name of where in a block's memory some weights are."""
        self.variable(own.right.buffer)
        if own not in self.held:
            self.held.append(own)
        return f"held{self.held.index(own)}"

    def _holding(self) -> list[str]:
        """Return the lines that fetch what blocks hold."""
        lines = []
        for i, own in enumerate(self.held):
            sizes, view = f"{own.depth}, {own.parts}, {own.units}", own.right
            place = self.variable(view.buffer)
            place = place if view.offset == 0 else f"at({place}, {text_of(view.offset)})"
            before = self.held[i - 1]
            behind = f"held{i - 1} + held_size({before.depth}, {before.parts}, {before.units})" if i else "0"
            steps = ", ".join(map(text_of, view.strides))
            lines += [f"held{i} = {behind}", f"hold({sizes}, {place}, {steps}, held{i})"]
        return lines

    def _shared(self, function: Function) -> str:
        text = function.source().replace(f"def {function.name}(", "def (").replace(function.comment, "")
        if text not in self.texts:
            self.texts[text] = function.name
            self.functions.append(function)
        self.users.append(function)
        return self.texts[text]

    def new_function(self, label: str, comment: str, section: Section) -> Function:
        function = self.target.function(f"{label}_{len(self.users)}", comment, self.values)
        function.within(self.program, section)
        return function

    def unit(self, unit: Unit, section: Section, rows: str) -> str | None:
        """Return the call that computes a unit; nothing if its parts were computed in place."""
        names = "_".join(dict.fromkeys(t.op.name for t in unit.tensors if t.op))
        comment = f"{', '.join(t.op.name for t in unit.tensors if t.op)}: {' x '.join(text_of(n) for n in unit.shape)}"
        function = self.new_function(names if len(unit.tensors) == 1 else "fused", comment, section)
        tensor = unit.tensors[0]
        views = self.layout.views
        add = unit.tensors[-1] in self.layout.sums or self.over_blocks(unit.tensors[-1], section)
        if isinstance(unit, Joined):
            nests.joined(self, function, unit, section)
        elif not self.layout.later.isdisjoint(unit.tensors):
            nests.over_steps(self, function, unit)
            rows = "n0"
        elif unit.fused and tensor.op is not None and tensor.op.name not in loops.RULES:
            nests.fused(self, function, unit)
        elif tensor.op_name == "matmul":
            total = unit.tensors[-1]
            begin = views[self.layout.sums[total][0]] if self.layout.begins_with_row(total) else None
            self._product(function, tensor, section, add, begin)
        elif unit.adds_up:
            *_, element, total = unit.tensors
            source = self._computed(element, unit.tensors)
            self.target.rules[total.op_name](function, total, views[total], [source], add)  # type: ignore[list-item]
        else:
            sources = [self.layout.copies.get(i, {}).get(tensor, views[i]) for i in tensor.inputs]
            loops.emit(function, tensor, views[tensor], sources, add, self.target.rules)
        return self.call(function, section, rows) if function.lines else None

    def _computed(self, tensor: Tensor, members: Collection[Tensor]) -> Computed:
        """Return the elements of a tensor as what they are computed of, members of a unit likewise."""
        operands = [self._computed(i, members) if i in members else self.layout.views[i] for i in tensor.inputs]
        return Computed(tensor, self.layout.shapes[tensor], operands)

    def _product(
        self, function: Function, tensor: Tensor, section: Section, add: bool, begin: View | None = None
    ) -> None:
        left, right = (self.layout.views[i] for i in tensor.inputs)
        panels = None
        if products.has_panels(right, section) and function.inside:
            panels = products.panels_of("", right, 1)  # of which nothing is packed
        elif products.has_panels(right, section):
            key = (right.buffer, right.offset, right.shape, right.strides)
            if key not in self.panels:
                self.panels[key] = products.panels_of(f"panels{len(self.panels)}", right, self.width)
                packing = self.new_function("pack", "weights into panels", Section.PREPARE)
                products.pack(packing, right, self.panels[key])
                self.packing.append(self.call(packing, Section.PREPARE, "0"))
            panels = self.panels[key]
        target = self.layout.views[tensor]
        if self._begins(tensor, section):
            self.anew.add(target.buffer)
            function.extra.append("add")
        units = self._computed_by_parts(left.buffer, section)
        function.early = None if units is None else (left.buffer, units)
        self.target.product(function, target, left, right, panels, add, self._parts(tensor, section), begin)

    def _begins(self, tensor: Tensor, section: Section) -> bool:
        """Whether a product is a sum over blocks that begins with that of the first one: else it begins with zeros."""
        target = self.layout.views[tensor]
        once = self.target.pieces and self.over_blocks(tensor, section) and not self.run.samples and target.covers
        return once and len(target.shape) == 2 and target.shape[-1] != 1 and tensor not in self.layout.sums

    def _parts(self, tensor: Tensor, section: Section) -> int | None:
        """Return the length of which threads share what is computed from a tensor, if all of that is loops of one."""
        memory, readers = self.layout.views[tensor].buffer, []
        for unit in self.program.units[section]:
            read = any(
                self.layout.views[i].buffer is memory for t in unit.tensors for i in t.inputs if i not in unit.tensors
            )
            if read and tensor not in unit.tensors:
                readers.append(unit)
        return _shared_length(readers)

    def _computed_by_parts(self, row: Buffer, section: Section) -> int | None:
        """Return the length of which threads share what a step's loops write to a memory, if all are loops of one."""
        views, units = self.layout.views, self.program.units[section]
        writers = [u for u in units if u.fused and any(_is_same(views[t].buffer, row) for t in u.stored)]
        return _shared_length(writers) if section is Section.LOOP else None

    def copied(self, section: Section, source: View, target: Buffer, rows: str, add: bool = False) -> str:
        """Return the call that copies a view into memory, or adds it to what is there."""
        function = self.new_function("add" if add else "copy", f"into {target.name}", section)
        shape = target.shape
        loops.shared_copy(function, View(target, shape, row_major(shape)), source, add)
        return self.call(function, section, rows)

    def scattered(self, section: Section, source: View, name: str, kind: str) -> str:
        """Return the call that writes a block's rows to their places in an array (batch, time, ...), if need be."""
        width = source_width(source)
        target = Buffer(name, kind, Space.FIXED, (width,))
        function = self.new_function("scatter", f"into {name}", section)
        function.extra.append("index")
        with function.per_row(source.shape, lambda row: f"o = index[{row}]*{width}") as i:
            inner = source.shape[1:]
            value = function.load(source, i)
            text = f"U({value.text})" if kind == "bool" else cast(value, kind).text
            function.add(f"{function.element(View(target, inner, row_major(inner)), i[1:], 'o + ')} = {text}")
        function.written.add(target)
        self.external(name, kind, Space.FIXED, width)
        return self.call(function, section, "apart" if self.rooms.get(source.buffer) == name else "rows")

    # --- the module ----------------------------------------------------------------------------------------------

    def section(self, section: Section, rows: str, kept: Iterable[Tensor] = (), phase: int = 0) -> list[str]:
        """Return the calls of a section of a phase, for so many rows, sums over the steps included.

        kept: tensors that are read by something else than units.
        """
        calls: list[str] = []
        for run in self._runs(section, phase, kept):
            self.run, size = run, run.samples
            own = [call for unit in run.units for call in self._summed(unit, section, "m" if size else rows)]
            head = [f"for c in range(0, {rows}, {size}):", f"{INDENT}m = min({size}, {rows} - c)"]
            calls += [*head, *(INDENT + line for line in own)] if size else own
        self.run = Run(())
        if section is Section.LOOP:
            here = [t for t in self.added.get(None, ()) if self.layout.phase_of_memory(t[0].buffer) == phase]
            calls += [self.copied(Section.LOOP, *total, "n", add=True) for total in here]
        return calls

    def _runs(self, section: Section, phase: int, kept: Iterable[Tensor]) -> Iterable[Run]:
        units = self.program.units_of(section, phase)
        if not self.target.pieces or section not in (Section.BEFORE, Section.LOOP, Section.AFTER):
            return [Run(tuple(units))]
        own = set(map(id, units))
        others = (unit for every in self.program.units.values() for unit in every if id(unit) not in own)
        elsewhere = {buffer for unit in others for buffer in memory_of(self.layout, unit)}
        elsewhere |= {self.layout.views[t].buffer for t in kept}
        elsewhere |= {view.buffer for view, _ in self.added.get(None, ())}  # which each step adds to a sum
        copied = {v.buffer for t, own in self.added.items() for v, _ in own if t is None or not self.added_there(t, v)}
        return runs(self.layout, joined(self.layout, units, elsewhere | copied), elsewhere)

    def add_up(self, tensor: Tensor, total: Buffer) -> None:
        """Let the loop add a tensor to a sum over the steps."""
        root = self.layout.root(tensor)
        computed = root if self.layout.section.get(root) is Section.LOOP or root in self.layout.later else None
        self.totals.add(total)
        self.added.setdefault(computed, []).append((self.layout.views[tensor], total))

    def _summed(self, unit: Unit, section: Section, rows: str) -> Iterable[str]:
        """Return the calls that compute a unit, and add it to sums over the steps."""
        call = self.unit(unit, section, rows)
        if call:
            yield call
        for tensor in unit.tensors:
            for view, total in self.added.get(tensor, ()):
                if not self.added_there(tensor, view) and not self.straight(unit, tensor):
                    yield self.copied(Section.LOOP, view, total, rows, add=True)

    def added_there(self, tensor: Tensor, view: View) -> bool:
        """Whether the nest that computes a tensor adds it to a sum, of which the view is what is to be added."""
        return view is self.layout.views[tensor] and added_as_computed(self.layout, tensor)

    def straight(self, unit: Unit, tensor: Tensor) -> Buffer | None:
        """Return the sum over the steps to which a step's elements are added at once: nothing else reads their sum."""
        layout, own = self.layout, self.added.get(tensor, [])
        if not isinstance(unit, Joined) or tensor not in unit.sums or len(own) != 1:
            return None
        (view, total) = own[0]
        read = any(layout.root(i) is tensor for t in layout.order if t not in layout.moved for i in t.inputs)
        return None if read or view is not layout.views[tensor] else total

    def over_blocks(self, tensor: Tensor, section: Section) -> bool:
        """Whether a tensor is a sum over samples of all blocks: computed for one it is added to that of the others."""
        return section is Section.AFTER and self.layout.rows[tensor] is Rows.SUM

    def module(self, entries: Iterable[tuple[str, str, list[str]]], title: str) -> Source:
        """Return the source of all functions and of the entries (name, comment, lines)."""
        names = []
        parts = [f'"""{title}"""', f"from {self.target.runtime} import *"]
        parts += [f.source() for f in self.functions]
        slots = {name: i + FIRST_SLOT for i, name in enumerate(self.memory)}
        for name, comment, lines in entries:
            names.append(name)
            changing = [name for name in self.memory if name not in self.fixed]
            lines = [
                "rank = rank_of(N)",
                "size = size_of(N)",
                *self.target.ordered(lines, self.touched, changing, self.early),
            ]
            if any("held" in line for line in lines):
                lines[2:2] = self._holding()
            shared = sorted({units for line in lines for units in PARTS.findall(line)}, key=int)
            lines[2:2] = [f"part_{units} = part_of_block({units})" for units in shared]
            words = {word for line in lines for word in re.findall(r"\w+", line)}
            pointers = {
                m.name: f"{POINTERS[m.kind]}(P, {slots[m.name]})" for m in self.memory.values() if m.name in words
            }
            lines = self.target.addressed(lines, pointers)
            header = [f"@entry\ndef {name}(P, N, Q):", f'{INDENT}"""{comment}"""']
            parts.append("\n".join([*header, *(INDENT + line for line in lines), f"{INDENT}return 0"]))
        choice = "".join(f"{INDENT}if N[5] == {i}:\n{INDENT * 2}{name}(P, N, Q)\n" for i, name in enumerate(names))
        parts.append(f'@entry\ndef run(P, N, Q):\n{INDENT}"""What N[5] asks for."""\n{choice}{INDENT}return 0')
        text, memory = "\n\n\n".join(parts) + "\n", list(self.memory.values())
        return Source(text, tuple(names), memory, dict(self.fixed), held=self.held)


def _is_same(one: Buffer, other: Buffer) -> bool:
    """Whether two buffers are rows of one memory."""
    return (one.memory or one.name) == (other.memory or other.name)


def _shared_length(units: Iterable[Unit]) -> int | None:
    """Return the length of the innermost loop of all units, which threads share, if they are loops of one length."""
    lengths = {next((n for n in reversed(u.shape) if n != 1), None) if u.fused else None for u in units}
    (length,) = lengths if len(lengths) == 1 else (None,)
    return length if isinstance(length, int) else None


def source_width(view: View) -> int:
    return Buffer("", view.buffer.kind, Space.BLOCK, view.shape).width
