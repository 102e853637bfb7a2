"""Memory without arrays: typed pointers, and the few LLVM instructions that Numba has no function for.

Kernels are given addresses, and index them. Arrays would cost most of the compile time, and copies of their bounds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

I64 = types.int64
ADDRESSES = types.CPointer(types.int64)


def pointer_to(element: Any) -> Any:
    """Return an intrinsic: the address in a slot of P, as a pointer to elements of a type."""
    target = types.CPointer(element)

    @intrinsic
    def slot(typing_context, table, index):
        def generate(context, builder, signature, arguments):
            address = builder.load(builder.gep(arguments[0], [arguments[1]]))
            return builder.inttoptr(address, context.get_value_type(target))

        return target(ADDRESSES, I64), generate

    return slot


@intrinsic
def at(typing_context, pointer, place):
    """The pointer to the element at a place."""

    def generate(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, I64), generate


def write_fetch(builder: Any, pointer: Any, place: Any, writes: bool = False) -> None:
    """Write the instruction that begins to read the cache line of an element. writes: it will be written, too."""
    address = builder.bitcast(builder.gep(pointer, [place]), ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [address.type, *[ir.IntType(32)] * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [address, *(ir.Constant(ir.IntType(32), n) for n in (int(writes), 3, 1))])  # kept, as data


@intrinsic
def fetch(typing_context, pointer, place):
    """Begin to read the cache line of an element."""

    def generate(context, builder, signature, arguments):
        write_fetch(builder, *arguments)
        return context.get_dummy_value()

    return types.none(pointer, I64), generate


@intrinsic
def one_like(typing_context, value):
    """The number 1, of the type of a value."""

    def generate(context, builder, signature, arguments):
        return context.get_constant(value, 1)

    return value(value), generate


def _extreme(of_floats: str, which: str) -> Any:
    """Return an intrinsic of two numbers of one kind. LLVM turns these into vector code in loops over a row, too."""

    @intrinsic
    def extreme(typing_context, a, b):
        kind = typing_context.unify_types(a, b)
        floats = isinstance(kind, types.Float)
        name = f"{of_floats}.f" if floats else f"{'s' if isinstance(kind, types.Integer) else 'u'}{which}.i"
        bits = 1 if kind is types.boolean else kind.bitwidth

        def generate(context, builder, signature, arguments):
            own = context.get_value_type(kind)
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(own, [own] * 2), f"llvm.{name}{bits}"
            )
            return builder.call(function, arguments, fastmath=("nsz",) if floats else ())

        return kind(kind, kind), generate

    return extreme


greater = _extreme("maximum", "max")
less = _extreme("minimum", "min")
"""NaN if one of them is NaN; either of 0.0 and -0.0."""


def memory_on_stack(element: Any, count: int) -> Any:
    """Return an intrinsic: a pointer to memory for some elements, gone when the function returns."""
    target = types.CPointer(element)

    @intrinsic
    def allocate(typing_context):
        def generate(context, builder, signature, arguments):
            value = context.get_value_type(element)
            with builder.goto_entry_block():  # Numba's own alloca_once would fill it with zeros, at each call
                place = builder.alloca(ir.ArrayType(value, count))
            place.align = 64
            return builder.bitcast(place, value.as_pointer())

        return target(), generate

    return allocate


@intrinsic
def allocated(typing_context, like, count):
    """A pointer to memory for some elements, of the kind that another pointer has; of which there may be none.

    It must be handed to `release`.
    """

    def generate(context, builder, signature, arguments):
        word, pointer = ir.IntType(64), context.get_value_type(signature.return_type)
        kind = ir.FunctionType(ir.IntType(8).as_pointer(), [word])
        size = ir.Constant(word, context.get_abi_sizeof(pointer.pointee))
        found = builder.call(
            cgutils.get_or_insert_function(builder.module, kind, "malloc"), [builder.mul(arguments[1], size)]
        )
        return builder.bitcast(found, pointer)

    return like(like, I64), generate


@intrinsic
def release(typing_context, pointer):
    """Give memory back that was `allocated`."""

    def generate(context, builder, signature, arguments):
        empty = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [empty])
        free = cgutils.get_or_insert_function(builder.module, kind, "free")
        builder.call(free, [builder.bitcast(arguments[0], empty)])
        return context.get_dummy_value()

    return types.none(pointer), generate


@intrinsic
def there(typing_context, pointer):
    """Whether a pointer leads anywhere."""

    def generate(context, builder, signature, arguments):
        return cgutils.is_not_null(builder, arguments[0])

    return types.boolean(pointer), generate


def copied(element: Any, count: int) -> Any:
    """Return an intrinsic `(source, target)`: so many elements that follow each other, in vectors.

    As a loop it would be unrolled element by element, and turned into vectors again, which takes a second.
    """
    pointer = types.CPointer(element)

    @intrinsic
    def copy(typing_context, source, target):
        def generate(context, builder, signature, arguments):
            scalar = context.get_value_type(element)
            vectors = [builder.bitcast(a, ir.VectorType(scalar, count).as_pointer()) for a in arguments]
            load = builder.load(vectors[0])
            load.align = context.get_abi_sizeof(scalar)
            builder.store(load, vectors[1]).align = load.align
            return context.get_dummy_value()

        return types.void(pointer, pointer), generate

    return copy


def on_bits(compute: Any, to_float: bool = True, element: Any = types.float32) -> Any:
    """Return an intrinsic on the bits of a float: `compute(builder, bits, constant)` answers as many bits.

    Written in LLVM since Numba computes with integers of 64 bits, for which float32 would need vectors twice as wide.
    to_float: whether the answer's bits are those of a float; else it is an integer to be converted to one.
    """

    @intrinsic
    def function(typing_context, value):
        def generate(context, builder, signature, arguments):
            word, real = ir.IntType(element.bitwidth), context.get_value_type(element)
            bits = compute(builder, builder.bitcast(arguments[0], word), lambda n: ir.Constant(word, n))
            return builder.bitcast(bits, real) if to_float else builder.sitofp(bits, real)

        return element(element), generate

    return function


def caller(symbol: str, signature: Any) -> Any:
    """Return an intrinsic that calls one of our own functions by its published name, the way Numba calls them."""

    def generate(context, builder, own, arguments):
        values = [context.get_value_type(a) for a in signature.args]
        # a place for the result (none: a pointer) and one for an exception, which these functions never raise
        empty = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.IntType(32), [empty, empty, *values])
        function = cgutils.get_or_insert_function(builder.module, kind, symbol)
        result = cgutils.alloca_once(builder, ir.IntType(64))
        error = cgutils.alloca_once(builder, ir.IntType(64))
        places = [builder.bitcast(place, empty) for place in (result, error)]
        builder.call(function, [*places, *arguments])
        return context.get_dummy_value()

    count = len(signature.args)
    names = ", ".join(f"a{i}" for i in range(count))
    scope: dict[str, Any] = {"signature": types.void(*signature.args), "generate": generate}
    exec(f"def call(typing_context, {names}):\n    return signature, generate\n", scope)
    return intrinsic(scope["call"])
