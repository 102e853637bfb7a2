"""Steps that pick samples of the batch by their number: drawn again for a batch that is one sample.

`x[:2]`, `flip(x, axis=0)` or two batches joined mean something for a known number of samples only, and what was drawn
for a certain batch, as by `reshape(x, (4, 2, 3))`, holds for no other. So such a step is drawn for that number: its
leaves become one sample each, which holds the whole batch, and the axis that was the batch is an inner one like all
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rsref import ops
from rsref.graph import StepGraph, substitute, topological_order
from rsref.tensor import Input, Tensor
from rsref_fast.lengths import ROWS
from rsref_fast.rows import Rows, rows_of


def picks_samples(graph: StepGraph) -> bool:
    """Whether a step cuts, pads or joins along the batch, or adds up along it, or holds for a certain batch only."""
    if not leaves_of(graph):
        return False  # there are no samples
    if not all(_holds(graph, batch) for batch in ROWS[:2]):
        return True
    return next(picking(_drawn_for(graph, None)), None) is not None


def batch_of(graph: StepGraph) -> int | None:
    """Return for how many samples a step was drawn; None if that was left open."""
    return next((leaf.shape[0] for leaf in leaves_of(graph) if leaf.shape[0] is not None), None)


def leaves_of(graph: StepGraph) -> tuple[Tensor, ...]:
    """Return what a step reads but for its parameters."""
    return (*graph.sequences, *graph.constants, *graph.states)


def _holds(graph: StepGraph, batch: int) -> bool:
    """Whether a step can be drawn for so many samples."""
    try:
        return all(tensor.shape[:1] in ((batch,), (None,)) for tensor in _drawn_for(graph, batch))
    except ValueError:  # from an op's own rule
        return False


def _drawn_for(graph: StepGraph, batch: int | None) -> list[Tensor]:
    """Return the results of a step for so many samples. Errors: ValueError if they cannot be drawn."""
    new = {t: Input(batch_shape=(batch, *t.shape[1:]), dtype=t.dtype, name=t.name) for t in leaves_of(graph)}
    return substitute([*graph.outputs, *graph.new_states], new)


def picking(results: Sequence[Tensor]) -> Iterator[Tensor]:
    """Return the tensors that cut, pad, join or add up along an axis of unknown length which may be the batch."""
    rows = rows_of(results)
    for tensor in topological_order(results):
        if tensor.op is None or tensor.op.name not in CHANGED:
            continue
        source = tensor.inputs[0]
        inner = 1 if rows[source] is Rows.FIRST else 0
        changed = CHANGED[tensor.op.name](tensor)
        for axis, length in enumerate(source.shape):
            if length is None and changed[axis] and (axis == 0 or not inner):
                yield tensor
                break


CHANGED: dict[str, Callable[[Tensor], Sequence[bool]]] = {
    "slice": lambda tensor: [bounds != (None, None, 1) for bounds in tensor.attrs["bounds"]],
    "pad": lambda tensor: [tuple(pair) != (0, 0) for pair in tensor.attrs["pads"]],
    **dict.fromkeys(("concatenate", "cumsum"), lambda tensor: [a == tensor.attrs["axis"] for a in range(tensor.ndim)]),
}
"""For the ops that treat some entries of an axis in a way of their own: which axes."""


def as_one_sample(graph: StepGraph, shapes: Mapping[Tensor, Sequence[int]]) -> StepGraph:
    """Return the step on leaves of shape (None, batch, ...), of which there is one sample, and results alike.

    shapes: for each sequence, constant and state the shape of its arrays for one step, the batch first.
    """
    groups = (graph.sequences, graph.constants, graph.states)
    wide = {t: Input(batch_shape=(None, *shapes[t]), dtype=t.dtype, name=t.name) for t in leaves_of(graph)}
    results = substitute([*graph.outputs, *graph.new_states], {t: _only_one(whole) for t, whole in wide.items()})
    some = next(iter(wide.values()))
    results = [_as_sample(tensor, some) for tensor in results]
    count = len(graph.outputs)
    sequences, constants, states = ([wide[t] for t in group] for group in groups)
    return StepGraph(
        sequences=sequences, constants=constants, states=states, outputs=results[:count], new_states=results[count:]
    )


def _only_one(samples: Tensor) -> Tensor:
    """Return the one sample that there is, with no axis for it: a sum, which any number of samples would have."""
    if samples.dtype == "bool":
        return ops.cast(ops.sum(ops.cast(samples, "int"), axis=0), "bool")
    return ops.sum(samples, axis=0)


def _as_sample(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor with an axis for samples in front, as long as that of another one."""
    number = ops.cast(like, "int")
    zeros = ops.sum(ops.cast(ops.less(number, number), "int"), axis=tuple(range(1, like.ndim)))
    zeros = ops.cast(ops.expand_dims(zeros, tuple(range(1, tensor.ndim + 1))), tensor.dtype)
    return ops.logical_or(tensor, zeros) if tensor.dtype == "bool" else ops.add(tensor, zeros)
