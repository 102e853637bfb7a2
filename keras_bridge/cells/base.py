"""What a cell is: a layer for one timestep, `[x_t, state, ...] -> [output, new_state, ...]`, drawn as a keras.Model."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from keras_bridge.backend import freeze_drawn
from keras_bridge.emission import standard_dtype
from rsref.graph import as_list


@keras.saving.register_keras_serializable("keras_bridge")
class RNNCell(keras.layers.Layer):
    """A cell: write `build_model(input_shape)`, which draws one timestep and answers its keras.Model.

    The model's inputs are the step's input and the states, its outputs the output and the new states, pairwise.
    `input_shape` is the shape of one timestep's input, batch axis (None) first.
    Called inside a drawn step: `y, h, c = cell([x, h_tm1, c_tm1])`. Weights are shared between calls.
    output_dim, input_dim of old: give `units` and let the input say its length; full cells accept both.
    Errors: ValueError if the model's states do not match pairwise, or a call gives too few tensors; TypeError if it
        gives the states apart, as Keras's own cells take them.
    """

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.model: Any = None

    def __call__(self, inputs: Any, *others: Any, **options: Any) -> Any:
        if others:
            raise TypeError(f"{self.name} is called on one list, [x, state, ...]; got {1 + len(others)} arguments")
        return super().__call__(inputs, **options)

    def build_model(self, input_shape: tuple[int | None, ...]) -> Any:
        """Draw one timestep for inputs of this shape."""
        raise TypeError(f"{type(self).__name__} does not say how to draw a timestep: write its method build_model")

    def build(self, input_shape: Any) -> None:
        """Draw the cell for the shape of its input, or for a list of the shapes of input and states."""
        several = bool(input_shape) and isinstance(input_shape[0], list | tuple)
        if self.model is None:
            self.model = self.build_model((None, *(input_shape[0] if several else input_shape)[1:]))
            self._check()
        freeze_drawn(self)
        self.built = True

    @property
    def num_states(self) -> int:
        """The number of states; known once the cell is built."""
        return len(self.model.outputs) - 1

    @property
    def mask_input(self) -> Any:
        """The input that receives the mask of a whole sequence, (batch, time) of bool, or None."""
        return None

    @property
    def num_inputs(self) -> int:
        """The number of inputs before the states; 1 for most cells."""
        return len(self.model.inputs) - self.num_states - (self.mask_input is not None)

    @property
    def states(self) -> list[Any]:
        """The inputs that stand for the states in the cell's own model; their shapes are the states' shapes."""
        return list(self.model.inputs[self.num_inputs : self.num_inputs + self.num_states])

    @property
    def state_starts(self) -> list[Any]:
        """What starts each state where the layer around the cell does not say: an initializer, or None for zeros."""
        return [None] * self.num_states

    def call(self, inputs: Any, training: bool | None = None) -> tuple[Any, ...]:
        return tuple(as_list(self.model(self._checked(inputs), training=training)))

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> tuple[Any, ...]:
        batch = self._checked(inputs)[0].shape[0]
        return tuple(keras.KerasTensor((batch, *y.shape[1:]), y.dtype) for y in self.model.outputs)

    def _checked(self, inputs: Any) -> list[Any]:
        tensors = as_list(inputs)
        if len(tensors) != len(self.model.inputs):
            raise ValueError(
                f"{self.name} takes {self.num_inputs} input and {self.num_states} states (shapes "
                f"{[tuple(t.shape) for t in self.model.inputs]}); got {len(tensors)} tensors"
            )
        return tensors

    def get_layer(self, **options: Any) -> Any:
        """Return a recurrent layer that runs this cell over a sequence; options as `RecurrentSequential`."""
        from keras_bridge.recurrent import RecurrentSequential

        return RecurrentSequential([self], **options)

    def _check(self) -> None:
        model = self.model
        if not isinstance(model, keras.Model):
            raise TypeError(f"{self.name}: build_model must answer a keras.Model; got {type(model).__name__}")
        if self.num_inputs < 1:
            raise ValueError(
                f"{self.name}: a cell's model is [x, states...] -> [output, new states...]; got {len(model.inputs)} "
                f"inputs and {len(model.outputs)} outputs"
            )
        for old, new in zip(self.states, model.outputs[1:]):
            if tuple(old.shape) != tuple(new.shape):
                raise ValueError(
                    f"{self.name}: the state {tuple(old.shape)} and its new value {tuple(new.shape)} differ in shape"
                )


@keras.saving.register_keras_serializable("keras_bridge")
class RNNCellFromModel(RNNCell):
    """A cell from a drawn keras.Model `[x, state, ...] -> [output, new_state, ...]`."""

    def __init__(self, model: Any, **options: Any):
        if not isinstance(model, keras.Model):
            raise TypeError(f"RNNCellFromModel takes a keras.Model; got {model!r}")
        super().__init__(**options)
        self.model = model
        self._check()
        self.built = True

    def build_model(self, input_shape: tuple[int | None, ...]) -> Any:
        return self.model

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RNNCellFromModel:
        config = dict(config)
        return cls(keras.saving.deserialize_keras_object(config.pop("model")), **config)


@keras.saving.register_keras_serializable("keras_bridge")
class KerasCell(RNNCell):
    """One of Keras's own cells (`keras.layers.LSTMCell`, `StackedRNNCells`, any with call(x, states) and state_size).

    Its nested states are laid out as a flat list. Its dtype policy is the cell's, unless another one is given.
    States start from what the cell's get_initial_state answers, unless the layer's state_initializer says otherwise.
    """

    def __init__(self, cell: Any, **options: Any):
        super().__init__(**{"dtype": getattr(cell, "dtype_policy", None), **options})
        if not hasattr(cell, "state_size") or not callable(cell):
            raise TypeError(f"a Keras cell has a state_size and is called on (x, states); got {type(cell).__name__}")
        if -1 in tree.flatten(plain(cell.state_size)):
            raise TypeError(
                f"the states of {cell.name}, a {type(cell).__name__}, have no sizes: give the layer around it"
            )
        self.cell = cell

    def build_model(self, input_shape: tuple[int | None, ...]) -> Any:
        precision = standard_dtype(self.compute_dtype)
        x = keras.Input(batch_shape=input_shape, dtype=precision)
        sizes = plain(self.cell.state_size)
        leaves = [keras.Input((size,), dtype=precision) for size in tree.flatten(sizes)]
        states = tree.pack_sequence_as(sizes, leaves) if isinstance(sizes, list | tuple) else leaves
        output, new_states = self.cell(x, states)
        return keras.Model([x, *leaves], [output, *tree.flatten(new_states)])

    @property
    def state_starts(self) -> list[Any]:
        own = starts_its_states(self.cell)
        return [CellStart(self.cell, i) if own else None for i in range(self.num_states)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cell": keras.saving.serialize_keras_object(self.cell)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasCell:
        config = dict(config)
        return cls(keras.saving.deserialize_keras_object(config.pop("cell")), **config)


class CellStart:
    """An initializer: one state of those that a cell's get_initial_state answers."""

    def __init__(self, cell: Any, index: int):
        self.cell, self.index = cell, index

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        states = tree.flatten(self.cell.get_initial_state(batch_size=shape[0]))
        return keras.ops.cast(states[self.index], dtype)


