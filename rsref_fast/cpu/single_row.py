"""The product of a single row at each step: of two threads each multiplies its own part while it waits for the other's.

The row's depth is summed in two parts, of the places that the first of two threads computes and of those of the second,
whoever computes them: so the sums are the same, bit by bit, however many threads there are, and whichever part comes
first. In each part every fourth place has a sum of its own: none waits for the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rsref_fast.cpu.microkernel_shapes import ASIDE, Shape
from rsref_fast.cpu.pointers import at, memory_on_stack
from rsref_fast.cpu.vectors import WORD, Vectors

I64 = types.int64
DEEP = 4
"""Rows of a panel that are multiplied at once."""


def signature(element: Any) -> Any:
    """Return the types of the arguments of `multiply_row`."""
    return types.void(*[I64] * 3, *[types.CPointer(element)] * 4, *[I64] * 4)


def multiply_row(element: Any, shape: Shape) -> Any:
    """Return the function for a precision."""
    width, most = shape.width, shape.panels
    one, two = (_panels(element, shape, n) for n in (1, 2))

    def multiply_row(columns, depth, units, a, panels, c, o, accumulate, rank, size, turn):
        """c = a @ b, or c = o + a @ b, for a thread's part of the columns, which are whole panels.

        units: of how many places of the depth each thread computes its part, as often as there are so many.
        """
        count = columns // width
        first, last = count * rank // size * width, count * (rank + 1) // size * width
        i = first
        while i < last:
            now = min(most * width, last - i)
            place = first + last - i - now if turn % 2 == 1 else i
            b, to, begin = at(panels, place * depth), at(c, place), at(o, place)
            if now > width:
                two(depth, units, a, b, to, begin, accumulate)
            else:
                one(depth, units, a, b, to, begin, accumulate)
            i += now

    return multiply_row


def own_part(element: Any, shape: Shape) -> dict[str, Any]:
    """Return intrinsics by name that take `multiply_row`'s place for two threads, if the sizes are constants that fit.

    begin_row: multiplies a thread's own part of the row, and keeps the sums aside. end_row: multiplies the other's, and
    writes c = a @ b, or c = o + a @ b, for a thread's part of each of some pieces of so many columns.
    aside: memory for the sums.
    """
    pointer, void = types.CPointer(element), types.void

    @intrinsic(prefer_literal=True)
    def begin_row(typing_context, pieces, columns, depth, units, a, panels, tile, rank, turn):
        def generate(context, builder, signature, arguments):
            emitter, sizes = Emitter(context, builder, element, shape), _constants(signature)
            for aside, _, sums in _halves(emitter, sizes, False, *arguments[4:9]):
                emitter.put(sums, aside)
            return context.get_dummy_value()

        return void(pieces, columns, depth, units, *[pointer] * 3, I64, I64), generate

    @intrinsic(prefer_literal=True)
    def end_row(typing_context, pieces, columns, depth, units, a, panels, tile, rank, turn, c, o, accumulate):
        def generate(context, builder, signature, arguments):
            emitter, sizes = Emitter(context, builder, element, shape), _constants(signature)
            to, begin, adds = arguments[9:]
            for aside, place, sums in _halves(emitter, sizes, True, *arguments[4:9]):
                own = emitter.panel(aside)
                emitter.end(own, sums, builder.gep(to, [place]), builder.gep(begin, [place]), adds)
            return context.get_dummy_value()

        return void(pieces, columns, depth, units, *[pointer] * 3, I64, I64, pointer, pointer, I64), generate

    return {"begin_row": begin_row, "end_row": end_row, "aside": memory_on_stack(element, ASIDE * shape.width)}


def _constants(signature: Any) -> list[int]:
    return [kind.literal_value for kind in signature.args[:4]]


def _halves(
    emitter: Emitter, sizes: Sequence[int], others: bool, a: Any, panels: Any, tile: Any, rank: Any, turn: Any
) -> list[tuple[Any, Any, list[Any]]]:
    """Multiply a thread's own part of a row by each of its panels, or the other's.

    The answer holds for each panel where its sums of the own part lie, its first column, and the sums: vectors. At
    every other turn the panels come in the other order: what was read last is in the innermost cache still.
    """
    builder, shape = emitter.builder, emitter.shape
    pieces, columns, depth, units = sizes
    width, own, half = shape.width, columns // shape.width // 2, units // 2
    start = builder.mul(builder.sub(WORD(1), rank) if others else rank, WORD(half))
    first, row = builder.mul(rank, WORD(own * width)), builder.gep(a, [start])
    begins = [p * columns + q * width for p in range(pieces) for q in range(own)]
    back = builder.trunc(turn, ir.IntType(1))
    found = []
    for i in range(0, len(begins), shape.panels):
        now = []
        for n in range(i, min(i + shape.panels, len(begins))):
            last = len(begins) - 1 - n
            aside = builder.select(back, WORD(last * width), WORD(n * width))
            place = builder.add(first, builder.select(back, WORD(begins[last]), WORD(begins[n])))
            panel = builder.add(builder.mul(place, WORD(depth)), builder.mul(start, WORD(width)))
            now.append((builder.gep(tile, [aside]), place, builder.gep(panels, [panel])))
        bases = [base for *_, base in now]
        sums = emitter.sums(WORD(depth // units), WORD(units), WORD(0), WORD(half), row, bases)
        found += [(aside, place, own_sums) for (aside, place, _), own_sums in zip(now, sums)]
    return found


class Emitter(Vectors):
    """LLVM's instructions for the sums of a row times some panels."""

    def end(self, sums: Sequence[Any], more: Sequence[Any], c: Any, o: Any, accumulate: Any) -> None:
        """Write the sums of both parts of the row, and what they begin with, if they accumulate."""
        adds = self.builder.icmp_signed("!=", accumulate, WORD(0))
        begins = [self.builder.select(adds, begin, self.zero) for begin in self.panel(o)]
        totals = [self.builder.fadd(*pair) for pair in zip(sums, more)]
        self.put([self.builder.fadd(*pair) for pair in zip(begins, totals)], c)

    def sums(self, blocks: Any, units: Any, first: Any, last: Any, a: Any, panels: Sequence[Any]) -> list[list[Any]]:
        """Return for each panel the sums over what lies between two places of each of some blocks of so many units.

        a: where the row begins. panels: where the panels begin.
        """
        builder, count = self.builder, len(panels) * self.shape.vectors
        entry = builder.block
        block, depth, behind, done = (builder.append_basic_block(name) for name in ("block", "depth", "behind", "done"))
        builder.cbranch(builder.icmp_signed("<", first, last), block, done)
        builder.position_at_end(block)
        j, before = builder.phi(WORD), [builder.phi(self.kind) for _ in range(count * DEEP)]
        start = builder.mul(j, units)
        builder.branch(depth)
        builder.position_at_end(depth)
        k, sums = builder.phi(WORD), [builder.phi(self.kind) for _ in range(count * DEEP)]
        following, further = self._deeper(builder.add(start, k), sums, a, panels), builder.add(k, WORD(DEEP))
        builder.cbranch(builder.icmp_signed("<", further, last), depth, behind)
        builder.position_at_end(behind)
        after = builder.add(j, WORD(1))
        builder.cbranch(builder.icmp_signed("<", after, blocks), block, done)
        builder.position_at_end(done)
        found = [builder.phi(self.kind) for _ in following]
        k.add_incoming(first, block)
        k.add_incoming(further, depth)
        for own, value in ((j, after), *zip(before, following), *zip(found, following)):
            own.add_incoming(ir.Constant(own.type, 0) if own is j else self.zero, entry)
            own.add_incoming(value, behind)
        for own, begin, value in zip(sums, before, following):
            own.add_incoming(begin, block)
            own.add_incoming(value, depth)
        while len(found) > count:
            half = len(found) // 2
            found = [builder.fadd(*pair) for pair in zip(found[:half], found[half:])]
        return [found[i : i + self.shape.vectors] for i in range(0, count, self.shape.vectors)]

    def _deeper(self, place: Any, sums: Sequence[Any], a: Any, panels: Sequence[Any]) -> list[Any]:
        """Return the sums after some more places of the row."""
        builder, old, following = self.builder, iter(sums), []
        for d in range(DEEP):
            here = builder.add(place, WORD(d))
            value, row = self.spread(builder.load(builder.gep(a, [here]))), builder.mul(here, WORD(self.shape.width))
            for panel in panels:
                for vector in self.panel(builder.gep(panel, [row])):
                    following.append(self.fma(value, vector, next(old)))
        return following


def _panels(element: Any, shape: Shape, panels: int) -> Any:
    """Return an intrinsic: the columns of the product that some panels hold, which follow each other."""
    pointer = types.CPointer(element)

    @intrinsic
    def kernel(typing_context, depth, units, a, b, c, o, accumulate):
        def generate(context, builder, signature, arguments):
            depth, units, a, b, c, o, accumulate = arguments
            emitter, width = Emitter(context, builder, element, shape), WORD(shape.width)
            places = [WORD(p * shape.width) for p in range(panels)]
            bases = [builder.gep(b, [builder.mul(place, depth)]) for place in places]
            whole = builder.sdiv(builder.add(units, WORD(shape.width - 1)), width)
            half = builder.mul(builder.sdiv(whole, WORD(2)), width)
            parts = [
                emitter.sums(builder.sdiv(depth, units), units, first, last, a, bases)
                for first, last in ((WORD(0), half), (half, units))
            ]
            for place, own, others in zip(places, *parts):
                emitter.end(own, others, builder.gep(c, [place]), builder.gep(o, [place]), accumulate)
            return context.get_dummy_value()

        return types.void(I64, I64, *[pointer] * 4, I64), generate

    return kernel
