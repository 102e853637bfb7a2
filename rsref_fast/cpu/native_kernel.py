"""The function that XLA calls, by its foreign function interface: it fills P as a plan says, and runs the program.

XLA's structures are read as 64-bit words (xla/ffi/api/c_api.h). A call frame: 1 extension, 9 arguments, 14 results,
20 attributes. A buffer: 3 data. An extension of type 1 asks for metadata: the version of the interface is written.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rsref_fast.cpu.build import object_of
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.native import HEADER
from rsref_fast.cpu.pointers import ADDRESSES, at

I64 = types.int64
SIGNATURE = types.int64(ADDRESSES)


@intrinsic
def words(typing_context, address):
    """The 64-bit words at an address."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(ADDRESSES))

    return ADDRESSES(I64), generate


@intrinsic
def half_words(typing_context, address):
    """The 32-bit words at an address."""
    target = types.CPointer(types.int32)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(target))

    return target(I64), generate


@intrinsic
def address_of(typing_context, pointer):
    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], ir.IntType(64))

    return I64(ADDRESSES), generate


@intrinsic
def call_program(typing_context, address, table, numbers):
    """Call a program by its address, the way Numba calls functions."""

    def generate(context, builder, signature, arguments):
        word, empty = ir.IntType(64), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.IntType(32), [empty, empty, word.as_pointer(), word.as_pointer()])
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        places = [builder.bitcast(builder.alloca(word), empty) for _ in range(2)]
        builder.call(function, [*places, arguments[1], arguments[2]])
        return context.get_dummy_value()

    return types.void(I64, ADDRESSES, ADDRESSES), generate


@intrinsic
def move(typing_context, target, source, size):
    """Copy bytes; from address 0: clear them."""

    def generate(context, builder, signature, arguments):
        from numba.core import cgutils

        target, source, size = arguments
        byte = ir.IntType(8)
        to = builder.inttoptr(target, byte.as_pointer())
        with builder.if_else(builder.icmp_unsigned("==", source, ir.Constant(source.type, 0))) as (clear, copy):
            with clear:
                cgutils.memset(builder, to, size, 0)
            with copy:
                cgutils.raw_memcpy(builder, to, builder.inttoptr(source, byte.as_pointer()), size, 1)
        return context.get_dummy_value()

    return types.void(I64, I64, I64), generate


@plain
def resolved(kind, number, offset, arguments, results):
    """The address of a place."""
    if kind == 1:
        return words(arguments[number])[3] + offset
    if kind == 2:
        return words(results[number])[3] + offset
    return offset


def compiled(api_minor: int) -> tuple[bytes, str]:
    """Return the handler as an object file, and its name in it."""

    def handle(frame: Any) -> int:
        if frame[1] != 0 and half_words(frame[1])[2] == 1:
            version = half_words(words(frame[1])[3])
            version[6] = 0
            version[7] = api_minor
            version[8] = 0
            return 0
        arguments, results = words(frame[9]), words(frame[14])
        attribute = words(words(frame[20])[0])
        plan = words(words(attribute[1])[0])
        scratch = words(results[plan[2]])[3]
        table = words((scratch + plan[3] + 63) // 64 * 64)
        numbers = at(table, plan[1])
        at_word = HEADER
        for i in range(plan[1]):
            table[i] = resolved(plan[at_word], plan[at_word + 1], plan[at_word + 2], arguments, results)
            at_word += 3
        for _ in range(plan[4]):
            target = resolved(plan[at_word], plan[at_word + 1], plan[at_word + 2], arguments, results)
            source = resolved(plan[at_word + 3], plan[at_word + 4], plan[at_word + 5], arguments, results)
            move(target, source, plan[at_word + 6])
            at_word += 7
        for _ in range(plan[5]):
            target = resolved(plan[at_word], plan[at_word + 1], plan[at_word + 2], arguments, results)
            move(target, 0, plan[at_word + 3])
            at_word += 4
        numbers[0] = plan[8]
        numbers[1] = plan[9]
        numbers[2] = plan[10]
        numbers[3] = 0
        numbers[4] = plan[11]
        if plan[6] != 0:
            numbers[5] = 0
            call_program(plan[0], table, numbers)
        numbers[5] = 1
        call_program(plan[0], table, numbers)
        if plan[7] != 0:
            numbers[5] = 2
            call_program(plan[0], table, numbers)
        return 0

    return object_of(plain(handle), SIGNATURE)
