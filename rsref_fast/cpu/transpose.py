"""A square block of a matrix transposed in vector registers: as many rows as a vector has lanes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

I64 = types.int64


def transposed_block(element: Any, lanes: int) -> Any:
    """Return an intrinsic `(source, source_step, target, target_step)`: lanes x lanes elements, steps between rows.

    In stage s, rows that differ in bit s of their number swap the halves that they have of each other's columns.
    """
    pointer = types.CPointer(element)

    @intrinsic
    def block(typing_context, source, source_step, target, target_step):
        def generate(context, builder, signature, arguments):
            source, source_step, target, target_step = arguments
            scalar = context.get_value_type(element)
            vector, size = ir.VectorType(scalar, lanes), context.get_abi_sizeof(scalar)

            def row(base: Any, step: Any, i: int) -> Any:
                place = builder.gep(base, [builder.mul(step, ir.Constant(ir.IntType(64), i))])
                return builder.bitcast(place, vector.as_pointer())

            def mixed(one: Any, other: Any, chosen: list[int]) -> Any:
                mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), chosen)
                return builder.shuffle_vector(one, other, mask)

            rows = [builder.load(row(source, source_step, i)) for i in range(lanes)]
            for load in rows:
                load.align = size
            places, bit = range(lanes), 1
            while bit < lanes:
                low = [p if not p & bit else lanes + p - bit for p in places]
                high = [p + bit if not p & bit else lanes + p for p in places]
                for i in (i for i in places if not i & bit):
                    one, other = rows[i], rows[i + bit]
                    rows[i], rows[i + bit] = mixed(one, other, low), mixed(one, other, high)
                bit *= 2
            for i, value in enumerate(rows):
                builder.store(value, row(target, target_step, i)).align = size
            return context.get_dummy_value()

        return types.void(pointer, I64, pointer, I64), generate

    return block
