"""Recurrent layers: a drawn step, or a stack of cells, that runs over a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsref import activations, arguments, ops
from rsref.cells.base import RNNCell
from rsref.cells.full import FullCell
from rsref.graph import Model, as_list
from rsref.layers import Embedding
from rsref.layers.base import forget, watched
from rsref.loop import RecurrentLayer
from rsref.ops.base import compatible
from rsref.options import Drawn
from rsref.recurrence import READOUTS, Step, with_readout
from rsref.tensor import Input, Shape, Tensor


class RecurrentModel(RecurrentLayer):
    """A layer from one drawn timestep.

    input, output: the step's input and output tensors; lists for several, none at all for no input.
    initial_states, final_states: equally many tensors, shapes pairwise equal; one, a list, or none.
    readout_input: a step input that receives the step's previous output (a list: the first outputs', pairwise).
    constants: step inputs that receive the same whole value at every step, given at call.
    mask_input: with decode, a step input (batch, time) of bool that receives the mask of the whole input.
    Further options: see `RecurrentLayer`.
    Errors: TypeError or ValueError that name the argument, before anything is computed.
    """

    def __init__(
        self,
        input: Tensor | Sequence[Tensor] | None = None,
        output: Tensor | Sequence[Tensor] | None = None,
        initial_states: Tensor | Sequence[Tensor] | None = None,
        final_states: Tensor | Sequence[Tensor] | None = None,
        readout_input: Tensor | Sequence[Tensor] | None = None,
        constants: Tensor | Sequence[Tensor] | None = None,
        mask_input: Tensor | None = None,
        **options: Any,
    ):
        arguments.check_options(type(self), options)
        outputs = as_list(output)
        if not outputs:
            raise ValueError("output: a step needs at least one output tensor; got none")
        self._one_output = isinstance(output, Tensor)
        self._step = Step(
            sequences=tuple(as_list(input)),
            constants=tuple(as_list(constants)),
            states=tuple(as_list(initial_states)),
            outputs=tuple(outputs),
            new_states=tuple(as_list(final_states)),
            readouts=tuple(as_list(readout_input)),
            mask_input=mask_input,
        )
        super().__init__(**options)
        self.build_step([])

    def build_step(self, shapes: Sequence[Shape]) -> None:
        drawn = [x.shape for x in self._step.sequences]
        if not all(map(compatible, drawn, shapes)):  # constants' may follow, or none be said
            raise ValueError(f"{self.name}: its step was drawn for inputs {drawn}; it cannot be built for {[*shapes]}")
        super().build_step(shapes)

    def draw(self, shapes: Sequence[Shape]) -> Step:
        return self._step


class RecurrentSequential(RecurrentLayer):
    """Cells and ordinary layers stacked into one step, then run over a sequence.

    state_sync: all cells share one set of states; each reads what the cell before it wrote in the same timestep.
    readout: how the previous step's output is merged with the input: True or "add", "mul", "avg", "max", or
        "readout_only", which replaces the input; False for no readout.
    readout_activation: applied to the readout first.
    Further options: see `RecurrentLayer`. The step is drawn when the first input is seen, or by `build`; a decoder that
    draws itself takes encoded sequences of any length from then on, if its layers allow.
    Errors: ValueError if cells that share states differ in them, or a readout does not have the input's shape.
    """

    state_sync = Drawn()
    readout = Drawn()
    readout_activation = Drawn()

    def __init__(
        self,
        layers: Sequence[Any] = (),
        state_sync: bool = False,
        readout: bool | str = False,
        readout_activation: Any = "linear",
        **options: Any,
    ):
        arguments.check_options(type(self), options)
        if not isinstance(readout, bool) and readout not in READOUTS:
            raise ValueError(f"readout must be True, False or one of {READOUTS}; got {readout!r}")
        if not readout and arguments.teacher_forcing(options.get("teacher_force")) is not False:
            raise ValueError("teacher_force needs a readout: give readout=...")
        self.state_sync = state_sync
        self.readout = "add" if readout is True else readout
        self.readout_activation = activations.get(readout_activation)
        self.layers: list[Any] = []
        self._one_output = True
        super().__init__(**options)
        for layer in arguments.list_of(f"{self.name}: layers", layers):
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Put a cell, a layer or any function of one tensor on top; TypeError for anything else."""
        if self.built:
            raise ValueError(f"{self.name} has run already: no layer can be added")
        if isinstance(layer, RecurrentLayer):
            raise TypeError(f"{self.name}.add takes cells and layers; give the cell of {layer.name}: .get_cell()")
        if not callable(layer):
            raise TypeError(f"{self.name}.add takes cells, layers and functions of a tensor; got {layer!r}")
        self.layers.append(layer)

    def build_for(self, shapes: Sequence[Shape]) -> None:
        """Draw the step for the inputs of a call; a decoder's first axis is left open, if the step can be drawn so."""
        if self.decode and any(len(shape) > 2 for shape in shapes):
            with watched() as built:
                try:
                    self.build(*((None, None, *shape[2:]) for shape in shapes))
                    if all(None not in state.shape[1:] for state in self.step.states):
                        return
                except (TypeError, ValueError):
                    pass  # what is wrong for any length is found again below
            forget(built)
        self.build(*shapes)

    def draw(self, shapes: Sequence[Shape]) -> Step:
        if not self.layers:
            raise ValueError(f"{self.name} has no layers: add a cell first")
        if len(shapes) != 1:
            raise ValueError(f"{self.name} takes one input; got {len(shapes)}")
        x = Input(batch_shape=shapes[0], dtype=_input_dtype(self.layers[0]), name="input")
        if not self.readout:
            return self._stacked(self.layers, x, x)
        readout = Input(batch_shape=self._readout_shape(x), name="readout")
        step = self._stacked(self.layers, x, self._merged(x, readout))
        if step.outputs[0].shape != readout.shape:
            raise ValueError(
                f"{self.name}: readout={self.readout!r} feeds the output {step.outputs[0].shape} back into the input "
                f"{readout.shape}: their shapes must agree"
            )
        return Step(**{**step.__dict__, "readouts": (readout,)})

    def _readout_shape(self, x: Tensor) -> Shape:
        if self.readout != "readout_only":
            return x.shape
        first = self.layers[0]
        width = first.input_dim if isinstance(first, FullCell) and first.input_dim else x.shape[-1]
        trial = Input(batch_shape=(*x.shape[:-1], width), dtype=x.dtype)
        with watched() as built:
            try:
                return self._stacked(self.layers, trial, trial).outputs[0].shape
            finally:
                forget(built)  # they were built to see the output's shape, on an input that they never get

    def _merged(self, x: Tensor, readout: Tensor) -> Tensor:
        fed = self.readout_activation(readout)
        merged: Tensor = {
            "add": lambda: ops.add(x, fed),
            "mul": lambda: ops.multiply(x, fed),
            "avg": lambda: (x + fed) / 2,
            "max": lambda: ops.maximum(x, fed),
            "readout_only": lambda: fed,
        }[str(self.readout)]()
        return merged

    def _stacked(self, layers: Sequence[Any], x: Tensor, current: Tensor) -> Step:
        states: list[Tensor] = []
        new_states: list[Tensor] = []
        mask_input: Tensor | None = None
        first: RNNCell | None = None
        for position, layer in enumerate(layers):
            if not isinstance(layer, RNNCell):
                current = layer(current)
                continue
            if not layer.built:
                layer.build(current.shape)
            if layer.num_inputs != 1:
                raise ValueError(
                    f"{self.name}: the cell {layer.name} takes {layer.num_inputs} inputs and {layer.num_states} states "
                    "by the numbers of its model's inputs and outputs; a stack gives it one input"
                )
            if self.state_sync and first is not None:
                arguments.check_same_states(first, layer)
                read = new_states
            else:
                read = [Input(batch_shape=s.shape, dtype=s.dtype, name=s.name) for s in layer.states]
                states += read
            mask = None
            if layer.model.mask_input is not None and position == 0:
                mask = mask_input = Input(batch_shape=layer.model.mask_input.shape, dtype="bool", name="mask")
            current, *written = layer([current, *read], mask=mask)
            new_states = written if self.state_sync else [*new_states, *written]
            first = first or layer
        return Step(
            sequences=(x,),
            constants=(),
            states=tuple(states),
            outputs=(current,),
            new_states=tuple(new_states),
            mask_input=mask_input,
        )


