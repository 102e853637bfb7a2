"""What a recurrence is run on, gathered in one object, and random values for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rsref.graph import StepGraph
from rsref.noise import drawn
from rsref.recurrence import Recurrence
from rsref.tensor import NoiseSource, Tensor

Array = np.ndarray


@dataclass(frozen=True)
class Arguments:
    """The arrays of one run, in the order of the graph's lists.

    Shapes: sequences (batch, time, ...), constants and states (batch, ...), mask (batch, time) of bool or None.
    steps: the number of timesteps; needed if there are no sequences.
    """

    sequences: list[Array] = field(default_factory=list)
    constants: list[Array] = field(default_factory=list)
    states: list[Array] = field(default_factory=list)
    parameters: list[Array] = field(default_factory=list)
    mask: Array | None = None
    steps: int | None = None

    @property
    def length(self) -> int:
        """The number of timesteps."""
        return self.sequences[0].shape[1] if self.steps is None else self.steps

    @property
    def batch(self) -> int:
        """The number of rows."""
        return next((len(a) for a in (*self.sequences, *self.constants, *self.states)), 1)

    def forward(self, engine: Any) -> Any:
        """Return what `engine.forward` answers for these arrays: outputs, final states and tape."""
        return engine.forward(
            self.sequences, self.constants, self.states, self.parameters, mask=self.mask, steps=self.steps
        )

    def cast(self, dtype: Any) -> Arguments:
        """Return the same arguments with every float array in a dtype."""
        return self.replaced([a.astype(dtype) if a.dtype.kind == "f" else a for a in self.arrays()])

    def arrays(self) -> list[Array]:
        """Return sequences, constants, states and parameters as one list."""
        return [*self.sequences, *self.constants, *self.states, *self.parameters]

    def replaced(self, arrays: list[Array]) -> Arguments:
        """Return the same arguments with other arrays, in the order of `arrays()`."""
        rest: Iterator[Array] = iter(arrays)
        take = {
            name: [next(rest) for _ in getattr(self, name)]
            for name in ("sequences", "constants", "states", "parameters")
        }
        return replace(self, **take)  # type: ignore[arg-type]


def random_arguments(
    recurrence: Recurrence,
    *,
    batch: int = 3,
    steps: int = 4,
    unknown: int = 3,
    seed: int | np.random.Generator = 0,
    mask: Array | None = None,
) -> Arguments:
    """Return random arrays for a recurrence: floats near 1 in size, integers 0 and 1, the parameters' own values.

    unknown: the length given to axes (other than batch and time) whose length the graph leaves open.
    """
    rng, graph = np.random.default_rng(seed), recurrence.graph

    def draw(tensor: Tensor, *leading: int) -> Array:
        return random_leaf(tensor, (*leading, *(unknown if n is None else n for n in tensor.shape[1:])), rng)

    return Arguments(
        sequences=[draw(tensor, batch, steps) for tensor in graph.sequences],
        constants=[draw(tensor, batch) for tensor in graph.constants],
        states=[draw(tensor, batch) for tensor in graph.states],
        parameters=[parameter.value.copy() for parameter in graph.parameters],
        mask=mask,
        steps=steps,
    )


def random_leaf(tensor: Tensor, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return random values for a leaf: noise as in training, 0 and 1 for integers, normal numbers for floats."""
    if isinstance(tensor.source, NoiseSource):
        return drawn(tensor.source, shape, rng)
    if tensor.dtype == "float":
        return rng.normal(0, 0.8, shape)
    return rng.integers(0, 2, shape).astype(np.int64 if tensor.dtype == "int" else np.bool_)


def named_leaves(graph: StepGraph) -> list[tuple[str, Tensor]]:
    """Return a name and the leaf for each array, in the order of `Arguments.arrays()`."""
    roles = {"sequence": graph.sequences, "constant": graph.constants, "state": graph.states}
    named = [(f"{role} {i} ({t.name})", t) for role, tensors in roles.items() for i, t in enumerate(tensors)]
    return [*named, *((f"parameter {p.name}", p.tensor) for p in graph.parameters)]
