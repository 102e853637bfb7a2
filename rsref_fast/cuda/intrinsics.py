"""The few LLVM instructions that kernels need and Numba has no function for: pointers, 32-bit division, thread teams.

A team is what shares one program's memory: all threads of the grid, or those of one block.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.cuda import nvvmutils, types
from numba.cuda.extending import intrinsic

from rsref_fast.cuda import gate

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
    return types.void(pointer, I64, *[pointer.dtype] * 4), partial(_put, align=16)


@intrinsic
def put_two(typing_context, pointer, place, a, b):
    """Write two elements from a place on, which begins at 8 bytes."""
    return types.void(pointer, I64, *[pointer.dtype] * 2), partial(_put, align=8)


def _put(context: Any, builder: Any, signature: Any, arguments: Any, align: int) -> Any:
    """Generate what writes elements side by side."""
    pointer, place, *values = arguments
    element = context.get_data_type(signature.args[0].dtype)
    vector = ir.VectorType(element, len(values))
    together = ir.Constant(vector, ir.Undefined)
    for i, value in enumerate(values):
        together = builder.insert_element(together, value, ir.Constant(ir.IntType(32), i))
    first = builder.gep(pointer, [place], source_etype=element)
    builder.store(together, builder.bitcast(first, vector.as_pointer()), align=align)
    return context.get_dummy_value()


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


ASK = "prefetch.L1 [$0];"


@intrinsic
def ask_for(typing_context, pointer, place):
    """Have an element brought near, without waiting for it."""

    def generate(context, builder, signature, arguments):
        element = context.get_data_type(signature.args[0].dtype)
        address = builder.ptrtoint(builder.gep(arguments[0], [arguments[1]], source_etype=element), WORD)
        kind = ir.FunctionType(ir.VoidType(), [WORD])
        builder.call(ir.InlineAsm(kind, ASK, "l", side_effect=True), [address])
        return context.get_dummy_value()

    return types.void(pointer, I64), generate


MULTIPLY_ADD = (
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
)


@intrinsic
def rounded(typing_context, value):
    """A float32 number rounded to the 11 digits that a tensor core multiplies, halves away from zero.

    What is not finite may become anything, but its difference from that is then NaN. (As CUTLASS does it; the PTX
    instruction for it also keeps infinities, which takes three times as long.)
    """

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        bits = builder.add(builder.bitcast(arguments[0], word), ir.Constant(word, 1 << 12))
        return builder.bitcast(builder.and_(bits, ir.Constant(word, 0xFFFFE000)), ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic
def multiply_add(typing_context, c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):
    """c + a b of a warp on its tensor core: c of 16 x 8, a of 16 x 8, b of 8 x 8, of which each thread has some.

    Thread t has c at row t / 4 and columns t % 4 * 2 and + 1, and eight rows below; a at row t / 4 and eight below, at
    column t % 4, and then at four columns further; b at rows t % 4 and + 4 of column t / 4. (PTX ISA, mma.m16n8k8.)
    Of factors the first 11 digits count. Compute capability 8.0 or newer.
    """

    def generate(context, builder, signature, arguments):
        word, single = ir.IntType(32), ir.FloatType()
        kind = ir.FunctionType(ir.LiteralStructType([single] * 4), [word] * 6 + [single] * 4)
        code = ir.InlineAsm(kind, MULTIPLY_ADD, ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4), side_effect=True)
        factors = [builder.bitcast(value, word) for value in arguments[4:]]
        found = builder.call(code, [*factors, *arguments[:4]])
        parts = [builder.extract_value(found, i) for i in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(types.float32, 4)(*[types.float32] * 10), generate


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


def _gate(name: str) -> Any:
    """Return an intrinsic that waits at a gate; the grid must have been launched cooperatively. place: of its words."""

    @intrinsic
    def wait(typing_context, place):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.VoidType(), [WORD])
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            function.attributes.add("convergent")
            builder.call(function, [builder.ptrtoint(arguments[0], WORD)])
            return context.get_dummy_value()

        return types.void(ADDRESSES), generate

    return wait


meet_in_grid = _gate(gate.NAME)
meet_in_line = _gate(gate.LINE)


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
