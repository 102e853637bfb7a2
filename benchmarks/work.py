"""What a case takes at least, counted from its drawn step: products, functions, and weights read at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.problems import Problem, given
from rsref.graph import StepGraph
from rsref.ops.linear import split_equation
from rsref.tensor import Spec, Tensor

POINTWISE = {
    **dict.fromkeys(("exp", "expm1", "log", "log1p", "power", "sigmoid", "tanh", "erf", "erfc"), 1),
    **dict.fromkeys(("sin", "cos", "tan", "arctan", "arctan2", "sinh", "cosh"), 1),
    "softplus": 2,
}
"""How many exponentials, logarithms and the like one element of the result takes."""

OVER_AXES = ("softmax", "log_softmax", "logsumexp")
"""Ops that take one exponential for each element of their operand; the logarithm of a sum is left out."""

KEPT = ("exp", "sigmoid", "tanh", "softmax")
"""Functions whose gradient is computed from their own value."""


@dataclass(frozen=True)
class Work:
    """flops: multiplications and additions of all products; functions: values of exp, tanh and the like.

    again: of those whose gradients need their values, how many, tensor by tensor: they are kept, or computed once more.
    weights, passes: bytes of the weights that cannot be read once for all steps, and how often they are read.
    stepped: of flops, those of the products that cannot be computed for several steps at once.
    shared: whether two cores can only share a step of one sample, not the samples.
    attended: flops, and bytes that are read at every step as weights are, of each product with what differs from sample
    to sample, but not from step to step.
    """

    flops: int
    functions: int
    again: tuple[int, ...]
    weights: int
    passes: int
    stepped: int = 0
    shared: bool = False
    attended: tuple[tuple[int, int], ...] = ()


def work_of(problem: Problem) -> Work:
    """Return what a case takes: products three times with gradients; masked steps do not count.

    What depends on no step counts once a call. Only another formula than the drawn one can take less.
    """
    case, graph = problem.case, problem.layer.recurrence.graph
    specs = graph.infer(_shapes(problem))
    stepped = reached(graph.order, (*graph.sequences, *graph.states))
    rows = case.batch * case.steps if problem.lengths is None else int(problem.lengths.sum())

    def totals(count: Any, among: Iterable[Tensor] = graph.order) -> list[int]:
        counts = [(count(t, specs), t in stepped) for t in among if t.op is not None]
        return [n * rows // case.batch if every else n for n, every in counts]

    again = graph.order if case.steps == 1 else recurrent(graph)
    samples = reached(graph.order, (*graph.sequences, *graph.constants, *graph.states))
    weights = {i for t in again if _product(t) for i in t.inputs if i not in samples}
    attended = [
        (products_in(t, specs), 4 * sum(math.prod(_known(specs[i])) for i in own))
        for t in graph.order
        if t in stepped and _product(t) and (own := [i for i in t.inputs if i in samples and i not in stepped])
    ]
    kept = totals(functions_in, [t for t in graph.order if t.op is not None and t.op.name in KEPT])
    return Work(
        case.batches * (3 if case.training else 1) * sum(totals(products_in)),
        case.batches * sum(totals(functions_in)),
        case.batches * tuple(kept) if case.training else (),
        4 * sum(math.prod(_known(specs[w])) for w in weights),
        case.batches * case.steps * (1 + case.training),
        case.batches * (1 + case.training) * sum(totals(products_in, again)),
        case.batch == 1,
        tuple(attended),
    )


def products_in(tensor: Tensor, specs: dict[Tensor, Spec]) -> int:
    """Return the multiplications and additions of a product, 0 for any other op."""
    if not _product(tensor) or len(tensor.inputs) < 2:  # an einsum of one operand adds or moves
        return 0
    if tensor.op is not None and tensor.op.name == "matmul":
        return 2 * math.prod(_known(specs[tensor])) * _known(specs[tensor.inputs[0]])[-1]
    terms, _ = split_equation(tensor.attrs["equation"])
    lengths = {letter: n for term, i in zip(terms, tensor.inputs) for letter, n in zip(term, _known(specs[i]))}
    return 2 * math.prod(lengths.values())


def functions_in(tensor: Tensor, specs: dict[Tensor, Spec]) -> int:
    """Return how many exponentials, logarithms and the like an op takes."""
    name = tensor.op.name if tensor.op is not None else ""
    measured = tensor.inputs[0] if name in OVER_AXES else tensor
    return (1 if name in OVER_AXES else POINTWISE.get(name, 0)) * math.prod(_known(specs[measured]))


def reached(order: Iterable[Tensor], leaves: Iterable[Tensor]) -> set[Tensor]:
    """Return the leaves and all that is computed from them; order: each tensor after its operands."""
    found = set(leaves)
    for tensor in order:
        if any(operand in found for operand in tensor.inputs):
            found.add(tensor)
    return found


def recurrent(graph: StepGraph) -> set[Tensor]:
    """Return what stands between a state and its own next value, some steps later: what no block of steps shares.

    The kernel of a layer on top of another reads states, too, but all of its steps can be one product.
    """
    after = [reached(graph.order, [state]) for state in graph.states]
    feeds = [{j for j, new in enumerate(graph.new_states) if new in found} for found in after]
    for middle in range(len(feeds)):  # Warshall's closure
        for ends in feeds:
            ends |= feeds[middle] if middle in ends else set()
    between: set[Tensor] = set()
    for i, found in enumerate(after):
        for j in feeds[i]:
            if i in feeds[j]:
                between |= {t for t in found if graph.new_states[j] in reached(graph.order, [t])}
    return between


def _product(tensor: Tensor) -> bool:
    return tensor.op is not None and tensor.op.name in ("matmul", "einsum")


def _known(spec: Spec) -> tuple[int, ...]:
    return tuple(n or 0 for n in spec.shape)


def _shapes(problem: Problem) -> dict[Tensor, tuple[int, ...]]:
    graph = problem.layer.recurrence.graph
    sequences, constants, states, _ = given(problem)
    shapes = [s.shape[:1] + s.shape[2:] for s in sequences] + [a.shape for a in (*constants, *states)]
    return dict(zip((*graph.sequences, *graph.constants, *graph.states), shapes))
