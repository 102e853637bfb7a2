"""What a recurrent layer remembers of a forward run, and what its backward run answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsref.engine import Engine
from rsref.recurrence import Step
from rsref.tensor import Parameter

Array = np.ndarray


@dataclass
class LayerTape:
    """What a layer remembers of a forward run: the engine and its tape, and where the initial states came from."""

    engine: Engine
    tape: Any
    step: Step
    parameters: Sequence[Parameter]
    outputs: list[Array]
    states: list[Array]
    learned: bool
    """Whether the learned initial states were used."""


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
