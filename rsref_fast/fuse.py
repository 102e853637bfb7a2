"""Pointwise ops of one shape become one loop: values that only the loop itself reads never reach memory.

Nor does an element that only a sum reads: it is computed where it is added up; nor what costs no more to compute again
than to read. A loop is left until something needs it, so that it computes as much as it can at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rsref.ops.pointwise import Cast, Pointwise
from rsref.tensor import Tensor
from rsref_fast.concrete import Shape
from rsref_fast.layout import Layout, Section
from rsref_fast.views import RESHAPES, Space
from rsref_fast.wide import is_wide


@dataclass(frozen=True)
class Unit:
    """What is computed by one loop nest, or by one op.

    tensors: pointwise tensors of one shape, each after its operands, or a single tensor of any op, or a product and
        the sum that it makes of what is there or of a row, or pointwise tensors and the sum of the last one over some
        axes.
    stored: those among them that something else reads.
    """

    tensors: tuple[Tensor, ...]
    stored: tuple[Tensor, ...]
    shape: Shape

    @property
    def fused(self) -> bool:
        return pointwise(self.tensors[0]) and not self.adds_up

    @property
    def adds_up(self) -> bool:
        return len(self.tensors) > 1 and _is_sum(self.tensors[-1])


def pointwise(tensor: Tensor) -> bool:
    """Whether a tensor is computed element by element: pointwise ops, and views whose values must be moved."""
    if tensor.op is None:
        return False
    return isinstance(tensor.op, Pointwise | Cast) or tensor.op.name in RESHAPES or tensor.op.name == "count"


def added_as_computed(layout: Layout, tensor: Tensor) -> bool:
    """Whether the nest that computes a tensor can also add it to a sum over the steps."""
    stepped = layout.section.get(tensor) is Section.LOOP or tensor in layout.later
    return stepped and pointwise(tensor) and tensor.op_name not in RESHAPES and tensor not in layout.sums


CHEAP = ("add", "subtract", "multiply", "negative", "square")
"""Ops that cost no more than reading what they computed."""

FEW = 8
"""How many times smaller than a tensor its operands are that cost nothing to read."""


def fuse(
    layout: Layout, section: Section, read_outside: Collection[Tensor], added: Collection[Tensor] = ()
) -> list[Unit]:
    """Return the units that compute a section, in order; those of a phase before those of the next one.

    read_outside: tensors that are read by something other than the tensors of the layout. added: tensors that are
    added to something where they are computed.
    """
    phases = layout.phases if section in (Section.BEFORE, Section.LOOP) else (0,)
    return [unit for phase in phases for unit in _Fusion(layout, section, phase, read_outside, added).units()]


class _Fusion:
    """The tensors of a section while they are made into units.

    kept: tensors that must be in memory. again: tensors that are computed wherever they are read. summed: for each
    sum over what has no memory, that.
    """

    def __init__(
        self,
        layout: Layout,
        section: Section,
        phase: int,
        read_outside: Collection[Tensor],
        added: Collection[Tensor],
    ):
        self.layout = layout
        skipped = layout.moved | layout.products_in_sums
        own = (t for t in layout.order if layout.section.get(t) is section and layout.phase_of(t) == phase)
        self.waiting = [t for t in own if t not in skipped]
        self.inside = set(self.waiting)
        self.readers: dict[Tensor, list[Tensor]] = {}
        for tensor in layout.order:
            if tensor not in layout.moved:
                for operand in tensor.inputs:
                    self.readers.setdefault(layout.root(operand), []).append(tensor)
        self.kept = {layout.root(t) for t in read_outside} | set(layout.sums)
        fixed = self.kept | set(added)
        self.again: set[Tensor] = set()
        for tensor in self.waiting:
            if tensor not in fixed and self._cheaply_again(tensor):
                self.again.add(tensor)
        elements = {t: t.inputs[0] for t in self.waiting if _is_sum(t)}
        self.summed = {
            t: e for t, e in elements.items() if e in self.again or (e not in fixed and self._only_summed(e))
        }
        gone = self.again | set(self.summed.values())
        self.waiting = [t for t in self.waiting if t not in gone]
        self.needs = {t: self._needs(self.summed.get(t, t)) for t in self.waiting}

    def units(self) -> list[Unit]:
        done: set[Tensor] = set()
        units: list[Unit] = []
        while self.waiting:
            group = self._next_group(done)
            members = set(group)
            stored = tuple(t for t in group if t in self.kept or any(r not in members for r in self.readers.get(t, ())))
            if group[0] in self.summed:
                group = [self.summed[group[0]], group[0]]
            units.append(Unit(self._with_again(group), stored, self.layout.shapes[group[-1]]))
            done |= members
            self.waiting = [t for t in self.waiting if t not in members]
        return units

    # --- what has no memory ---------------------------------------------------------------------------------------

    def _cheaply_again(self, tensor: Tensor) -> bool:
        """Whether a tensor had better be computed wherever it is read: at the cost of reading one like it, from memory.

        All that read it are loops over its own shape, or sums of it. None of its operands is computed so itself.
        """
        if not pointwise(tensor) or tensor.op_name not in CHEAP or tensor.dtype != "float":
            return False
        layout, readers = self.layout, self.readers.get(tensor, [])
        width = layout.width(tensor)
        large = {i for i in tensor.inputs if FEW * layout.width(i) > width and not self._fixed(i)}
        return len(large) == 1 and bool(readers) and all(map(self._in_memory, tensor.inputs)) and all(
            r in self.inside and (self._in_its_loop(r, tensor) or (_is_sum(r) and r.inputs[0] is tensor))
            for r in readers
        )  # fmt: skip

    def _fixed(self, tensor: Tensor) -> bool:
        return self.layout.views[tensor].buffer.space is Space.FIXED

    def _only_summed(self, tensor: Tensor) -> bool:
        """Whether nothing but a sum reads a pointwise tensor of the section, whose operands are in memory anyway."""
        own = tensor in self.inside and pointwise(tensor) and tensor.op_name not in (*RESHAPES, "count")
        return (
            own and len(self.readers[tensor]) == 1 and all(i in self.again or self._in_memory(i) for i in tensor.inputs)
        )

    def _in_memory(self, operand: Tensor) -> bool:
        """Whether a tensor is in memory whatever becomes of those that are computed of it."""
        tensor = self.layout.root(operand)
        if tensor not in self.inside or tensor in self.kept or not pointwise(tensor):
            return True
        return not all(r in self.inside and (self._in_its_loop(r, tensor) or _is_sum(r)) for r in self.readers[tensor])

    def _in_its_loop(self, reader: Tensor, tensor: Tensor) -> bool:
        """Whether what reads a tensor can be computed by the loop that computes it: it reads no view of it."""
        layout = self.layout
        loop = pointwise(reader) and reader.op_name not in RESHAPES and reader not in layout.sums
        same = layout.shapes[reader] == layout.shapes[tensor]
        return loop and same and all(i is tensor for i in reader.inputs if layout.root(i) is tensor)

    def _with_again(self, group: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return a group and what it computes again, in order."""
        needed = {*group, *(i for t in group for i in t.inputs if i in self.again)}
        return tuple(t for t in self.layout.order if t in needed)

    # --- order ----------------------------------------------------------------------------------------------------

    def _operands(self, tensor: Tensor) -> list[Tensor]:
        """Return what is read where a tensor is computed; of a sum its first term and what its product reads."""
        inputs: Sequence[Tensor] = tensor.inputs
        if tensor in self.layout.sums:
            start, product = self.layout.sums[tensor]
            inputs = (start, *product.inputs)
        return [j for i in inputs for j in (i.inputs if i in self.again else [i])]

    def _needs(self, tensor: Tensor) -> set[Tensor]:
        """Return what must be there before a tensor is computed."""
        return {self.layout.root(i) for i in self._operands(tensor)} & self.inside

    def _next_group(self, done: set[Tensor]) -> list[Tensor]:
        """Return what is computed next: an op that is no loop, if one can be, else a loop.

        Of several loops that with least left out which must wait, then the narrowest.
        """
        layout = self.layout
        ready = [t for t in self.waiting if self.needs[t] <= done]
        singles = [t for t in ready if self._single(t)]
        if singles:
            single = max(singles, key=lambda t: any(is_wide(layout.width(i)) for i in t.inputs))
            return [layout.sums[single][1], single] if single in layout.sums else [single]
        needed = self._needed_next(done)
        loops = {self.layout.shapes[t]: self._loop(t, needed, done) for t in ready if t in needed}
        waiting = Counter(self.layout.shapes[t] for t in needed)
        return min(
            loops.values(),
            key=lambda loop: (waiting[layout.shapes[loop[0]]] > sum(t in needed for t in loop), layout.width(loop[0])),
        )

    def _loop(self, first: Tensor, needed: Collection[Tensor], done: Collection[Tensor]) -> list[Tensor]:
        """Return what one loop can compute: what is needed of a tensor's shape, and what reads that."""
        layout, shape = self.layout, self.layout.shapes[first]
        group: list[Tensor] = []
        there = set(done)
        for tensor in self.waiting:
            if self._single(tensor) or tensor.op_name in RESHAPES or layout.shapes[tensor] != shape:
                continue
            read = self._operands(tensor)
            wanted = tensor in needed or any(i in group for i in read)
            direct = all(i not in layout.moved or layout.root(i) not in group for i in read)
            if wanted and direct and self.needs[tensor] <= there:
                group.append(tensor)
                there.add(tensor)
        return group or [first]

    def _single(self, tensor: Tensor) -> bool:
        return not pointwise(tensor) or tensor in self.layout.sums

    def _needed_next(self, done: set[Tensor]) -> set[Tensor]:
        """Return the loops' tensors without which no other op can be next; all if there is no other op.

        The rest waits: computed later, with what reads it, it may never be in memory.
        """
        behind: dict[Tensor, set[Tensor]] = {}
        found: set[Tensor] = set()
        for tensor in self.waiting:  # each after its operands
            missing = self.needs[tensor] - done
            behind[tensor] = missing.union(*(behind[t] for t in missing))
            if self._single(tensor) and not any(self._single(t) for t in behind[tensor]):
                found |= behind[tensor]
        return found or set(self.waiting)


def _is_sum(tensor: Tensor) -> bool:
    return tensor.op_name in ("sum", "sum_to_like")