def _input_dtype(layer: Any) -> str:
    """Return the kind of numbers that a layer or a cell at the bottom of a stack reads."""
    if isinstance(layer, CellOfLayer) and isinstance(layer.layer, RecurrentSequential) and layer.layer.layers:
        return _input_dtype(layer.layer.layers[0])
    if isinstance(layer, RNNCell) and layer.built:
        return layer.model.inputs[0].dtype
    return "int" if isinstance(layer, Embedding) else "float"


class CellOfLayer(RNNCell):
    """The step of a recurrent layer as a cell: its readout is one more state. Weights are shared with the layer."""

    def __init__(self, layer: RecurrentLayer):
        super().__init__(f"{layer.name}_cell")
        self.layer = layer
        if isinstance(layer, RecurrentModel):
            self.build(*([t.shape for t in layer.draw([]).sequences] or [()]))

    def build_model(self, input_shape: Shape) -> Model:
        step = with_readout(self.layer.draw([input_shape]))
        if len(step.outputs) != 1 or not step.sequences or step.constants:
            raise ValueError(
                f"{self.layer.name}: a cell has one output, an input and no constants; this step has "
                f"{len(step.outputs)} outputs, {len(step.sequences)} inputs and {len(step.constants)} constants"
            )
        inputs = [*step.sequences, *step.states]
        return Model(inputs, [*step.outputs, *step.new_states], name=self.name, mask_input=step.mask_input)
