"""The rest of a loop that is turned into vectors: elements that fill no vector are computed as one, masked.

LLVM would compute them with smaller vectors and one by one: of ten units that is every one, and a tanh of one number
takes as long as one of sixteen. Loops with a call of `rest_masked` at their end are hinted at where the processor can
mask memory.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rsref_fast.cpu.objects import features

MASKING = {"+avx", "+sve"}
"""Features of processors that leave out elements of a vector when they read and write."""

MARK = "rsref.rest_masked"
HINT = "llvm.loop.vectorize.predicate.enable"


@intrinsic
def rest_masked(typing_context):
    """Mark the loop at whose end this stands."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, MARK), [])
        return context.get_dummy_value()

    return types.none(), generate


def hint(module: Any) -> None:
    """Put, for each marked loop of a module that Numba made, a hint for LLVM in the mark's place."""
    if MARK not in module.globals:
        return
    mark = module.globals.pop(MARK)
    masked = module.add_metadata([HINT, ir.Constant(ir.IntType(1), 1)])
    for function in module.functions:
        for block in function.blocks:
            marks = [one for one in block.instructions if getattr(one, "callee", None) is mark]
            for one in marks:
                block.instructions.remove(one)
            if marks and MASKING & {*features().split(",")}:
                name_loop(module, block.terminator, masked)


def name_loop(module: Any, branch: Any, hint: Any) -> None:
    """Give the loop that a branch repeats a hint, a node of the module's."""
    loop = module.add_metadata([ir.Constant(ir.IntType(32), len(module.metadata))])
    loop.operands = (loop, hint)  # LLVM knows a loop by a node that names itself
    branch.set_metadata("llvm.loop", loop)
