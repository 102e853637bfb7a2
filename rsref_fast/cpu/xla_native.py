"""The function that XLA calls, by its foreign function interface: it finds the arrays, the crew runs the plan."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from rsref_fast.cpu.build import object_of
from rsref_fast.cpu.crew_native import ARRAYS, RANKS, SHARDS, TEAM, context_of
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.meeting import address_of, c_function, words
from rsref_fast.cpu.plan import NUMBERS
from rsref_fast.cpu.pointers import ADDRESSES, at

I64 = types.int64


@intrinsic
def half_words(typing_context, address):
    """The 32-bit words at an address."""
    target = types.CPointer(types.int32)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(target))

    return target(I64), generate


def xla_handler(api_minor: int) -> tuple[bytes, str]:
    """Return a function that XLA calls, by its foreign function interface, as an object file, and its name in it.

    XLA's structures are read as 64-bit words (xla/ffi/api/c_api.h). A call frame: 1 extension, 7 and 12 the numbers of
    arguments and results, 9 and 14 themselves, 20 attributes. A buffer: 3 data. An extension of type 1 asks for
    metadata: the version of the interface is written. The one attribute is the address of a plan.
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
        arrays = at(context, plan[RANKS] + plan[SHARDS] * plan[TEAM] * NUMBERS)
        for i in range(given):
            arrays[i] = words(arguments[i])[3]
        for i in range(count - given):
            arrays[given + i] = words(results[i])[3]
        run_plan(address, address_of(arrays))
        return 0

    return object_of(plain(handle), I64(ADDRESSES))
