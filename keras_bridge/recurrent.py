"""Recurrent Keras layers: a drawn step, or a stack of cells, that runs over a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_bridge import forcing
from keras_bridge.cells.base import KerasCell, RNNCell, as_cell
from keras_bridge.checks import check_drawn
from keras_bridge.loop import RecurrentLayer
from rsref import cells as rsref_cells
from rsref.arguments import check_same_states, list_of
from rsref.graph import as_list
from rsref.options import Drawn
from rsref.recurrence import READOUTS, Step, with_readout

ROLES = ("sequences", "constants", "states", "outputs", "new_states", "readouts")

INDEXED = tuple(getattr(keras.layers, name) for name in ("Embedding", "CategoryEncoding", "Hashing", "IntegerLookup"))
"""Layers that read whole numbers, which floats would round."""


@keras.saving.register_keras_serializable("keras_bridge")
class RecurrentModel(RecurrentLayer):
    """A layer from one drawn timestep.

    input, output: the step's input and output tensors (drawn from keras.Input); lists for several.
    initial_states, final_states: equally many tensors, shapes pairwise equal; one, a list, or none.
    readout_input: a step input that receives the step's previous output (a list: the first outputs', pairwise).
    constants: step inputs that receive the same whole value at every step, given at call.
    mask_input: with decode, a step input (batch, time) of bool that receives the mask of the whole input.
    Further options: see `RecurrentLayer`.
    Errors: TypeError or ValueError that name the argument, before anything is computed.
    """

    def __init__(
        self,
        input: Any = None,
        output: Any = None,
        initial_states: Any = None,
        final_states: Any = None,
        readout_input: Any = None,
        constants: Any = None,
        mask_input: Any = None,
        **options: Any,
    ):
        super().__init__(**options)
        step = Step(
            sequences=tuple(as_list(input)),
            constants=tuple(as_list(constants)),
            states=tuple(as_list(initial_states)),
            outputs=tuple(as_list(output)),
            new_states=tuple(as_list(final_states)),
            readouts=tuple(as_list(readout_input)),
            mask_input=mask_input,
        )
        check_drawn(step)
        self.one_output = not isinstance(output, list | tuple)
        self.set_step(step)

    def get_config(self) -> dict[str, Any]:
        drawn = self.drawn
        masks = [] if drawn.mask_input is None else [drawn.mask_input]
        leaves = [*drawn.sequences, *drawn.constants, *drawn.states, *drawn.readouts, *masks]
        plain = keras.Model(leaves, [*drawn.outputs, *drawn.new_states], name=f"{self.name}_step")
        return {
            **super().get_config(),
            "step": keras.saving.serialize_keras_object(plain),
            "counts": {role: len(getattr(drawn, role)) for role in ROLES},
            "one_output": self.one_output,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RecurrentModel:
        config = dict(config)
        model = keras.saving.deserialize_keras_object(config.pop("step"))
        counts, one_output = config.pop("counts"), config.pop("one_output")
        leaves, results = list(model.inputs), list(model.outputs)
        sequences, constants, states, readouts = (
            [leaves.pop(0) for _ in range(counts[role])] for role in ("sequences", "constants", "states", "readouts")
        )
        outputs = results[: counts["outputs"]]
        return cls(
            input=sequences,
            output=outputs[0] if one_output else outputs,
            initial_states=states,
            final_states=results[counts["outputs"] :],
            readout_input=readouts,
            constants=constants,
            mask_input=leaves[0] if leaves else None,
            **_restored(config),
        )


@keras.saving.register_keras_serializable("keras_bridge")
class RecurrentSequential(RecurrentLayer):
    """Cells and ordinary layers stacked into one step, then run over a sequence.

    layers: cells, Keras's own cells or layers that hold one, and ordinary Keras layers.
    state_sync: all cells share one set of states; each reads what the cell before it wrote in the same timestep.
    readout: how the previous step's output is merged with the input: True or "add", "mul", "avg", "max", or
        "readout_only", which replaces the input; False for no readout.
    readout_activation: applied to the readout first.
    Further options: see `RecurrentLayer`. The step is drawn when the first input is seen, or by `build`.
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
        if not isinstance(readout, bool) and readout not in READOUTS:
            raise ValueError(f"readout must be True, False or one of {READOUTS}; got {readout!r}")
        super().__init__(**options)
        self.state_sync = state_sync
        self.readout = "add" if readout is True else readout
        self.readout_activation = keras.activations.get(readout_activation)
        self.layers: list[Any] = []
        for layer in list_of(f"{self.name}: layers", layers):
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Put a cell or a layer on top; TypeError for anything else."""
        if self.step is not None:
            raise ValueError(f"{self.name} is drawn already: no layer can be added")
        if isinstance(layer, RecurrentLayer):
            raise TypeError(f"{self.name}.add takes cells and layers; give the cell of {layer.name}: .get_cell()")
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(f"{self.name}.add takes cells and Keras layers; got {layer!r}{_instead(layer)}")
        if not hasattr(layer, "built"):
            raise TypeError(f"{type(layer).__name__}.__init__ must call super().__init__()")
        made = as_cell(layer) or layer
        self.layers.append(next((own for own in self.layers if _wrap_the_same(own, made)), made))

    def draw(self, shapes: list[tuple[int | None, ...]]) -> None:
        if self.step is not None:
            return
        if not self.layers:
            raise ValueError(f"{self.name} has no layers: add a cell first")
        if len(shapes) != 1:
            raise ValueError(f"{self.name} takes one input; got {len(shapes)}")
        reads_indices = isinstance(self.layers[0], INDEXED)
        x = keras.Input(batch_shape=shapes[0], dtype="int32" if reads_indices else self.compute_dtype)
        if not self.readout:
            step = self._stacked(self.layers, x, x)
            self.set_step(step, self._starts())
            return
        shape = x.shape if self.readout != "readout_only" else self._output_shape(x)
        readout = keras.Input(batch_shape=shape, dtype=self.compute_dtype)
        step = self._stacked(self.layers, x, self._merged(x, readout))
        if tuple(step.outputs[0].shape) != tuple(readout.shape):
            raise ValueError(
                f"{self.name}: readout={self.readout!r} feeds the output {tuple(step.outputs[0].shape)} back into the "
                f"input {tuple(readout.shape)}: their shapes must agree"
            )
        self.set_step(Step(**{**step.__dict__, "readouts": (readout,)}), self._starts())

    def _starts(self) -> list[Any]:
        """Return what starts each state where state_initializer does not say; all cells are built."""
        cells = [layer for layer in self.layers if isinstance(layer, RNNCell)]
        return [start for cell in (cells[:1] if self.state_sync else cells) for start in cell.state_starts]

    def _output_shape(self, x: Any) -> Any:
        """Return the shape of the stack's output, from copies thrown away."""
        return self._stacked([self._copied(layer) for layer in self.layers], x, x).outputs[0].shape

    def _copied(self, layer: Any) -> Any:
        if isinstance(layer, keras.layers.Lambda):  # which has no weights, and whose function may have no config
            return layer
        try:
            return type(layer).from_config(layer.get_config())
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.name}: with readout={self.readout!r} the shape of its output is found by copies of the layers, "
                f"and {layer.name!r} has no config to make one of: give its class a get_config, register it with "
                f"keras.saving.register_keras_serializable, or draw the step and give it to a RecurrentModel"
            ) from error

    def _merged(self, x: Any, readout: Any) -> Any:
        fed = self.readout_activation(readout)
        return {
            "add": lambda: ops.add(x, fed),
            "mul": lambda: ops.multiply(x, fed),
            "avg": lambda: (x + fed) / 2,
            "max": lambda: ops.maximum(x, fed),
            "readout_only": lambda: fed,
        }[str(self.readout)]()

    def _stacked(self, layers: Sequence[Any], x: Any, current: Any) -> Step:
        states: list[Any] = []
        new_states: list[Any] = []
        mask_input: Any = None
        first: RNNCell | None = None
        for position, layer in enumerate(layers):
            if not isinstance(layer, RNNCell):
                if (
                    isinstance(layer, keras.layers.Bidirectional | keras.layers.TimeDistributed)
                    and len(current.shape) < 3
                ):
                    raise ValueError(
                        f"{self.name}: {type(layer).__name__} needs whole sequences, and a step has "
                        f"{tuple(current.shape)}: put it around the recurrent layer"
                    )
                current = layer(current)
                continue
            if not layer.built:
                layer.build(tuple(current.shape))
            if layer.num_inputs != 1:
                raise ValueError(
                    f"{self.name}: the cell {layer.name} takes {layer.num_inputs} inputs and {layer.num_states} states "
                    "by the numbers of its model's inputs and outputs; a stack gives it one input"
                )
            if self.state_sync and first is not None:
                check_same_states(first, layer)
                read = new_states
            else:
                read = [keras.Input(batch_shape=s.shape, dtype=s.dtype) for s in layer.states]
                states += read
            given = [current, *read]
            if layer.mask_input is not None:
                if position:
                    raise ValueError(f"{self.name}: the cell {layer.name} reads a mask: it must be the first layer")
                mask_input = keras.Input(batch_shape=layer.mask_input.shape, dtype="bool")
                given.append(mask_input)
            current, *written = layer(given)
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

    def get_config(self) -> dict[str, Any]:
        once = list({id(layer): layer for layer in self.layers}.values())
        return {
            **super().get_config(),
            "layers": [keras.saving.serialize_keras_object(layer) for layer in once],
            "order": [next(i for i, one in enumerate(once) if one is layer) for layer in self.layers],
            "state_sync": self.state_sync,
            "readout": self.readout,
            "readout_activation": keras.activations.serialize(self.readout_activation),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RecurrentSequential:
        config = dict(config)
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config.pop("layers")]
        order = config.pop("order", range(len(layers)))  # models saved by an earlier version do not have it
        return cls(layers=[layers[i] for i in order], **_restored(config))


