"""Where the threads of a team wait for each other, and the little of LLVM and of POSIX threads that it takes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.pointers import ADDRESSES

I64 = types.int64
PATIENCE = 4096
"""How often a thread looks before it lets others have its processor."""


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
def added(typing_context, pointer, number):
    """Add to a word at once for all threads; answer what it was."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", *arguments, "acq_rel")

    return I64(ADDRESSES, I64), generate


@intrinsic
def seen(typing_context, pointer):
    """Read a word that other threads write, and with it all that they wrote before."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(arguments[0], "acquire", 8)

    return I64(ADDRESSES), generate


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


@plain
def wait_for(counter, target):
    """Wait until a counter has reached a number."""
    looks = 0
    while seen(counter) < target:
        looks += 1
        if looks >= PATIENCE:
            give_way()
            looks = 0


@plain
def rank_of(N):
    """Which thread of its team this is."""
    return N[6]


@plain
def size_of(N):
    return N[7]


@plain
def meet(N):
    """Wait until all threads of a team are here: N[7] of them, counted at the address N[8]."""
    size = N[7]
    if size > 1:
        counter = words(N[8])
        arrived = added(counter, 1)
        wait_for(counter, (arrived // size + 1) * size)
