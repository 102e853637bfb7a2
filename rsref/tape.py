"""What a recurrent layer remembers of a forward run, and what its backward run answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref.engine import Engine
from rsref.recurrence import Step
from rsref.tensor import Parameter

if TYPE_CHECKING:
    from rsref.loop import RecurrentLayer

Array = np.ndarray


@dataclass
class LayerTape:
    """What a layer remembers of a forward run: the engine and its tape, and what the options were.

    learned: whether the learned initial states were used. backwards, sequences, with_states: go_backwards,
    return_sequences and return_state, which may be set anew before `backward`.
    """

    engine: Engine
    tape: Any
    step: Step
    parameters: Sequence[Parameter]
    outputs: list[Array]
    states: list[Array]
    learned: bool
    backwards: bool
    sequences: bool
    with_states: bool


@dataclass
class LayerGradients:
    """Gradients with respect to all that a recurrent layer's `forward` reads.

    x: of the input (a list if the step has several; None for an integer one). constants: a list.
    initial_state: a list, one array (batch, ...) a state. initial_readout, ground_truth: None without a readout, a list
    if there are several. weights: in the order of `layer.weights`.
    """

    x: Any
    constants: list[Array | None]
    initial_state: list[Array | None]
    initial_readout: Any
    ground_truth: Any
    weights: list[Array]


def layer_gradients(layer: RecurrentLayer, raw: Any, tape: LayerTape) -> LayerGradients:
    """Return the gradients of an engine's backward as those of a layer's arguments and weights."""
    by_parameter = dict(zip(tape.parameters, raw.parameters))
    for learned, d in zip(layer.memory.learned, raw.states):
        if learned is not None and tape.learned:
            by_parameter[learned] = d.sum(axis=0)
    count = len(layer.drawn.sequences)
    dx = (raw.constants if layer.decode else raw.sequences)[:count]
    if tape.backwards:
        dx = [None if d is None else d[:, ::-1] for d in dx]
    first_constant = count if layer.decode else 0
    first_truth = len(tape.step.sequences)
    return LayerGradients(
        x=dx[0] if count == 1 else dx,
        constants=raw.constants[first_constant : first_constant + len(layer.drawn.constants)],
        initial_state=raw.states[: layer.num_states],
        initial_readout=_one_or_list(raw.states[layer.num_states :]),
        ground_truth=_one_or_list(raw.sequences[first_truth : first_truth + len(tape.step.truths)]),
        weights=[by_parameter.get(p, np.zeros(p.shape, layer.dtype)) for p in layer.weights],
    )


def _one_or_list(values: list[Any]) -> Any:
    return None if not values else values[0] if len(values) == 1 else values
