"""Where the states of a recurrent layer start, and what it keeps of them between calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rsref import arguments
from rsref.initializers import Learned
from rsref.recurrence import Step
from rsref.tensor import Parameter, Tensor

Array = np.ndarray


class Memory:
    """The trainable initial states of a recurrent layer, and the states that a stateful one carries over.

    owner: the layer's name. step: with its readout; readouts are the last of its states and start from zeros.
    initializer: the layer's `state_initializer`. dtype: of the layer. before: the memory of the layer's last build.
    Errors: ValueError if the initializers do not fit the states.
    """

    def __init__(self, owner: str, step: Step, initializer: Any, dtype: Any, before: Memory | None = None):
        self.owner = owner
        self.readouts = step.readouts
        self.leaves = step.states[: len(step.states) - len(step.readouts)]
        self.dtype = dtype
        self.initializers = arguments.state_initializers(initializer, self.leaves)
        self.carried: list[Array] | None = None if before is None else before.carried
        """States, then readouts, (batch, ...) each; None if the next call starts afresh."""
        known: list[Parameter | None] = [None] * len(self.leaves) if before is None else before.learned
        self.learned: list[Parameter | None] = [
            self._learned_state(i, leaf, known[i]) for i, leaf in enumerate(self.leaves)
        ]
        """For each state its parameter, or None."""

    def _learned_state(self, i: int, leaf: Tensor, known: Parameter | None) -> Parameter | None:
        initializer = self.initializers[i]
        if not isinstance(initializer, Learned):
            return None
        shape = arguments.known_shape(f"the learned state {i}", leaf.shape[1:])
        if known is not None and known.shape == shape:
            return known
        return Parameter(f"{self.owner}/initial_state_{i}", initializer.initializer(shape))

    def start(self, given: Any, readouts: Any, carried: list[Array] | None, batch: int) -> list[Array]:
        """Return the states, then readouts, that a sequence starts from: given ones, those carried over, or initial.

        given, readouts: initial_state and initial_readout, as the user handed them. carried: states and readouts.
        Errors: TypeError or ValueError that name the argument.
        """
        return [*self._states(given, carried, batch), *self._readouts(readouts, carried, batch)]

    def _states(self, given: Any, carried: list[Array] | None, batch: int) -> list[Array]:
        if given is not None:
            return self._cast("initial_state", given, self.leaves, batch)
        if carried is not None:
            arguments.check_batch("the states carried over (see reset_states)", carried, batch)
            return carried[: len(self.leaves)]
        states = []
        for i, (leaf, learned, initializer) in enumerate(zip(self.leaves, self.learned, self.initializers)):
            shape = (batch, *arguments.known_shape(f"initial_state {i}", leaf.shape[1:]))
            value = np.broadcast_to(learned.value, shape) if learned is not None else initializer(shape)
            if np.shape(value) != shape:
                raise ValueError(f"state_initializer: state {i} needs the shape {shape}; got {np.shape(value)}")
            states.append(np.array(value, dtype=arguments.numpy_dtype(leaf, self.dtype)))
        return states

    def _readouts(self, given: Any, carried: list[Array] | None, batch: int) -> list[Array]:
        if given is not None:
            if not self.readouts:
                raise ValueError(f"{self.owner} has no readout: initial_readout is not accepted")
            return self._cast("initial_readout", given, self.readouts, batch)
        if carried is not None:
            return carried[len(self.leaves) :]
        shapes = [(batch, *arguments.known_shape("the readout", leaf.shape[1:])) for leaf in self.readouts]
        return [np.zeros(shape, arguments.numpy_dtype(leaf, self.dtype)) for shape, leaf in zip(shapes, self.readouts)]

    def _cast(self, name: str, given: Any, leaves: Sequence[Tensor], batch: int) -> list[Array]:
        arrays = arguments.cast_inputs(name, arguments.numeric_arrays(name, given), leaves, self.dtype, time=False)
        arguments.check_batch(name, arrays, batch)
        return arrays

    def keep(self, states: Sequence[Array]) -> None:
        """Keep copies of states and readouts for the next call."""
        self.carried = [s.copy() for s in states]

    def reset(self, values: Any) -> None:
        """Forget the states, or set them: one array (batch, ...) a state. Readouts start from zeros."""
        if values is None:
            self.carried = None
            return
        arrays = arguments.numeric_arrays("values", values)
        states = arguments.cast_inputs("values", arrays, self.leaves, self.dtype, time=False)
        batch = arguments.batch_of(states)
        arguments.check_batch("values", states, batch)
        self.keep([*states, *self._readouts(None, None, batch)])
