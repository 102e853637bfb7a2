"""The noise in a step, such as the masks of dropout: drawn for a call, given with it, or its mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsref import arguments
from rsref.graph import StepGraph
from rsref.recurrence import Step
from rsref.tensor import NoiseSource, Shape, Spec

Array = np.ndarray


def noise_shapes(step: Step) -> list[tuple[str, Shape]]:
    """Return for each noise its life time, "step" or "sequence", and its shape for one step, batch axis first."""
    leaves = [*step.step_masks, *step.sequence_masks]
    return [(leaf.source.per, leaf.shape) for leaf in leaves if isinstance(leaf.source, NoiseSource)]


def mask_shapes(
    step: Step, graph: StepGraph, sequences: Sequence[Array], constants: Sequence[Array], states: Sequence[Array]
) -> list[Shape]:
    """Return the shape of each mask for one step, its unknown lengths those of the values that it is multiplied with.

    graph: of the step. sequences, constants, states: the arrays of a call for the graph's leaves, without the masks.
    """
    leaves = [*step.step_masks, *step.sequence_masks]
    if all(None not in leaf.shape[1:] for leaf in leaves):
        return [leaf.shape for leaf in leaves]
    specs = {tensor: tensor.spec for tensor in graph.order if tensor.op is None}
    given = [(leaf, a.shape[:1] + a.shape[2:]) for leaf, a in zip(graph.sequences, sequences)]
    given += [(leaf, a.shape) for leaf, a in (*zip(graph.constants, constants), *zip(graph.states, states))]
    specs.update((leaf, Spec(shape, leaf.dtype)) for leaf, shape in given)
    for tensor in graph.order:
        if tensor.op is None:
            continue
        beside = [specs[operand].shape for operand in tensor.inputs]
        for mask in tensor.inputs:
            if isinstance(mask.source, NoiseSource):
                specs[mask] = Spec(_filled(specs[mask].shape, beside), mask.dtype)
        specs[tensor] = tensor.op.infer(*(specs[operand] for operand in tensor.inputs), **tensor.attrs)
    return [specs[leaf].shape for leaf in leaves]


def _filled(shape: Shape, others: Sequence[Shape]) -> Shape:
    """Return a shape whose unknown lengths are the known ones, at the same axes, of shapes of the same rank."""
    alike = [other for other in others if len(other) == len(shape)]
    known = [next((n for n in lengths if n is not None), None) for lengths in zip(*alike)]
    return tuple(m if n is None else n for n, m in zip(shape, known))


def dropout_masks(
    layer: str,
    step: Step,
    shapes: Sequence[Shape],
    given: Sequence[Any] | None,
    generator: np.random.Generator | None,
    batch: int,
    steps: int,
    dtype: Any,
) -> tuple[list[Array], list[Array]]:
    """Return the masks that change at every step, (batch, steps, ...), and those of whole sequences, (batch, ...).

    layer: its name, for errors. shapes: of `mask_shapes`. given: the masks to use, in the order of `noise_shapes`.
    generator: draws them if none are given; None for their mean, as nothing is changed at inference.
    Errors: ValueError, or TypeError, if those given are not as many, or not of these shapes.
    """
    leaves = [*step.step_masks, *step.sequence_masks]
    count = len(step.step_masks)
    if given is not None and not isinstance(given, list | tuple):
        raise TypeError(f"dropout_masks must be a list of arrays; got {type(given).__name__}")
    if given is not None and len(given) != len(leaves):
        raise ValueError(f"dropout_masks: {layer} has {len(leaves)} masks (see noise_shapes); got {len(given)}")
    masks: list[Array] = []
    for i, (leaf, (_, *lengths)) in enumerate(zip(leaves, shapes)):
        rest = arguments.known_shape("a dropout mask", tuple(lengths))
        shape = (batch, steps, *rest) if i < count else (batch, *rest)
        if given is not None:
            masks.append(arguments.shaped_array(f"dropout_masks[{i}]", given[i], shape, dtype))
        else:
            assert isinstance(leaf.source, NoiseSource)
            masks.append(drawn(leaf.source, shape, generator).astype(dtype))
    return masks[:count], masks[count:]


def drawn(source: NoiseSource, shape: tuple[int, ...], generator: np.random.Generator | None) -> Array:
    """Return noise of a shape in float64: drawn, or, without a generator, its mean."""
    if generator is None:
        return np.full(shape, source.mean)
    if source.width is not None:
        return source.mean + source.width * (generator.random(shape) - 0.5)
    if source.stddev is None:
        return (generator.random(shape) >= source.rate) / (1 - source.rate)
    return generator.normal(source.mean, source.stddev, shape)
