"""The first stage: from one timestep forward to one timestep backward, both as graphs.

The vjp of every op is written with ops; drawn on tensors instead of computed on arrays it is the backward step's graph,
which the later stages treat like the forward one. What backward reads of forward's values becomes explicit: they are
leaves of the backward graph, and further outputs of the forward graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rsref.graph import StepGraph, substitute, topological_order
from rsref.ops.base import NoGradientError, Op, as_tensor, check_gradient, differentiable
from rsref.tensor import ConstantSource, Input, Parameter, Tensor
from rsref_fast.expressions import COMPARISONS
from rsref_fast.schedule import shown


@dataclass(frozen=True)
class Derivative:
    """A timestep and its backward step.

    graph: the timestep as it was drawn.
    saved: tensors computed of the timestep whose values backward reads; `leaves` of the timestep are read as they are.
    saved_leaves: the leaves that stand for them in the backward step, in the same order.
    shaped, shape_leaves: tensors of the timestep of which backward needs the shape alone, and their leaves.
    d_outputs, d_new_states: leaves that receive the gradients of the outputs and of the new states; None for one that
        is not floating.
    d_sequences, d_constants, d_states, d_parameters: what this step adds to the gradients of the timestep's leaves, as
        tensors of the backward step; None where nothing flows.
    missing: what is wrong, if an op of the timestep has no gradient; then none is drawn at all.
    blocked: what is wrong, for each output whose gradient alone flows through such an op; d_outputs has None for it.
    """

    graph: StepGraph
    saved: tuple[Tensor, ...]
    saved_leaves: tuple[Tensor, ...]
    shaped: tuple[Tensor, ...]
    shape_leaves: tuple[Tensor, ...]
    d_outputs: tuple[Tensor | None, ...]
    d_new_states: tuple[Tensor | None, ...]
    d_sequences: tuple[Tensor | None, ...]
    d_constants: tuple[Tensor | None, ...]
    d_states: tuple[Tensor | None, ...]
    d_parameters: tuple[Tensor | None, ...]
    missing: str = field(default="", kw_only=True)
    blocked: Mapping[int, str] = field(default_factory=dict, kw_only=True)

    def check(self, d_outputs: Sequence[Any]) -> None:
        """NoGradientError if the gradient of an output is given that has to flow through an op without one."""
        for i, why in self.blocked.items():
            if d_outputs[i] is not None:
                raise NoGradientError(why)

    @property
    def results(self) -> list[Tensor]:
        """All gradients that the backward step computes."""
        groups = (self.d_sequences, self.d_constants, self.d_states, self.d_parameters)
        return [tensor for group in groups for tensor in group if tensor is not None]


def differentiate(graph: StepGraph, keep: Callable[[Tensor, bool], bool] = lambda tensor, exact: True) -> Derivative:
    """Return a timestep with its backward step.

    keep: whether a computed tensor of the timestep may be saved; backward computes the others again. It is told whether
        backward needs forward's very bits.
    Errors: NotImplementedError, naming it, for an op whose vjp takes arrays alone; ValueError, from an op's own vjp,
        if its gradient cannot be drawn for the shapes at hand.
    """
    d_outputs = tuple(_gradient_leaf(y, f"d_output_{i}") for i, y in enumerate(graph.outputs))
    d_new_states = tuple(_gradient_leaf(s, f"d_new_state_{i}") for i, s in enumerate(graph.new_states))
    gradients, missing = _flowing(graph, d_outputs, d_new_states)
    blocked = {}
    if missing:
        alone = [tuple(d if i == k else None for k, d in enumerate(d_outputs)) for i in range(len(d_outputs))]
        blocked = {i: why for i, one in enumerate(alone) if (why := _flowing(graph, one, ())[1])}
        rest = tuple(None if i in blocked else d for i, d in enumerate(d_outputs))
        if any(d is not None for d in (*rest, *d_new_states)):
            d_outputs = rest
            gradients, missing = _flowing(graph, d_outputs, d_new_states)
    groups = (graph.sequences, graph.constants, graph.states, tuple(p.tensor for p in graph.parameters))
    found = [[gradients.get(leaf) for leaf in group] for group in groups]
    return replace(_separated(graph, d_outputs, d_new_states, found, keep), missing=missing, blocked=blocked)


def _flowing(
    graph: StepGraph, d_outputs: Sequence[Tensor | None], d_new_states: Sequence[Tensor | None]
) -> tuple[dict[Tensor, Tensor], str]:
    """Return the gradients that flow from those of some results, and what is wrong if an op in between has none."""
    gradients: dict[Tensor, Tensor] = {}
    for tensor, d in (*zip(graph.outputs, d_outputs), *zip(graph.new_states, d_new_states)):
        if d is not None:
            _add(gradients, tensor, d)
    try:
        _flow_back(graph, gradients)
    except NoGradientError as error:  # forward alone can be compiled
        return {}, str(error)
    return gradients, ""


def _flow_back(graph: StepGraph, gradients: dict[Tensor, Tensor]) -> None:
    """Draw the gradients of all that a timestep computes, and of its leaves, from those of its results."""
    for tensor, wrt in _reversed_steps(graph.order):
        g = gradients.get(tensor)
        if g is None or tensor.op is None:
            continue
        for k in wrt:
            _add(gradients, tensor.inputs[k], _vjp(tensor.op, k, g, tensor))


def _vjp(op: Op, wrt: int, g: Tensor, y: Tensor) -> Tensor:
    """Draw the gradient of an operand of a tensor's op. Errors: NotImplementedError, naming it, if it cannot be drawn.

    A formula may take arrays alone, which is enough for the reference engine.
    """
    try:
        d = as_tensor(op.vjp(wrt, g, y, *y.inputs, **y.attrs))
    except NoGradientError:
        raise
    except (TypeError, AttributeError) as error:
        raise NotImplementedError(f"the gradient of op {op.name!r} cannot be drawn: {error}") from error
    check_gradient(op, wrt, d, y.inputs[wrt].shape)
    return d


def _separated(
    graph: StepGraph,
    d_outputs: tuple[Tensor | None, ...],
    d_new_states: tuple[Tensor | None, ...],
    found: list[list[Tensor | None]],
    keep: Callable[[Tensor, bool], bool],
) -> Derivative:
    """Cut the backward step off from the forward one: forward's computed values become leaves."""
    results = [tensor for group in found for tensor in group if tensor is not None]
    computed = {tensor for tensor in graph.order if tensor.op is not None}
    computed |= _folded(results, computed, {d for d in (*d_outputs, *d_new_states) if d is not None})
    shapes: dict[Tensor, Tensor] = {}
    results = _without_shape_reads(results, computed, shapes)
    exact = _compared(results)
    own = {tensor for tensor in computed if keep(tensor, tensor in exact)}
    saved = _without_cheap(_first_reached(results, own), own, graph, results, exact)
    leaves = tuple(
        Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=f"saved_{i}") for i, tensor in enumerate(saved)
    )
    cut = iter(substitute(results, dict(zip(saved, leaves))))
    parts = [tuple(None if tensor is None else next(cut) for tensor in group) for group in found]
    return Derivative(graph, saved, leaves, tuple(shapes), tuple(shapes.values()), d_outputs, d_new_states, *parts)