def starts_its_states(cell: Any) -> bool:
    """Whether a cell, or one within a stack, has a get_initial_state that is not Keras's, which answers zeros."""
    start = getattr(cell, "get_initial_state", None)
    if getattr(start, "__func__", None) is keras.layers.StackedRNNCells.get_initial_state:
        return any(starts_its_states(part) for part in cell.cells)
    return start is not None and not start.__module__.startswith("keras.src.")


def plain(sizes: Any) -> Any:
    """Return nested sizes as plain lists: Keras's own tracked ones are no containers to JAX."""
    return [plain(size) for size in sizes] if isinstance(sizes, list | tuple) else sizes


def as_cell(layer: Any) -> RNNCell | None:
    """Return a layer as a cell if it is one or holds one of Keras's, else None; a copy of a ConvLSTM's."""
    if isinstance(layer, RNNCell):
        return layer
    if isinstance(layer, keras.layers.ConvLSTM1D | keras.layers.ConvLSTM2D | keras.layers.ConvLSTM3D):
        from keras_bridge.convert import from_keras

        return as_cell(from_keras(layer).layers[0])
    if isinstance(layer, keras.layers.RNN):
        return KerasCell(layer.cell, name=f"{layer.name}_cell")
    if isinstance(layer, keras.layers.Layer) and hasattr(layer, "state_size"):
        return KerasCell(layer, name=f"{layer.name}_cell")
    return None