def _restored(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config whose serialised objects are objects again."""
    config["teacher_force"] = forcing.restored(config.get("teacher_force", False))
    if isinstance(config.get("state_initializer"), dict):
        config["state_initializer"] = keras.saving.deserialize_keras_object(config["state_initializer"])
    if isinstance(config.get("state_initializer"), list):
        config["state_initializer"] = [
            keras.saving.deserialize_keras_object(one) if isinstance(one, dict) else one
            for one in config["state_initializer"]
        ]
    return config


def _instead(layer: Any) -> str:
    """Return what stands in Keras for a cell of rsref; nothing for anything else."""
    if not isinstance(layer, rsref_cells.RNNCell):
        return ""
    if type(layer).__module__.startswith("rsref."):
        return "; keras_bridge has cells of the same names"
    return "; a cell of your own is drawn with Keras's layers, as a subclass of keras_bridge.RNNCell"


def _wrap_the_same(own: Any, other: Any) -> bool:
    """Whether two cells are made of one Keras cell, or of one recurrent layer: a step can name it only once."""
    return any(
        isinstance(own, kind) and isinstance(other, kind) and getattr(own, what) is getattr(other, what)
        for kind, what in ((KerasCell, "cell"), (CellOfLayer, "layer"))
    )


@keras.saving.register_keras_serializable("keras_bridge")
class CellOfLayer(RNNCell):
    """The step of a recurrent layer as a cell: its readout is one more state. Weights are shared with the layer."""

    def __init__(self, layer: Any, **options: Any):
        super().__init__(**{"name": f"{layer.name}_cell", **options})
        self.layer = layer
        if layer.step is not None:
            self.build(tuple(layer.drawn.sequences[0].shape))

    def build_model(self, input_shape: tuple[int | None, ...]) -> Any:
        self.layer.draw([input_shape])
        drawn = self.layer.drawn
        step: Any = with_readout(drawn)
        if len(step.outputs) != 1 or not step.sequences or step.constants:
            raise ValueError(
                f"{self.layer.name}: a cell has one output, an input and no constants; this step has "
                f"{len(step.outputs)} outputs, {len(step.sequences)} inputs and {len(step.constants)} constants"
            )
        mask = [] if step.mask_input is None else [step.mask_input]
        return keras.Model([*step.sequences, *step.states, *mask], [*step.outputs, *step.new_states])

    @property
    def mask_input(self) -> Any:
        return None if self.layer.drawn.mask_input is None else self.model.inputs[-1]

    @property
    def state_starts(self) -> list[Any]:
        own = self.layer._starts() if isinstance(self.layer, RecurrentSequential) else []
        return [*own, *[None] * (self.num_states - len(own))]  # a readout comes last

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CellOfLayer:
        config = dict(config)
        return cls(keras.saving.deserialize_keras_object(config.pop("layer")), **config)
