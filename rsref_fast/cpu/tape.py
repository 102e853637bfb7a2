"""What a forward run leaves for backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rsref_fast.cpu.call import Call, Way
from rsref_fast.cpu.masks_plain import Held, Packed
from rsref_fast.cpu.memory import Arena
from rsref_fast.cpu.plan import Plan
from rsref_fast.cpu.specialised import Specialised
from rsref_fast.cpu.splitting import Split

Array = np.ndarray


def run_once(plan: Plan, arrays: Sequence[Array]) -> None:
    """Run a plan on all arrays of a call but its scratch memory, which is given back afterwards."""
    scratch = Arena(plan.scratch_bytes)
    plan.kernels.execute(plan, (*arrays, scratch.bytes))


def run_untaped(plan: Plan, arrays: Sequence[Array]) -> None:
    """Run a plan on the arrays that a call was handed and answers; what would be kept is not."""
    tape = Arena(plan.tape)
    run_once(plan, (*arrays, tape.bytes))


@dataclass
class Tape:
    """What backward needs of a forward run: its arguments, as kernels read them, and the memory that it filled.

    turned: whether sequences and outputs are (time, batch, ...), as kernels have them to which a batch is one sample,
    or as the caller's arrays lie in memory (`as_given`): what is answered then lies so, too.
    call: how it was run. way: how calls like it are run, if it had all steps and no mask. run: what runs a plan if
    nothing is taped.
    packed: with a mask, which rows it left. held: which places of outputs repeat earlier ones, if a mask makes them.
    pieces: tapes of single steps, if the step mixes samples and a mask leaves some out. stretch: the steps that were
    run, if not all. parts: tapes of stretches, if there are.
    """

    special: Specialised
    arguments: list[list[Array]]
    mask: Array | None
    outputs: list[Array]
    split: Split
    batch: int
    length: int
    turned: bool
    as_given: bool
    call: Call | None = None
    packed: Packed | None = None
    held: Held | None = None
    kept: Arena | None = None
    pieces: list[Any] | None = None
    stretch: tuple[int, int] | None = None
    parts: list[Tape] = field(default_factory=list)
    run: Callable[[Plan, Sequence[Array]], None] = run_untaped
    way: Way | None = None

    @property
    def steps(self) -> tuple[int, int]:
        """The steps that were run: from one, up to another."""
        return self.stretch or (0, self.length)

    def given(self) -> list[Array]:
        """Return the arguments with samples in the shards' order, and the tables of their rows, if there are any."""
        sequences, constants, states, parameters = self.arguments
        if self.packed is None:
            return [*sequences, *constants, *states, *parameters]
        mixed = [a[self.packed.order] for a in (*constants, *states)]
        return [*sequences, *mixed, *parameters, self.packed.words, self.packed.cuts]
