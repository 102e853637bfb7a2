"""What turns generated source into functions, and runs them on the arrays of a call as a plan says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import numpy as np

from rsref_fast.cpu import interpreted, masks_plain
from rsref_fast.cpu.indices import REFUSED, refusal
from rsref_fast.cpu.source import FIRST_SLOT, Source
from rsref_fast.cpu.target import CPU, Target
from rsref_fast.cpu.turns import Turns

if TYPE_CHECKING:
    from rsref_fast.cpu.plan import Place, Plan

Array = np.ndarray


class Kernels:
    """The functions of one program, for a working precision. Subclasses say how they are made and run.

    target: what programs' text is like. block_rows: for how many rows at once a program does what is not done step by
    step; None for what suits a processor's cache. masks: the module that says what a mask does.
    """

    target: Target = CPU
    block_rows: int | None = None
    masks: Any = masks_plain

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        self.source = source
        self.dtype = dtype
        self.slots = {m.name: i + FIRST_SLOT for i, m in enumerate(source.memory)}

    def __deepcopy__(self, _memo: Any) -> Kernels:
        return self  # nothing of it changes

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a tape of a compiled engine cannot be pickled, since its code lies elsewhere in another process: "
            "pickle the layer or the engine, and call forward there"
        )

    @staticmethod
    def panel_width(dtype: np.dtype[Any]) -> int:
        """Return how many columns a panel of packed weights has."""
        raise NotImplementedError

    def execute(self, plan: Plan, arrays: Sequence[Array]) -> None:
        """Run a plan on arrays, contiguous and of the kernels' dtypes. Errors: IndexError from `take`."""
        raise NotImplementedError

    def repeated(self, plans: Sequence[Plan], arrays: Sequence[Array]) -> Callable[[], None]:
        """Return a function that runs the last of some plans again and again, on the same arrays.

        plans: the first one, of no steps, prepares what depends on parameters alone. arrays: all but the last two.
        """
        tape, scratch = (np.zeros(max(sizes), np.uint8) for sizes in zip(*((p.tape, p.scratch_bytes) for p in plans)))
        return lambda: self.execute(plans[-1], [*arrays, tape, scratch])

    @staticmethod
    def direct_step(
        alone: Any, close: Any, within: float, inputs: Sequence[Array], outputs: Sequence[Array]
    ) -> Callable[..., list[Array] | None] | None:
        """Return what takes a step of a stream without Python's interpreter (see `direct`), if there is something."""
        return None


class Interpreted(Kernels):
    """Runs the generated source with Python itself: slow, and every index is checked.

    Memory that nobody has written holds NaN. Of the threads of a plan one runs at a time, in an order that changes.
    """

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        super().__init__(source, dtype)
        self.names = interpreted.load(source.text, dtype)

    @staticmethod
    def panel_width(dtype: np.dtype[Any]) -> int:
        return interpreted.WIDTH

    def execute(self, plan: Plan, arrays: Sequence[Array]) -> None:
        tape, scratch = arrays[plan.arrays - 2 : plan.arrays]
        if not self.source.backward:
            tape[:] = 0xFF
        scratch[0 if plan.prepares else plan.prepared :] = 0xFF

        def seen(place: Place) -> Array:
            if place.fixed is not None:
                return place.fixed
            whole = arrays[place.array].reshape(-1).view(np.uint8)
            part = whole[place.offset : place.offset + place.bytes]
            assert part.size == place.bytes, f"{place} is not in its array of {whole.size} bytes"
            return part.view(place.dtype)

        for target, source in plan.copies:
            seen(target)[...] = seen(source)
        for target in plan.clears:
            seen(target)[...] = 0
        tables = [[seen(place) for place in places] for _, places in plan.shards]
        threads, team, program = plan.threads, plan.split.team, self.source
        found = np.zeros((threads, 16), np.int64)

        def member(rank: int) -> None:
            numbers = found[rank]

            def run(entry: str, table: Any, other: Any, together: bool) -> None:
                numbers[6:9] = (rank, threads, -1) if together else (rank % team, team, rank // team)
                with np.errstate(all="ignore"):
                    self.names[entry](table, numbers, other)

            def meet(*among: int) -> None:
                numbers[6:9] = among or (rank, threads, -1)
                interpreted.meet(numbers)

            if plan.prepares:
                run("prepare", tables[0], tables[0], True)
                meet()
            for i in range(rank // team, len(tables), plan.split.teams):
                shard, _ = plan.shards[i]
                numbers[:5] = shard.count, shard.steps, max(plan.limit, shard.count), numbers[REFUSED], plan.taped
                numbers[9] = i >= plan.split.teams
                if numbers[9]:  # others may still read the memory of the round before
                    meet(rank % team, team, rank // team)
                run("shard", tables[i], tables[i], False)
            if program.backward:
                meet()
                for other in tables[1 : plan.split.teams]:
                    run("fold", tables[0], other, True)
            if program.finishes:
                meet()
                run("finish", tables[0], tables[0], True)

        Turns(threads).run(member)
        for numbers in found:
            if numbers[REFUSED]:
                raise refusal(numbers)
