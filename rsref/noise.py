"""The masks of dropout in a step: drawn for a call, given with it, or ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsref import arguments
from rsref.recurrence import Step
from rsref.tensor import NoiseSource, Shape

Array = np.ndarray


def noise_shapes(step: Step) -> list[tuple[str, Shape]]:
    """Return for each mask its life time, "step" or "sequence", and its shape for one step, batch axis first."""
    leaves = [*step.step_masks, *step.sequence_masks]
    return [(leaf.source.per, leaf.shape) for leaf in leaves if isinstance(leaf.source, NoiseSource)]


def dropout_masks(
    layer: str,
    step: Step,
    given: Sequence[Any] | None,
    generator: np.random.Generator | None,
    batch: int,
    steps: int,
    dtype: Any,
) -> tuple[list[Array], list[Array]]:
    """Return the masks that change at every step, (batch, steps, ...), and those of whole sequences, (batch, ...).

    layer: its name, for errors. given: the masks to use, in the order of `noise_shapes`. generator: draws them if none
    are given; None for ones, as nothing is left out at inference.
    Errors: ValueError, or TypeError, if those given are not as many, or not of these shapes.
    """
    leaves = [*step.step_masks, *step.sequence_masks]
    count = len(step.step_masks)
    if given is not None and len(given) != len(leaves):
        raise ValueError(f"dropout_masks: {layer} has {len(leaves)} masks (see noise_shapes); got {len(given)}")
    masks: list[Array] = []
    for i, leaf in enumerate(leaves):
        rest = arguments.known_shape("a dropout mask", leaf.shape[1:])
        shape = (batch, steps, *rest) if i < count else (batch, *rest)
        if given is not None:
            masks.append(arguments.shaped_array(f"dropout_masks[{i}]", given[i], shape, dtype))
        elif generator is not None:
            assert isinstance(leaf.source, NoiseSource)
            rate = leaf.source.rate
            masks.append(((generator.random(shape) >= rate) / (1 - rate)).astype(dtype))
        else:
            masks.append(np.ones(shape, dtype))
    return masks[:count], masks[count:]