CHEAP = (
    "add", "subtract", "multiply", "divide", "negative", "square", "absolute", "maximum", "minimum", "where", "cast",
    "less", "less_equal", "equal", "not_equal", "logical_not", "logical_and", "logical_or", "logical_xor",
)  # fmt: skip
"""Ops that cost less than to write what they computed to memory, and to read it."""

MOST, FEW = 4, 8
"""How many such ops are done again instead, and how many times fewer the numbers must be that are kept for it."""


def _compared(results: Sequence[Tensor]) -> set[Tensor]:
    """Return the tensors that are compared with what is computed of them: entries, say, with the largest of them.

    Computed again they may be rounded otherwise, a product and a sum at once: then none would be the largest.
    """
    found: set[Tensor] = set()
    for tensor in topological_order(results):
        if tensor.op_name in COMPARISONS and tensor.inputs[0].dtype == "float":
            first, second = map(shown, tensor.inputs)
            if first in topological_order([second]) or second in topological_order([first]):
                found |= {first, second}
    return found


def _without_cheap(
    saved: Sequence[Tensor], own: set[Tensor], graph: StepGraph, results: Sequence[Tensor], exact: set[Tensor]
) -> tuple[Tensor, ...]:
    """Leave out of what is saved that which is cheap to compute again.

    It is computed of what else is saved, of leaves that are read anyway, of new states, which are in memory for the
    next step, and of much fewer numbers, which are saved instead: so a row's mean and deviation, not the whole row.
    own: what may be saved. exact: of which backward needs forward's very bits.
    """
    kept = dict.fromkeys(saved)
    there = {*graph.states, *_first_reached(results, {*saved, *graph.sequences, *graph.constants})}
    there |= own.intersection(graph.new_states)

    def behind(tensor: Tensor, few: int) -> list[Tensor] | None:
        """Return what must be there for a tensor to be computed again, a tensor for each op; None if it is too much."""
        found: list[Tensor] = []
        for i in tensor.inputs:
            if i in there or (i in own and 0 < _width(i) <= few):
                found.append(i)
            elif not isinstance(i.source, Parameter | ConstantSource):
                again = i.op_name in CHEAP and i not in exact
                more = behind(i, few) if again else None
                if more is None:
                    return None
                found += more
        return found

    for tensor in reversed(saved):
        if tensor.op_name not in CHEAP or tensor in exact or tensor in graph.new_states:
            continue
        there.discard(tensor)
        operands = behind(tensor, _width(tensor) // FEW)
        if operands is None or len(operands) > MOST:
            there.add(tensor)
        else:
            del kept[tensor]
            kept.update((i, None) for i in operands if i in own)
            there.update(operands)
    return tuple(t for t in topological_order(list(kept)) if t in kept)


def _folded(results: Sequence[Tensor], computed: set[Tensor], flowing: set[Tensor]) -> set[Tensor]:
    """Return what backward would compute of forward's values alone, and is smaller: forward keeps that instead.

    So the deviation by which a row was divided, say, is not worked out again from the row.
    """
    order = topological_order(results)
    behind = set(flowing)
    for tensor in order:
        if any(operand in behind for operand in tensor.inputs):
            behind.add(tensor)
    alone = {t for t in order if t.op is not None and t not in computed and t not in behind}
    read = {operand for tensor in order if tensor in behind for operand in tensor.inputs if operand in alone}
    return {t for t in read if any(_width(source) > _width(t) > 0 for source in _first_reached([t], computed))}


def _width(tensor: Tensor) -> int:
    """Return how many values a sample has in a tensor; 0 if that is not known, or if it has no samples."""
    batch, inner = tensor.shape[:1], tensor.shape[1:]
    return math.prod(n or 0 for n in inner) if batch == (None,) else 0


SHAPE_READS = {
    "sum_to_like": 1, "broadcast_like": 1, "reshape_like": 1, "put_slice": 1, "put_windows": 1, "put_add": 2,
    "count": 0,
}  # fmt: skip
"""Ops that read nothing but the shape of one operand, and which."""


def _without_shape_reads(
    results: Sequence[Tensor], computed: set[Tensor], shapes: dict[Tensor, Tensor]
) -> list[Tensor]:
    """Return the results with leaves in place of forward's tensors where only their shape is read.

    shapes: receives those leaves.
    """
    new: dict[Tensor, Tensor] = {}
    for tensor in topological_order(results):
        place = SHAPE_READS.get(tensor.op.name) if tensor.op is not None and tensor not in computed else None
        operands = [new.get(operand, operand) for operand in tensor.inputs]
        if place is not None and tensor.inputs[place] in computed:
            like = tensor.inputs[place]
            if like not in shapes:
                shapes[like] = Input(batch_shape=like.shape, dtype=like.dtype, name=f"shape_{len(shapes)}")
            operands[place] = shapes[like]
        if tensor not in computed and any(a is not b for a, b in zip(operands, tensor.inputs)):
            spec = tensor.op.infer(*(i.spec for i in operands), **tensor.attrs)  # type: ignore[union-attr]
            new[tensor] = Tensor(spec, op=tensor.op, inputs=operands, attrs=tensor.attrs, name=tensor.name)
    return [new.get(tensor, tensor) for tensor in results]


def _first_reached(results: Sequence[Tensor], forward: set[Tensor]) -> list[Tensor]:
    """Return forward's computed tensors that the results read, but not what is only behind them."""
    reached: dict[Tensor, None] = {}
    seen: set[Tensor] = set()
    stack = list(results)
    while stack:
        tensor = stack.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        if tensor in forward:
            reached[tensor] = None
        else:
            stack.extend(tensor.inputs)
    return [tensor for tensor in topological_order(list(reached)) if tensor in reached]


def _gradient_leaf(tensor: Tensor, name: str) -> Tensor | None:
    return Input(batch_shape=tensor.shape, name=name) if tensor.dtype == "float" else None


def _add(gradients: dict[Tensor, Tensor], tensor: Tensor, d: Tensor) -> None:
    gradients[tensor] = gradients[tensor] + d if tensor in gradients else d


def _reversed_steps(order: Sequence[Tensor]) -> list[tuple[Tensor, tuple[int, ...]]]:
    """Return the computed tensors in reverse, each with the operands through which a gradient flows to some leaf."""
    reached = {t for t in order if t.op is None and t.dtype == "float" and not isinstance(t.source, ConstantSource)}
    steps = []
    for tensor in order:
        if tensor.op is None or tensor.dtype != "float":
            continue
        wrt = tuple(k for k, i in enumerate(tensor.inputs) if i in reached and differentiable(tensor.op, k, i.spec))
        if wrt:
            reached.add(tensor)
            steps.append((tensor, wrt))
    return steps[::-1]
