"""A step in a loop, as plain data, and the rewrites that turn features into it.

The loop knows sequences, constants, states and parameters, and nothing else. Readout, teacher forcing and dropout
become these before any engine sees them; each rewrite is a small pure function on a `Step`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rsref.graph import StepGraph, noise_leaves
from rsref.tensor import Input, NoiseSource, Tensor


def truncation(steps: Any) -> int | None:
    """Return a positive number of steps, or None for none; ValueError for anything else."""
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1):
        raise ValueError(f"truncate must be a positive number of steps or None; got {steps!r}")
    return None if steps is None else int(steps)


@dataclass(frozen=True)
class Recurrence:
    """A `StepGraph` and how it is looped: all that an engine is given.

    graph: one timestep.
    zero_output_for_mask: at a masked step the output is zero; else it repeats the last valid one (zero before any).
    truncate: gradients do not flow from step k to step k - 1 for k a multiple of this number; None for never
        (truncated backpropagation through time, Williams and Peng 1990). States flow on.
    """

    graph: StepGraph
    zero_output_for_mask: bool = False
    truncate: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.graph, StepGraph):
            raise TypeError(f"a Recurrence is a StepGraph in a loop; got {type(self.graph).__name__}")
        object.__setattr__(self, "truncate", truncation(self.truncate))


@dataclass(frozen=True)
class Step:
    """A drawn step before its features are rewritten.

    readouts: leaves that receive the step's previous outputs, pairwise with the first of `outputs`.
    mask_input: the leaf that receives the mask of a whole input, or None.
    truths, forced: added by `with_teacher_forcing`: sequences for the true outputs and for the choice, step by step.
    masks: added by `with_noise`: dropout masks and other noise, that of the whole sequence among the constants.
    """

    sequences: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    new_states: tuple[Tensor, ...]
    readouts: tuple[Tensor, ...] = ()
    mask_input: Tensor | None = None
    truths: tuple[Tensor, ...] = ()
    forced: tuple[Tensor, ...] = ()
    step_masks: tuple[Tensor, ...] = ()
    sequence_masks: tuple[Tensor, ...] = ()

    def graph(self) -> StepGraph:
        return StepGraph(
            sequences=(*self.sequences, *self.truths, *self.forced, *self.step_masks),
            constants=(*self.constants, *(() if self.mask_input is None else (self.mask_input,)), *self.sequence_masks),
            states=self.states,
            outputs=self.outputs,
            new_states=self.new_states,
        )


def with_noise(step: Step) -> Step:
    """Noise, such as dropout masks, becomes sequences (drawn at each step) or constants (once for a sequence)."""
    leaves = noise_leaves((*step.outputs, *step.new_states))
    per = {leaf: leaf.source.per for leaf in leaves if isinstance(leaf.source, NoiseSource)}
    return replace(
        step,
        step_masks=tuple(leaf for leaf in leaves if per[leaf] == "step"),
        sequence_masks=tuple(leaf for leaf in leaves if per[leaf] == "sequence"),
    )


def with_decoder(step: Step) -> Step:
    """The inputs are not stepped through: each is one more constant, whole at every step."""
    return replace(step, sequences=(), constants=(*step.sequences, *step.constants))


READOUTS = ("add", "mul", "avg", "max", "readout_only")
"""How a stack of cells merges the readout with its input."""


def with_readout(step: Step) -> Step:
    """A readout becomes one more state, whose new value is the output."""
    return replace(
        step,
        states=(*step.states, *step.readouts),
        new_states=(*step.new_states, *step.outputs[: len(step.readouts)]),
    )


def with_teacher_forcing(step: Step) -> Step:
    """The readout's new value becomes the truth where the choice says so, and the output elsewhere.

    What the next step reads is decided at the step before it: the truth of step t - 1 is read at step t, the first
    step reads the initial readout, and a masked step changes nothing, as for every state.
    Apply after `with_readout`.
    """
    from rsref import ops

    first = len(step.states) - len(step.readouts)
    truths, forced, fed = [], [], []
    for readout, output in zip(step.readouts, step.new_states[first:]):
        truth = Input(batch_shape=readout.shape, dtype=readout.dtype, name="ground_truth")
        choice = Input((1,) * (readout.ndim - 1), dtype="bool", name="forced")
        truths.append(truth)
        forced.append(choice)
        fed.append(ops.where(choice, truth, output))
    return replace(step, truths=tuple(truths), forced=tuple(forced), new_states=(*step.new_states[:first], *fed))
