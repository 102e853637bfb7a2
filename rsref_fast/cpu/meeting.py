"""Where the threads of a team wait for each other, and the little of LLVM and of POSIX threads that it takes."""

from __future__ import annotations

import platform
import time
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.plan import LINE
from rsref_fast.cpu.pointers import ADDRESSES, at, memory_on_stack

I64 = types.int64
EAGER, PATIENCE = 64, 1_000
"""How often a thread looks before it rests between looks, and before it lets others have its processor."""

SLICE = 4_000_000
"""Nanoseconds for which others have a processor at a time: what lasts longer may be the whole machine that stood still.
"""

CLOCK = time.CLOCK_MONOTONIC


@intrinsic
def words(typing_context, address):
    """The 64-bit words at an address."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(ADDRESSES))

    return ADDRESSES(I64), generate


@intrinsic
def address_of(typing_context, pointer):
    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], ir.IntType(64))

    return I64(ADDRESSES), generate


@intrinsic
def show(typing_context, pointer, number):
    """Write a word that other threads look at, and with it all that was written before."""

    def generate(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], arguments[0], "release", 8)
        return context.get_dummy_value()

    return types.void(ADDRESSES, I64), generate


@intrinsic
def seen(typing_context, pointer):
    """Read a word that other threads write, and with it all that they wrote before."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(arguments[0], "acquire", 8)

    return I64(ADDRESSES), generate


@intrinsic
def show_in_order(typing_context, pointer, number):
    """As `show`, and before what this thread reads next with `seen_in_order`: of two threads one sees the other."""

    def generate(context, builder, signature, arguments):
        builder.atomic_rmw("xchg", arguments[0], arguments[1], "seq_cst")
        return context.get_dummy_value()

    return types.void(ADDRESSES, I64), generate


@intrinsic
def seen_in_order(typing_context, pointer):
    def generate(context, builder, signature, arguments):
        return builder.load_atomic(arguments[0], "seq_cst", 8)

    return I64(ADDRESSES), generate


RESTS = {
    "x86_64": ("llvm.x86.sse2.pause", ()),
    "amd64": ("llvm.x86.sse2.pause", ()),
    "aarch64": ("llvm.aarch64.hint", (1,)),
}


@intrinsic
def rest(typing_context):
    """Do nothing for some cycles, and leave the core meanwhile to another thread that shares it, if there is one."""

    def generate(context, builder, signature, arguments):
        name, numbers = RESTS.get(platform.machine().lower(), (None, ()))
        if name is not None:
            word = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [word] * len(numbers))
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            builder.call(function, [ir.Constant(word, number) for number in numbers])
        return context.get_dummy_value()

    return types.void(), generate


def c_function(name: str, count: int) -> Any:
    """Return an intrinsic that calls a C function of addresses and 64-bit integers, by name."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word] * count)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)

    names = ", ".join(f"a{i}" for i in range(count))
    scope: dict[str, Any] = {"signature": I64(*[I64] * count), "generate": generate}
    exec(f"def call(typing_context{', ' if names else ''}{names}):\n    return signature, generate\n", scope)
    return intrinsic(scope["call"])


give_way = c_function("sched_yield", 0)
tell_time = c_function("clock_gettime", 2)
new_time = memory_on_stack(I64, 2)


@plain
def now():
    """Nanoseconds since some moment."""
    found = new_time()
    tell_time(CLOCK, address_of(found))
    return found[0] * 1_000_000_000 + found[1]


@plain
def wait_for(counter, target, own):
    """Wait until a counter has reached a number. own: word 1 says where time that is lost is added up, or is 0."""
    looks, since = 0, 0
    while seen(counter) < target:
        looks += 1
        if looks > EAGER:
            rest()
        if looks >= PATIENCE:
            since = now() if since == 0 else since
            give_way()
            looks = 0
    if since != 0 and own[1] != 0:
        words(own[1])[0] += min(now() - since, SLICE)


@plain
def rank_of(N):
    """Which thread of its team this is."""
    return N[6]


@plain
def size_of(N):
    return N[7]


@plain
def arrive(N):
    """Tell the others that this thread is here."""
    if N[7] > 1:
        own = at(words(N[8]), N[6] * LINE)
        show(own, own[0] + 1)


@plain
def wait_for_all(N):
    """Wait for those who have not arrived."""
    counts = words(N[8])
    own = at(counts, N[6] * LINE)
    for other in range(N[7]):
        wait_for(at(counts, other * LINE), own[0], own)


@plain
def meet(N):
    """Wait until all threads of a team are here: N[7] of them, each of which counts its meetings in a line of its own.

    The lines begin at the address N[8]. So a thread's arrival is on its way to the others at once, where a count that
    all add to would first have to be fetched from whoever added last.
    """
    if N[7] > 1:
        arrive(N)
        wait_for_all(N)
