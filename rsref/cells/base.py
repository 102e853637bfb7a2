"""What a cell is: a layer for one timestep, `[x_t, state, ...] -> [output, new_state, ...]`, drawn as a Model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rsref.graph import Model, as_list, check_mask
from rsref.layers.base import Layer, tell_of_build
from rsref.tensor import Parameter, Shape, Tensor

if TYPE_CHECKING:
    from rsref.recurrent import RecurrentSequential


class RNNCell(Layer):
    """A cell: write `build_model(input_shape)`, which draws one timestep and answers its Model.

    The model's inputs are the step's input and the states, its outputs the output and the new states, pairwise.
    `input_shape` is the shape of one timestep's input, batch axis (None) first.
    Called on tensors inside a drawn step: `y, h, c = cell([x, h_tm1, c_tm1])`. Weights are shared between calls.
    Errors: ValueError if the model's states do not match pairwise, or a call gives too few or misshapen tensors.
    """

    model: Model

    def __init__(self, name: str | None = None):
        super().__init__(name)

    def build_model(self, input_shape: Shape) -> Model:
        """Draw one timestep for inputs of this shape."""
        raise TypeError(f"{type(self).__name__} does not say how to draw a timestep: write its method build_model")

    def build(self, *shapes: Shape) -> None:
        tell_of_build(self)
        self.model = self.build_model(shapes[0])
        self._check()
        self.built = True

    @property
    def num_states(self) -> int:
        """The number of states; known once the cell is built."""
        return len(self.model.outputs) - 1

    @property
    def num_inputs(self) -> int:
        """The number of inputs before the states; 1 for most cells."""
        return len(self.model.inputs) - self.num_states

    @property
    def states(self) -> list[Tensor]:
        """The leaves that stand for the states in the cell's own model; their shapes are the states' shapes."""
        return self.model.inputs[self.num_inputs :]

    @property
    def parameters(self) -> list[Parameter]:
        return self.model.parameters if self.built else []

    def __call__(self, inputs: Any, mask: Tensor | None = None) -> list[Tensor]:
        tensors = as_list(inputs)
        check_mask(self.name, mask)
        if not tensors:
            raise ValueError(f"{self.name} takes an input and its states; got no tensors")
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{self.name} draws on Tensors made by rsref.Input; got {type(tensor).__name__}")
        if not self.built:
            self.build(tensors[0].shape)
        if len(tensors) != len(self.model.inputs):
            beside = "" if mask is None else " and a mask: all tensors stand in one list, cell([x, h])"
            raise ValueError(
                f"{self.name} takes {self.num_inputs} input and {self.num_states} states "
                f"(shapes {[t.shape for t in self.model.inputs]}); got {len(tensors)} tensors{beside}"
            )
        return as_list(self.model(tensors, mask=mask))

    def get_layer(self, **options: Any) -> RecurrentSequential:
        """Return a recurrent layer that runs this cell over a sequence; options as `RecurrentSequential`."""
        from rsref.recurrent import RecurrentSequential

        layer = RecurrentSequential(**options)
        layer.add(self)
        return layer

    def _check(self) -> None:
        model = self.model
        if not isinstance(model, Model):
            raise TypeError(f"{self.name}: build_model must answer a Model; got {type(model).__name__}")
        if self.num_inputs < 1:
            raise ValueError(
                f"{self.name}: a cell's model is [x, states...] -> [output, new states...]; "
                f"got {len(model.inputs)} inputs and {len(model.outputs)} outputs"
            )
        for old, new in zip(self.states, model.outputs[1:]):
            if old.shape != new.shape:
                raise ValueError(f"{self.name}: the state {old!r} and its new value {new!r} differ in shape")


class RNNCellFromModel(RNNCell):
    """A cell from a drawn model `[x, state, ...] -> [output, new_state, ...]`."""

    def __init__(self, model: Model, name: str | None = None):
        if not isinstance(model, Model):
            raise TypeError(f"RNNCellFromModel takes a Model; got {model!r}")
        super().__init__(name)
        self._given = model
        self.build(model.inputs[0].shape)

    def build_model(self, input_shape: Shape) -> Model:
        return self._given
