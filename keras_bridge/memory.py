"""Where the states of a recurrent layer start, and what it keeps of them between calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bridge.backend import check_rows, is_compiling
from keras_bridge.checks import plain


@keras.saving.register_keras_serializable("keras_bridge")
class Learned:
    """A trainable initial state, one vector for all samples, that starts from an initializer."""

    def __init__(self, initializer: Any = "zeros"):
        self.initializer = _initializer(initializer)

    def get_config(self) -> dict[str, Any]:
        return {"initializer": keras.saving.serialize_keras_object(self.initializer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Learned:
        return cls(keras.saving.deserialize_keras_object(config["initializer"]))


def state_initializers(given: Any, starts: list[Any]) -> list[Any]:
    """Return one initializer a state: one for all, or a list; ValueError if the list is too long.

    starts: what counts for a state where None is given, None for zeros.
    """
    count = len(starts)
    chosen = list(given) if isinstance(given, list | tuple) else [given] * count
    if len(chosen) > count:
        raise ValueError(f"state_initializer: {len(chosen)} are given for {count} states")
    chosen += [None] * (count - len(chosen))
    return [state_initializer(start if one is None else one) for one, start in zip(chosen, starts)]


def state_initializer(value: Any) -> Any:
    """Return what starts a state: a Learned, or an initializer of Keras; a number or an array is a constant."""
    value = plain(value)
    if isinstance(value, dict) and value.get("class_name") in ("Learned", "__numpy__"):
        value = keras.saving.deserialize_keras_object(value)
    if value is Learned or (isinstance(value, str) and value == "learned"):
        return Learned()
    if isinstance(value, Learned):
        return value
    return _initializer("zeros" if value is None else value)


def _initializer(value: Any) -> Any:
    if isinstance(value, int | float | np.ndarray) and not isinstance(value, bool):
        return keras.initializers.Constant(value)  # Keras takes an array for one of all samples, and does not load it
    return keras.initializers.get(value)


def serialized(value: Any) -> Any:
    """Return a state_initializer argument as plain data."""
    if isinstance(value, list | tuple):
        return [serialized(one) for one in value]
    value = value() if isinstance(value, type) else plain(value)
    return (
        value if value is None or isinstance(value, str | int | float) else keras.saving.serialize_keras_object(value)
    )


@dataclass(eq=False)
class Kept:
    """The variables in which a stateful layer keeps its states, and one that says whether there are none yet.

    made: the variables of each batch size that there was; code that was compiled for it knows no others.
    Keras does not track what a plain object holds: these are no weights, and a model is saved without them.
    """

    states: list[Any] = field(default_factory=list)
    fresh: Any = None
    made: dict[int, list[Any]] = field(default_factory=dict)


class Memory(keras.layers.Layer):
    """The trainable initial states of a recurrent layer, and the variables in which a stateful one keeps its states.

    leaves: the step's inputs that stand for the states; the readouts among them come last and start from zeros.
    """

    def __init__(self, leaves: list[Any], initializers: list[Any], **options: Any):
        super().__init__(**options)
        self.shapes = [tuple(leaf.shape[1:]) for leaf in leaves]
        self.kinds = [keras.backend.standardize_dtype(leaf.dtype) for leaf in leaves]
        self.num_states = len(initializers)
        self.initializers = [*initializers, *[None] * (len(leaves) - len(initializers))]
        for i, one in enumerate(self.initializers):
            self._check_array(i, one)
        self.learned = [self._learned_state(i, one) for i, one in enumerate(self.initializers)]
        self.between_calls = Kept()
        self.built = True

    @property
    def carried(self) -> list[Any]:
        """The variables that carry the states; none before they are made."""
        return self.between_calls.states

    @property
    def fresh(self) -> Any:
        """The variable that says whether the states are still to start; None before it is made."""
        return self.between_calls.fresh

    @property
    def variables(self) -> list[Any]:
        """All variables, those between calls too: compiled code on JAX knows no others."""
        return [*super().variables, *self.carried, *([] if self.fresh is None else [self.fresh])]

    def _learned_state(self, i: int, initializer: Any) -> Any:
        if not isinstance(initializer, Learned):
            return None
        if "float" not in self.kinds[i]:
            raise ValueError(
                f"state_initializer: state {i} holds values of dtype {self.kinds[i]} and cannot be learned: give a "
                f"list, one initializer a state"
            )
        shape = self._known(i)
        return self.add_weight(shape=shape, initializer=initializer.initializer, name=f"initial_state_{i}")

    def _check_array(self, i: int, initializer: Any) -> None:
        """Refuse an array that is neither the state of a sample nor, not learned, those of a batch."""
        learned = isinstance(initializer, Learned)
        value = getattr(initializer.initializer if learned else initializer, "value", 0.0)
        given, needed = np.shape(value), self.shapes[i]
        if given in ((), needed) or None in needed:
            return
        if learned or given[1:] != needed:
            raise ValueError(
                f"state_initializer: state {i} has the shape {needed} in each sample; got an array of shape {given}"
            )

    def _known(self, i: int) -> tuple[int, ...]:
        if None in self.shapes[i]:
            raise ValueError(f"state {i} of shape {self.shapes[i]} has an unknown length: give its start in the call")
        return self.shapes[i]

    def start(self, batch: Any) -> list[Any]:
        """Return where all states start, readouts among them: (batch, ...) each."""
        return [self._start(i, batch) for i in range(len(self.shapes))]

    def _start(self, i: int, batch: Any) -> Any:
        shape, initializer = (batch, *self._known(i)), self.initializers[i]
        if self.learned[i] is not None:
            return ops.broadcast_to(ops.expand_dims(ops.convert_to_tensor(self.learned[i]), 0), shape)
        if initializer is None or isinstance(initializer, keras.initializers.Zeros):
            return ops.zeros(shape, self.kinds[i])
        return initializer(shape, dtype=self.kinds[i])

    def starting(self, given: list[Any], readouts: list[Any], batch: Any, stateful: bool) -> list[Any]:
        """Return where the states of a call start, readouts among them: given, kept from the last call, or initial."""
        if len(given) + len(readouts) == len(self.shapes):
            starts = []
        else:
            starts = self.kept(batch) if stateful and not given else self.start(batch)
        return [*(given or starts[: self.num_states]), *(readouts or starts[self.num_states :])]

    # --- states kept between calls ------------------------------------------------------------------------------------
    def make(self, batch: int | None, owner: str, like: Any) -> None:
        """Make the variables for a batch size if they are not there; ValueError if that is not possible (any more).

        like: a tensor of the call, which tells whether code is being compiled.
        """
        if not self.shapes:  # a step without states has none to keep
            return
        if self.carried:
            held = self.carried[0].shape[0]
            holds = f"{owner} is stateful and holds the states of {held} samples"
            way = "call reset_states() before a batch of another size, outside of compiled code"
            if batch is None:
                check_rows(like, held, f"{holds}: {way}")
            if batch in (None, held):
                return
            if is_compiling(like) or not bool(ops.convert_to_numpy(self.fresh.value)):
                raise ValueError(f"{holds}; it got {batch}: {way}")
        if batch is None or is_compiling(like):
            raise ValueError(
                f"{owner}: stateful=True needs the batch size before compiled code runs: give keras.Input a "
                f"batch_size or batch_shape, or call the layer on an array first"
            )
        self.allocate(batch)

    def allocate(self, batch: int) -> None:
        """Take the variables for a batch size, made if there were none yet, instead of those there are."""
        options, made = {"trainable": False, "autocast": False}, self.between_calls.made
        with keras.name_scope(self.name):
            made[batch] = made.get(batch) or [
                keras.Variable(ops.zeros((batch, *self._known(i)), kind), name=f"state_{i}", dtype=kind, **options)
                for i, kind in enumerate(self.kinds)
            ]
            fresh = keras.Variable(True, name="fresh", dtype="bool", **options) if self.fresh is None else self.fresh
        self.between_calls = Kept(made[batch], fresh, made)

    def kept(self, batch: Any) -> list[Any]:
        """Return the states of the last call, or where they start if there was none since the last reset."""
        starts = self.start(batch)
        fresh = ops.copy(self.fresh.value)  # PyTorch reads it again going backward, when `keep` has changed it
        return [ops.where(fresh, start, variable.value) for start, variable in zip(starts, self.carried)]

    def keep(self, states: list[Any]) -> None:
        """Keep the states for the next call."""
        for variable, state in zip(self.carried, states):
            variable.assign(state)
        if self.fresh is not None:
            self.fresh.assign(False)

    def reset(self, values: list[Any], owner: str) -> None:
        """Forget the states, or set them: one array (batch, ...) a state; readouts start from zeros."""
        if not values:
            if self.fresh is not None:
                self.fresh.assign(True)
            return
        for value in values:
            if not hasattr(value, "shape"):
                raise TypeError(f"{owner}: reset_states takes tensors or arrays, one a state; got {value!r}")
        if len(values) != self.num_states:
            raise ValueError(f"{owner}: reset_states takes {self.num_states} values; got {len(values)}")
        batch = len(values[0])
        for i, value in enumerate(values):
            if tuple(value.shape) != (batch, *self.shapes[i]):
                raise ValueError(
                    f"{owner}: reset_states: state {i} of shape {tuple(value.shape)} is given where "
                    f"{(batch, *self.shapes[i])} is needed"
                )
        if not self.carried or self.carried[0].shape[0] != batch:
            self.allocate(batch)
        readouts = [ops.zeros(variable.shape, variable.dtype) for variable in self.carried[self.num_states :]]
        self.keep([*(ops.convert_to_tensor(value) for value in values), *readouts])
