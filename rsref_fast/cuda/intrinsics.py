"""The few LLVM instructions that kernels need and Numba has no function for: pointers, 32-bit division, thread teams.

A team is what shares one program's memory: all threads of the grid, or those of one block.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.cuda import nvvmutils, types
from numba.cuda.extending import intrinsic

from rsref_fast.cuda.gate import NAME as GATE

I64 = types.int64
ADDRESSES = types.CPointer(types.int64)
WORD = ir.IntType(64)
SHARED = 3
"""The number of the address space of a block's shared memory."""


def pointer_to(element: Any) -> Any:
    """Return an intrinsic: the address in a slot of P, as a pointer to elements of a type."""
    target = types.CPointer(element)

    @intrinsic
    def slot(typing_context, table, index):
        def generate(context, builder, signature, arguments):
            address = builder.load(builder.gep(arguments[0], [arguments[1]], source_etype=WORD), typ=WORD)
            return builder.inttoptr(address, context.get_value_type(target))

        return target(ADDRESSES, I64), generate

    return slot


@intrinsic
def words(typing_context, address):
    """The 64-bit words at an address."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(ADDRESSES))

    return ADDRESSES(I64), generate


@intrinsic
def at(typing_context, pointer, place):
    """The pointer to the element at a place."""

    def generate(context, builder, signature, arguments):
        element = context.get_data_type(signature.args[0].dtype)
        return builder.gep(arguments[0], [arguments[1]], source_etype=element)

    return pointer(pointer, I64), generate


@intrinsic
def four_at(typing_context, pointer, place):
    """The four elements from a place on, which begins at 16 bytes: read at once, or in two halves."""

    def generate(context, builder, signature, arguments):
        element = context.get_data_type(signature.args[0].dtype)
        place = builder.gep(arguments[0], [arguments[1]], source_etype=element)
        vector = ir.VectorType(element, 4)
        four = builder.load(builder.bitcast(place, vector.as_pointer()), align=16, typ=vector)
        parts = [builder.extract_element(four, ir.Constant(ir.IntType(32), i)) for i in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(pointer.dtype, 4)(pointer, I64), generate


@intrinsic
def put_four(typing_context, pointer, place, a, b, c, d):
    """Write four elements from a place on, which begins at 16 bytes."""

    def generate(context, builder, signature, arguments):
        element = context.get_data_type(signature.args[0].dtype)
        place = builder.gep(arguments[0], [arguments[1]], source_etype=element)
        vector = ir.VectorType(element, 4)
        four = ir.Constant(vector, ir.Undefined)
        for i, value in enumerate(arguments[2:]):
            four = builder.insert_element(four, value, ir.Constant(ir.IntType(32), i))
        builder.store(four, builder.bitcast(place, vector.as_pointer()), align=16)
        return context.get_dummy_value()

    return types.void(pointer, I64, *[pointer.dtype] * 4), generate


@intrinsic
def is_aligned(typing_context, pointer):
    """Whether an address is one of 16 bytes."""

    def generate(context, builder, signature, arguments):
        rest = builder.and_(builder.ptrtoint(arguments[0], WORD), ir.Constant(WORD, 15))
        return builder.icmp_unsigned("==", rest, ir.Constant(WORD, 0))

    return types.boolean(pointer), generate


def _on_words(name: str) -> Any:
    """Return an intrinsic on two integers of at most 32 bits: a 64-bit division takes tens of instructions."""

    @intrinsic
    def function(typing_context, a, b):
        def generate(context, builder, signature, arguments):
            short = [builder.trunc(value, ir.IntType(32)) for value in arguments]
            return builder.zext(getattr(builder, name)(*short), WORD)

        return I64(I64, I64), generate

    return function


quotient = _on_words("udiv")
remainder = _on_words("urem")


@intrinsic
def one_like(typing_context, value):
    """The number 1, of the type of a value."""

    def generate(context, builder, signature, arguments):
        return context.get_constant(value, 1)

    return value(value), generate


def register(name: str) -> Any:
    """Return an intrinsic that reads one of a thread's special registers."""

    @intrinsic
    def read(typing_context):
        def generate(context, builder, signature, arguments):
            return builder.zext(nvvmutils.call_sreg(builder, name), WORD)

        return I64(), generate

    return read


thread = register("tid.x")
threads = register("ntid.x")
block_x = register("ctaid.x")
blocks_x = register("nctaid.x")
block_y = register("ctaid.y")
blocks_y = register("nctaid.y")


@intrinsic
def meet_in_block(typing_context):
    """Wait until all threads of the block are here, and see what they wrote."""

    def generate(context, builder, signature, arguments):
        function = builder.module.declare_intrinsic("llvm.nvvm.barrier0", (), ir.FunctionType(ir.VoidType(), []))
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def meet_in_grid(typing_context, place):
    """Wait until all threads of the grid are here; it must have been launched cooperatively. place: of a word, zero."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [WORD])
        gate = cgutils.get_or_insert_function(builder.module, kind, GATE)
        gate.attributes.add("convergent")
        builder.call(gate, [builder.ptrtoint(arguments[0], WORD)])
        return context.get_dummy_value()

    return types.void(ADDRESSES), generate


def dynamic_memory(name: str, element: Any) -> Any:
    """Return an intrinsic: a pointer to elements that the threads of a block share, as many as a launch gives it."""
    target = types.CPointer(element)

    @intrinsic
    def place(typing_context):
        def generate(context, builder, signature, arguments):
            memory = builder.module.globals.get(name)
            if memory is None:
                memory = ir.GlobalVariable(
                    builder.module, ir.ArrayType(context.get_data_type(element), 0), name, SHARED
                )
                memory.linkage = "external"
                memory.align = 16
            return builder.addrspacecast(memory, context.get_value_type(target))

        return target(), generate

    return place


def shared_memory(name: str, element: Any, count: int) -> Any:
    """Return an intrinsic: a pointer to elements that the threads of a block share, under a name, of one use."""
    target = types.CPointer(element)

    @intrinsic
    def place(typing_context):
        def generate(context, builder, signature, arguments):
            kind = ir.ArrayType(context.get_data_type(element), count)
            memory = builder.module.globals.get(name)
            if memory is None:
                memory = ir.GlobalVariable(builder.module, kind, name, SHARED)
                memory.linkage = "internal"
                memory.align = 16
                memory.initializer = ir.Constant(kind, ir.Undefined)
            return builder.addrspacecast(memory, context.get_value_type(target))

        return target(), generate

    return place
