"""What backward needs of a call on PyTorch, as tensors that PyTorch saves: it frees them when backward has read them.

So they may also be moved elsewhere meanwhile, by hooks on saved tensors and by checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from rsref_fast.cuda.arrays import DeviceArray
from rsref_fast.cuda.parted import PartedTape
from rsref_fast.cuda.recipes import Taped
from rsref_fast.cuda.stepwise import StepTape

Make = Callable[[Iterator[Any]], Any]
"""What makes a tape of the tensors that come next."""


def apart(tape: Taped | StepTape | PartedTape) -> tuple[list[Any], Make]:
    """Return the tensors of a tape, and what makes the same tape of them, wherever they are then."""
    if isinstance(tape, PartedTape):
        (first, make_first), (step, make_step) = apart(tape.first), apart(tape.step)
        return [*first, *step], lambda tensors: PartedTape(make_first(tensors), make_step(tensors))
    return _steps_apart(tape) if isinstance(tape, StepTape) else _run_apart(tape)


def _run_apart(tape: Taped) -> tuple[list[Any], Make]:
    arrays, there = [_bare(a) for a in tape.arrays], [memory is not None for memory in tape.memory]
    unread = len(tape.pieces) - len(arrays) - len(there)  # the answers, which are not backward's
    bare = replace(tape, arrays=[], pieces=[], memory=[])

    def make(tensors: Iterator[Any]) -> Taped:
        own = [_filled(a, tensors) for a in arrays]
        memory = [next(tensors) if kept else None for kept in there]
        pieces = [*(a.address for a in own), *[0] * unread, *(0 if m is None else m.data_ptr() for m in memory)]
        return replace(bare, arrays=own, pieces=pieces, memory=memory)

    return [*map(_tensor_of, (a.owner for a in tape.arrays)), *(m.tensor for m in tape.memory if m is not None)], make


def _steps_apart(tape: StepTape) -> tuple[list[Any], Make]:
    tensors, makes = [_tensor_of(tape.mask.owner), tape.memory.tensor], []
    start = tape.memory.address
    for count, samples, places, run in tape.steps:
        own, make = ([], None) if run is None else apart(run)
        tensors += own
        makes.append((count, samples - start, places - start, make))
    mask = _bare(tape.mask)
    outputs, finals = ([_bare(a) for a in group] for group in (tape.outputs, tape.finals))
    arguments = [[_bare(a) for a in group] for group in tape.arguments]
    bare = replace(tape, arguments=arguments, outputs=outputs, finals=finals, mask=mask, steps=[], memory=None)

    def make_all(tensors: Iterator[Any]) -> StepTape:
        own, memory = _filled(mask, tensors), next(tensors)
        at = memory.data_ptr()
        steps = [(n, at + samples, at + places, make and make(tensors)) for n, samples, places, make in makes]
        return replace(bare, mask=own, memory=memory, steps=steps)

    return tensors, make_all


def _bare(array: DeviceArray) -> DeviceArray:
    """Return what an array is like, without its memory."""
    return replace(array, address=0, owner=None)


def _filled(array: DeviceArray, tensors: Iterator[Any]) -> DeviceArray:
    tensor = next(tensors)
    return replace(array, address=tensor.data_ptr(), owner=tensor)


def _tensor_of(owner: Any) -> Any:
    """Return the tensor that is an array's owner, or that our own memory is."""
    return getattr(owner, "tensor", owner)
