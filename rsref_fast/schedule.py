"""Which part of a step is computed when: once a call, before the time loop, in it, or after it.

What depends on nothing that the loop carries leaves it: it is computed for the samples of all timesteps at once, as one
large product instead of one a step (hoisting). So is what the loop does not need itself: output layers, and the
gradients of all parameters, which are sums over samples and time alike (sinking).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rsref.graph import readers_of, topological_order
from rsref.ops.pointwise import Cast, Pointwise
from rsref.tensor import ConstantSource, Parameter, Tensor
from rsref_fast.rows import Rows
from rsref_fast.views import RULES as MOVING
from rsref_fast.wide import PLACES, is_wide

TOGETHER = (Rows.FIRST, Rows.LAST)
"""Tensors that may be computed for the samples of many timesteps at once, and stay apart."""


@dataclass(frozen=True)
class Schedule:
    """The computed tensors of a step, each in one place, in an order in which they can be computed.

    once: read no sequence and nothing that is carried; computed for one batch.
    before: read nothing that is carried; computed for all timesteps at once.
    loop: computed step by step.
    after: needed by no step; computed for all timesteps at once. A `Rows.SUM` among them is the sum over time as well.
    phase: of the leaves that are carried and of what is computed in the loop or before it, the number of the loop, if
        there are several, one after the other for each block of steps (see `phases`); the first one for others.
    """

    once: tuple[Tensor, ...]
    before: tuple[Tensor, ...]
    loop: tuple[Tensor, ...]
    after: tuple[Tensor, ...]
    phase: Mapping[Tensor, int] = field(default_factory=dict)


def schedule(
    results: Sequence[Tensor],
    rows: Mapping[Tensor, Rows],
    *,
    stepped: Collection[Tensor],
    carried: Collection[Tensor],
    needed: Collection[Tensor],
) -> Schedule:
    """Return when each computed tensor behind the results is computed.

    rows: how each depends on the samples (`rows_of`).
    stepped: leaves that have a value for each timestep. carried: leaves that a step hands on to the next.
    needed: results that the next step reads, or that are added up step by step: they stay in the loop.
    Masked rows take no part in a step: who runs a schedule with a mask must leave them out of `before` and `after` too,
    since what is computed of garbage may be refused (an index out of range).
    """
    order = [tensor for tensor in topological_order(results) if tensor.op is not None]
    fixed = _behind(order, lambda leaf: leaf not in stepped and leaf not in carried)
    free = _behind(order, lambda leaf: leaf not in carried)
    once = {t for t in order if t in fixed}
    before: set[Tensor] = set()
    for tensor in order:
        ready = all(operand.op is None or operand in once or operand in before for operand in tensor.inputs)
        if ready and tensor in free and tensor not in once and rows[tensor] in TOGETHER:
            before.add(tensor)
    before -= _better_inside(order, before)
    given = once | {i for t in order for i in t.inputs if i.op is None and i not in stepped and i not in carried}
    before -= _too_wide(order, before, given)
    inside = _inside(order, rows, once | before, needed)
    return Schedule(
        once=tuple(t for t in order if t in once),
        before=tuple(t for t in order if t in before),
        loop=tuple(t for t in order if t in inside),
        after=tuple(t for t in order if t not in once and t not in before and t not in inside),
    )


def _better_inside(order: Sequence[Tensor], before: set[Tensor]) -> set[Tensor]:
    """Return pointwise tensors that only the loop reads: computed there they need not be stored and read again."""
    readers = readers_of(order)
    moved: set[Tensor] = set()
    for tensor in reversed(order):
        own = readers.get(tensor, [])
        alone = bool(own) and all(reader not in before or reader in moved for reader in own)
        starts = tensor.dtype == "float" and all(is_sum_with_product(reader) for reader in own)
        if alone and tensor in before and isinstance(tensor.op, Pointwise | Cast) and not starts:
            moved.add(tensor)
    return moved


def _too_wide(order: Sequence[Tensor], before: set[Tensor], given: set[Tensor]) -> set[Tensor]:
    """Return wide tensors that read wide ones which are given for all steps, and all that is computed of them.

    For a block of steps they would leave the cache, and what they read would be copied for each of the steps.
    """
    moved: set[Tensor] = set()
    for tensor in order:
        if tensor in before:
            starts = _is_wide(tensor) and any(i in given and is_wide(_width(i)) for i in tensor.inputs)
            if starts or any(i in moved for i in tensor.inputs):
                moved.add(tensor)
    return moved


def _is_wide(tensor: Tensor) -> bool:
    return isinstance(tensor.op, Pointwise | Cast) and is_wide(_width(tensor))


def _width(tensor: Tensor) -> int:
    """Return how many values a sample has in a tensor; 0 if that is not known, or if it has no samples."""
    return math.prod(n or 0 for n in tensor.shape[1:]) if tensor.shape[:1] == (None,) else 0


def is_sum_with_product(tensor: Tensor) -> bool:
    """Whether a tensor is a matrix product added to something: the product can add to what is there."""
    products = [i for i in tensor.inputs if i.op_name == "matmul" and i.shape == tensor.shape]
    return tensor.op_name == "add" and bool(products)


def _behind(order: Sequence[Tensor], accepted: Callable[[Tensor], bool]) -> set[Tensor]:
    """Return the tensors all of whose leaves are accepted; parameters and constants always are."""
    found: set[Tensor] = set()
    for tensor in order:
        leaves = (i for i in tensor.inputs if i.op is None)
        own = all(isinstance(i.source, Parameter | ConstantSource) or accepted(i) for i in leaves)
        if own and all(i in found for i in tensor.inputs if i.op is not None):
            found.add(tensor)
    return found


def shown(tensor: Tensor) -> Tensor:
    """Return the tensor whose values a view shows."""
    while tensor.op_name in MOVING:
        tensor = tensor.inputs[0]
    return tensor


def _enough(total: Tensor, summed: Tensor) -> bool:
    """Whether a single step has enough to add up: of what is wide, and in a product of several rows a sample."""
    product = total.op_name in ("matmul", "einsum")
    return _is_wide(summed) and (not product or math.prod(n or 0 for n in summed.shape[1:-1]) >= PLACES)


def _inside(
    order: Sequence[Tensor], rows: Mapping[Tensor, Rows], outside: set[Tensor], needed: Collection[Tensor]
) -> set[Tensor]:
    """Return what must be computed step by step: what is needed, what mixes samples, and all that these read.

    Sums over the samples of what is wide are computed there, too: a step has enough to add up.
    """
    inside: set[Tensor] = set()
    for tensor in reversed(order):
        if tensor in outside:
            continue
        stays = tensor in needed or rows[tensor] in (Rows.MIXED, Rows.NONE)
        stays = stays or (rows[tensor] is Rows.SUM and any(_enough(tensor, shown(i)) for i in tensor.inputs))
        if stays or tensor in inside:
            inside.add(tensor)
            inside.update(i for i in tensor.inputs if i.op is not None and i not in outside)
    return inside
