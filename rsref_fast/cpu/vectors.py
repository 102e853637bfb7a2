"""LLVM's instructions on vectors of one width and precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from rsref_fast.cpu.microkernel_shapes import Shape

WORD = ir.IntType(64)


class Vectors:
    """Writes instructions where a builder stands. shape: how many numbers a vector has, and vectors a panel.

    kind: a vector's type. zero: one of zeros. size: bytes of a number.
    """

    def __init__(self, context: Any, builder: Any, element: Any, shape: Shape):
        self.builder, self.shape = builder, shape
        scalar = context.get_value_type(element)
        self.kind, self.size = ir.VectorType(scalar, shape.lanes), context.get_abi_sizeof(scalar)
        self.zero = ir.Constant(self.kind, [0.0] * shape.lanes)
        name = f"llvm.fma.v{shape.lanes}{'f32' if element is types.float32 else 'f64'}"
        self._fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(self.kind, [self.kind] * 3), name)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c, rounded once."""
        return self.builder.call(self._fma, [a, b, c])

    def spread(self, value: Any) -> Any:
        """Return a vector that holds one number everywhere."""
        empty = ir.Constant(self.kind, ir.Undefined)
        one = self.builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.shape.lanes), [0] * self.shape.lanes)
        return self.builder.shuffle_vector(one, empty, zeros)

    def load(self, base: Any, index: Any) -> Any:
        """Return the vector that begins at a place, wherever that is."""
        found = self.builder.load(self._place(base, index))
        found.align = self.size
        return found

    def store(self, vector: Any, base: Any, index: Any) -> None:
        self.builder.store(vector, self._place(base, index)).align = self.size

    def panel(self, base: Any) -> list[Any]:
        """Return a panel's width of numbers."""
        return [self.load(base, WORD(v * self.shape.lanes)) for v in range(self.shape.vectors)]

    def put(self, vectors: Sequence[Any], base: Any) -> None:
        """Store vectors, one after the other."""
        for v, vector in enumerate(vectors):
            self.store(vector, base, WORD(v * self.shape.lanes))

    def _place(self, base: Any, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(base, [index]), self.kind.as_pointer())
