"""The matrix product's innermost loop, in LLVM vectors: a block of the result stays in registers.

One description for every width: lanes of a vector, vectors of a panel, rows of a block. The right operand comes in
panels, rows of `vectors * lanes` columns that follow each other, so that every load is a whole, contiguous vector.
A single row is bound by how fast the panels come: it takes several at once if they are in the innermost cache, else
several rows of one panel, a stream of memory that the processor fetches ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.microkernel_shapes import Shape
from rsref_fast.cpu.pointers import write_fetch
from rsref_fast.cpu.remainders import name_loop
from rsref_fast.cpu.vectors import WORD, Vectors

I64 = types.int64


def microkernel(element: Any, shape: Shape, rows: int, panels: int = 1, deep: int = 1) -> Any:
    """Return an intrinsic `(depth, a, row_step, depth_step, b, b_step, panel_step, c, c_step, o, o_step, accumulate)`.

    It computes rows x (panels * width) elements of c = a @ b, or c = o + a @ b. Steps are in elements: between rows and
    along the depth of a, between rows of a panel, between panels, between rows of c and of o.
    deep: rows of the panels that are taken at once, each with a sum of its own; the depth is a multiple of it.
    """
    vectors = range(shape.vectors * panels)

    @intrinsic
    def kernel(typing_context, depth, a, row_step, depth_step, b, b_step, panel_step, c, c_step, o, o_step, accumulate):
        def generate(context, builder, signature, arguments):
            _emit(context, builder, arguments, element, shape, rows, vectors, deep)
            return context.get_dummy_value()

        return types.void(*_arguments(element)), generate

    return kernel


def microkernels(element: Any, shape: Shape, cuts: Mapping[int, Sequence[range]] | None = None, ahead: int = 0) -> Any:
    """Return an intrinsic of a number of rows, and then `microkernel`'s arguments.

    cuts: for each number of rows which of the panels' vectors are computed at once, one range after the other; without
    it those of one panel, for 1 to shape.rows. ahead: how many of a panel's rows lie between the one that is read and
    the one that is fetched; 0: none is.
    """
    chosen = {n: (range(shape.vectors),) for n in range(1, shape.rows + 1)} if cuts is None else cuts

    @intrinsic
    def kernel(
        typing_context, rows, depth, a, row_step, depth_step, b, b_step, panel_step, c, c_step, o, o_step, accumulate
    ):
        def generate(context, builder, signature, arguments):
            done = builder.append_basic_block("rows_done")
            choice = builder.switch(arguments[0], done)
            for n, vectors in chosen.items():
                block = builder.append_basic_block(f"rows_{n}")
                choice.add_case(ir.Constant(ir.IntType(64), n), block)
                builder.position_at_end(block)
                for some in vectors:
                    _emit(context, builder, arguments[1:], element, shape, n, some, ahead=ahead)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(I64, *_arguments(element)), generate

    return kernel


def blocks(shape: Shape) -> Any:
    """Return a function: how many of the rows that are left the next block takes, if there are any."""
    most, enough = shape.rows, shape.rows + shape.few

    @plain
    def taken(rows):
        """A whole block; but of a few more rows half, so that no block is too small."""
        return most if rows >= enough else rows if rows <= most else (rows + 1) // 2

    return taken


def _arguments(element: Any) -> tuple[Any, ...]:
    pointer = types.CPointer(element)
    return I64, pointer, I64, I64, pointer, I64, I64, pointer, I64, pointer, I64, I64


def _emit(
    context: Any,
    builder: Any,
    arguments: Any,
    element: Any,
    shape: Shape,
    rows: int,
    vectors: range,
    deep: int = 1,
    ahead: int = 0,
) -> None:
    depth, a, row_step, depth_step, b, b_step, panel_step, c, c_step, o, o_step, accumulate = arguments
    write = Vectors(context, builder, element, shape)
    line = 64 // write.size
    lines = range(vectors.start * shape.lanes // line * line, vectors.stop * shape.lanes, line)

    starts = [builder.gep(a, [builder.mul(row_step, WORD(i))]) for i in range(rows)]
    panels = range(vectors[-1] // shape.vectors + 1)
    bases = [builder.gep(b, [builder.mul(panel_step, WORD(p))]) for p in panels]
    if rows > 1:  # fetch where the block will be added to: each of its rows may be far from the one before
        for i in range(rows):
            for column in lines:
                write_fetch(builder, c, builder.add(builder.mul(c_step, WORD(i)), WORD(column)), writes=True)
    entry = builder.block
    loop = builder.append_basic_block("depth")
    done = builder.append_basic_block("done")
    builder.branch(loop)

    builder.position_at_end(loop)
    step = builder.phi(WORD)
    step.add_incoming(WORD(0), entry)
    sums = [[builder.phi(write.kind) for _ in vectors] for _ in range(rows * deep)]
    for phi in (phi for row in sums for phi in row):
        phi.add_incoming(write.zero, entry)
    new = []
    for d in range(deep):
        now = builder.add(step, WORD(d))
        along = builder.mul(now, b_step)
        if ahead:
            soon = builder.mul(builder.add(now, WORD(ahead)), b_step)
            for column in lines:
                panel, place = divmod(column, shape.width)
                write_fetch(builder, bases[panel], builder.add(soon, WORD(place)))
        loaded = []
        for panel, v in (divmod(v, shape.vectors) for v in vectors):
            loaded.append(write.load(bases[panel], builder.add(along, WORD(v * shape.lanes))))
        across = builder.mul(now, depth_step)
        for i in range(rows):
            value, own = write.spread(builder.load(builder.gep(starts[i], [across]))), sums[d * rows + i]
            new.append([write.fma(value, vector, total) for vector, total in zip(loaded, own)])
    following = builder.add(step, WORD(deep))
    step.add_incoming(following, loop)
    for row, values in zip(sums, new):
        for phi, value in zip(row, values):
            phi.add_incoming(value, loop)
    branch = builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
    if shape.unrolled:
        how = builder.module.add_metadata(["llvm.loop.unroll.count", ir.Constant(ir.IntType(32), shape.unrolled)])
        name_loop(builder.module, branch, how)

    builder.position_at_end(done)
    for d in range(1, deep):
        for i in range(rows):
            new[i] = [builder.fadd(one, more) for one, more in zip(new[i], new[d * rows + i])]
    adds = builder.icmp_signed("!=", accumulate, WORD(0))
    for i in range(rows):
        for v, found in zip(vectors, new[i]):
            old = write.load(o, builder.add(builder.mul(o_step, WORD(i)), WORD(v * shape.lanes)))
            total = builder.fadd(found, builder.select(adds, old, write.zero))
            write.store(total, c, builder.add(builder.mul(c_step, WORD(i)), WORD(v * shape.lanes)))
