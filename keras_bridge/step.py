"""A drawn Keras step in a loop, as plain data: what an engine is given. Features are rewritten before it sees them.

The plain rewrites (readout, decoder) are rsref's own, on Keras's tensors; teacher forcing is drawn with Keras's ops.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import ops

from keras_bridge.watched import Watched
from rsref.recurrence import Step


@dataclass(eq=False)
class KerasRecurrence:
    """One timestep as a Keras model, and how it is looped; the counterpart of `rsref.Recurrence`.

    model: [sequences' slices, constants, states] -> [outputs, new states].
    sequences, constants, states, outputs: how many of each. Further options as `rsref.Recurrence`.
    traces: what engines keep about this step. held_back: for each engine, and each place of tensors, what keeps it from
    running the step.
    calls: what is kept about calls, see `keras_bridge.direct`.
    watched: what all that depends on. layers: of the step.
    """

    model: Any
    sequences: int
    constants: int
    states: int
    outputs: int
    zero_output_for_mask: bool = False
    truncate: int | None = None
    traces: dict[Any, Any] = field(default_factory=dict)
    held_back: dict[tuple[str, str], str] = field(default_factory=dict)
    calls: dict[Any, Any] = field(default_factory=dict)
    layers: list[Any] = field(init=False)
    watched: Watched = field(init=False)

    def __post_init__(self) -> None:
        self.layers = [one for one in self.model._flatten_layers() if not isinstance(one, keras.layers.InputLayer)]
        self.watched = Watched(self.layers)

    def forget(self) -> None:
        """Forget what is kept."""
        for kept in (self.traces, self.held_back, self.calls):
            kept.clear()


def keras_recurrence(step: Step, zero_output_for_mask: bool, truncate: int | None) -> KerasRecurrence:
    """Return a step, its features rewritten, as what an engine is given."""
    sequences: list[Any] = [*step.sequences, *step.truths, *step.forced]
    constants: list[Any] = [*step.constants, *([] if step.mask_input is None else [step.mask_input])]
    model = keras.Model([*sequences, *constants, *step.states], [*step.outputs, *step.new_states])
    counts = len(sequences), len(constants), len(step.states), len(step.outputs)
    return KerasRecurrence(model, *counts, zero_output_for_mask, truncate)


def with_teacher_forcing(step: Step) -> Step:
    """The readout's new value becomes the truth where the choice says so; see `rsref.recurrence`."""
    first = len(step.states) - len(step.readouts)
    truths, forced, fed = [], [], []
    for readout, output in zip(step.readouts, step.new_states[first:]):
        truths.append(keras.Input(batch_shape=readout.shape, dtype=readout.dtype))
        forced.append(keras.Input((1,) * (len(readout.shape) - 1), dtype="bool"))
        fed.append(ops.where(forced[-1], truths[-1], ops.cast(output, readout.dtype)))
    new_states: Any = (*step.new_states[:first], *fed)
    return replace(step, truths=tuple(truths), forced=tuple(forced), new_states=new_states)
