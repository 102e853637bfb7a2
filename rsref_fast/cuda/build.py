"""From generated source to LLVM IR and PTX, by Numba and NVVM, with no GPU and no driver."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numba.cuda import types
from numba.cuda.compiler import _compile_pyfunc_with_fixup

from rsref_fast.cuda import intrinsics
from rsref_fast.cuda.gate import NAME as GATE
from rsref_fast.cuda.jit import BASE
from rsref_fast.cuda.runtime import namespace
from rsref_fast.cuda.tile import Tile
from rsref_fast.cuda.words import NUMBERS
from rsref_fast.frames import roomy

WORDS = 6
"""Arguments of a kernel, 64 bits each: the addresses of P and N of the first shard, how many words P has for each, the
address of P of another shard, and two numbers of a step, for kernels that are one step's."""

KERNEL = types.void(*[types.int64] * WORDS)


@dataclass
class Code:
    """One kernel, as Numba lowered it."""

    library: Any

    @cached_property
    def name(self) -> str:
        found = re.search(r'define void @"([^"]+)"', "\n".join(self.library.llvm_strs))
        assert found
        return found.group(1)

    @property
    def modules(self) -> list[str]:
        """LLVM IR, as NVVM is given it."""
        return list(self.library.llvm_strs)

    @property
    def cooperative(self) -> bool:
        """Whether all threads of the grid meet in it."""
        return any(GATE in text for text in self.modules)

    def ptx(self, capability: tuple[int, int]) -> str:
        """Return the PTX for a compute capability."""
        return str(self.library.get_asm_str(cc=(*capability, "")))


@lru_cache(maxsize=256)
def kernel(text: str, entry: str, dtype: np.dtype[Any], tile: Tile, team: str) -> Code:
    """Return one entry of a generated module as a kernel. team: what shares a shard's memory, the grid or a block."""
    names = dict(namespace(dtype, tile, team, text.count("multiply_held(") > 1))
    body = "\n".join(line for line in text.splitlines() if not line.startswith("from rsref_fast."))
    exec(compile(body, f"<{entry}>", "exec"), names)  # the text is our own
    run, words, block, near_words = names[entry], names["words"], intrinsics.block_x, names["near_words"]
    own = 1 if team == "block" else 0

    def shards(P, N, slots, other, first, second):
        shard = block() * own
        P += shard * slots * 8
        run(near_words(words(P), slots), words(N + shard * NUMBERS * 8), words(other))

    def piece(P, N, slots, other, first, second):
        run(words(P), words(N), words(other), first, second)

    def loop(P, N, slots, other, first, second):
        run(near_words(words(P), slots), words(N), words(other), first, second)

    whole = run.py_func.__code__.co_argcount == 3
    made: Any = shards if whole else loop if entry == "loop" else piece
    library, _ = roomy(_compile_pyfunc_with_fixup)(
        made, KERNEL, device=False, cc=BASE, abi="numba", launch_bounds=tile.threads
    )  # fmt: skip
    return Code(library)
