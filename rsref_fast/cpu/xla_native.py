"""The function that XLA calls, by its foreign function interface: it finds the arrays, the crew runs the plan."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rsref_fast.cpu.build import object_of
from rsref_fast.cpu.crew_native import ARRAYS, addresses_of, context_of
from rsref_fast.cpu.indices import INDEX, LENGTH, SENTENCE
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.meeting import address_of, c_function, words
from rsref_fast.cpu.pointers import ADDRESSES, memory_on_stack

I64 = types.int64
OUT_OF_RANGE, RESOURCE_EXHAUSTED = 11, 8
"""XLA_FFI_Error_Code."""

ROOM = 256
"""Bytes for a sentence, with the zero at its end."""


@intrinsic
def half_words(typing_context, address):
    """The 32-bit words at an address."""
    target = types.CPointer(types.int32)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(target))

    return target(I64), generate


@intrinsic
def answer_of(typing_context, function, argument):
    """Call a C function by its address."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word])
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return I64(I64, I64), generate


def written(sentence: str) -> Any:
    """Return an intrinsic that writes a sentence about two numbers at an address, as C's snprintf does."""

    @intrinsic
    def write(typing_context, place, first, second):
        def generate(context, builder, signature, arguments):
            word, text = ir.IntType(64), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.IntType(32), [text, word, text], var_arg=True)
            function = cgutils.get_or_insert_function(builder.module, kind, "snprintf")
            place, *numbers = arguments
            form = context.insert_const_string(builder.module, sentence)
            builder.call(function, [builder.inttoptr(place, text), ir.Constant(word, ROOM), form, *numbers])
            return context.get_dummy_value()

        return types.void(I64, I64, I64), generate

    return write


write_refusal, write_lack = written(SENTENCE), written("no more threads can be started")
new_sentence, new_report = memory_on_stack(types.int64, ROOM // 8), memory_on_stack(types.int64, 4)


@plain
def error_of(status, api):
    """The error that XLA is to raise, for what `execute` has answered; XLA copies the sentence.

    An interface: 6 what makes an error. Its argument: 0 size in bytes, 1 extension, 2 sentence, 3 code, of 32 bits.
    """
    sentence, report = address_of(new_sentence()), new_report()
    if status > 0:
        numbers = words(status)
        write_refusal(sentence, numbers[INDEX], numbers[LENGTH])
        report[3] = OUT_OF_RANGE
    else:
        write_lack(sentence, 0, 0)
        report[3] = RESOURCE_EXHAUSTED
    report[0], report[1], report[2] = 28, 0, sentence
    return answer_of(api[6], address_of(report))


def xla_handler(api_minor: int) -> tuple[bytes, str]:
    """Return a function that XLA calls, by its foreign function interface, as an object file, and its name in it.

    XLA's structures are read as 64-bit words (xla/ffi/api/c_api.h). A call frame: 1 extension, 2 interface, 7 and 12
    the numbers of arguments and results, 9 and 14 themselves, 20 attributes. A buffer: 3 data. An extension of type 1
    asks for metadata: the version of the interface is written. The one attribute is the address of a plan. The answer
    is 0, or the address of an error, which is XLA's from then on.
    """
    run_plan = c_function("rsref_crew", 2)

    def handle(frame: Any) -> int:
        if frame[1] != 0 and half_words(frame[1])[2] == 1:
            version = half_words(words(frame[1])[3])
            version[6] = 0
            version[7] = api_minor
            version[8] = 0
            return 0
        arguments, results = words(frame[9]), words(frame[14])
        attribute = words(words(frame[20])[0])
        address = words(attribute[1])[0]
        plan = words(address)
        count, given = plan[ARRAYS], frame[7]
        scratch = words(results[count - given - 1])[3]
        context = context_of(plan, scratch)
        arrays = addresses_of(plan, context)
        for i in range(given):
            arrays[i] = words(arguments[i])[3]
        for i in range(count - given):
            arrays[given + i] = words(results[i])[3]
        status = run_plan(address, address_of(arrays))
        return error_of(status, words(frame[2])) if status != 0 else 0

    return object_of(plain(handle), I64(ADDRESSES))
