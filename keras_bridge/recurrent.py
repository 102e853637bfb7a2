"""RecurrentModel: a Keras layer from one timestep drawn with Keras's functional API."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_bridge import keras_engine, reference_engine
from keras_bridge.checks import as_list, check_step

ENGINES = ("auto", "keras", "reference")


@keras.saving.register_keras_serializable("keras_bridge")
class RecurrentModel(keras.layers.Layer):
    """A layer from one drawn timestep.

    input, output: the step's input and output tensors (drawn from keras.Input); lists for several.
    initial_states, final_states: equally many tensors, shapes pairwise equal; one, a list, or none.
    readout_input: a step input that receives the step's previous output (a list: the first outputs', pairwise).
    return_sequences: the output of every step, or only the last one.
    return_state (return_states): the answer is [output, state, ...], the readout not among the states.
    go_backwards: sequences are run from their end; outputs come in the order in which they are computed, as in Keras.
    unroll: accepted for Keras's sake; it never changes a result.
    zero_output_for_mask: outputs of masked steps are zero, instead of the last valid one.
    engine: "keras" runs the step with Keras's own ops, "reference" with rsref's hand-written gradients, "auto"
        chooses (see `explain`).
    Call: `layer(x, initial_state=None, initial_readout=None, mask=None, training=None)`; x (batch, time, ...),
        a list if the step has several inputs; states start from zeros.
    Precision: that of the layer's dtype policy; the reference engine computes half precision in float32.
    Errors: TypeError or ValueError that name the argument, before anything is computed.
    """

    def __init__(
        self,
        input: Any = None,
        output: Any = None,
        initial_states: Any = None,
        final_states: Any = None,
        readout_input: Any = None,
        return_sequences: bool = False,
        return_state: bool = False,
        return_states: bool | None = None,
        go_backwards: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        engine: str = "auto",
        **kwargs: Any,
    ):
        inputs, outputs = as_list(input), as_list(output)
        states, new_states, readouts = as_list(initial_states), as_list(final_states), as_list(readout_input)
        check_step(inputs, outputs, states, new_states, readouts)
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {ENGINES}; got {engine!r}")
        super().__init__(**kwargs)
        self.step = keras.Model([*inputs, *states, *readouts], [*outputs, *new_states, *outputs[: len(readouts)]])
        for layer in self.step._flatten_layers(include_self=False):
            if getattr(layer, "activity_regularizer", None) is not None:
                raise ValueError(
                    f"the step's layer {layer.name!r} has an activity_regularizer, which a loop cannot keep"
                )
        self.num_inputs, self.num_outputs, self.num_readouts = len(inputs), len(outputs), len(readouts)
        self.num_states = len(states)
        self.one_output = not isinstance(output, list | tuple)
        self.return_sequences = return_sequences
        self.return_state = return_state if return_states is None else return_states
        self.go_backwards = go_backwards
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        self.engine = engine
        self.supports_masking = True
        self.supports_jit = keras.backend.backend() != "tensorflow"  # XLA knows neither a loop of any length nor Python
        self.input_spec = None
        self.stateful = False
        self._traced: dict[bool, Any] = {}

    # --- shapes -------------------------------------------------------------------------------------------------------
    @property
    def step_inputs(self) -> list[Any]:
        """The step's own inputs: slices, states, readouts."""
        return list(self.step.inputs)

    def build(self, sequences_shape: Any, initial_state_shape: Any = None, initial_readout_shape: Any = None) -> None:
        shapes = [sequences_shape] if self._is_shape(sequences_shape) else list(sequences_shape)
        if len(shapes) != self.num_inputs:
            raise ValueError(f"{self.name} takes {self.num_inputs} sequences; got {len(shapes)}")
        for own, shape in zip(self.step_inputs, shapes):
            expected = (own.shape[0], None, *own.shape[1:])
            if len(shape) != len(expected) or any(None not in (n, m) and n != m for n, m in zip(expected, shape)):
                raise ValueError(
                    f"{self.name}: a sequence of shape {tuple(shape)} is given where {expected} "
                    f"(batch, time, ...) is needed"
                )
        self.built = True

    @staticmethod
    def _is_shape(shape: Any) -> bool:
        return not shape or not isinstance(shape[0], list | tuple)

    def compute_output_shape(
        self, sequences_shape: Any, initial_state_shape: Any = None, initial_readout_shape: Any = None
    ) -> Any:
        first = sequences_shape if self._is_shape(sequences_shape) else sequences_shape[0]
        batch, time = first[0], first[1]
        lead = (batch, time) if self.return_sequences else (batch,)
        shapes: list[Any] = [(*lead, *y.shape[1:]) for y in self.step.outputs[: self.num_outputs]]
        if self.return_state:
            first_state = self.num_outputs
            states = self.step.outputs[first_state : first_state + self.num_states]
            shapes += [(batch, *s.shape[1:]) for s in states]
        return shapes[0] if self.one_output and not self.return_state else shapes

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        first = as_list(mask)[0] if as_list(mask) else None
        passed = first if self.return_sequences else None
        if self.one_output and not self.return_state:
            return passed
        return [passed] * self.num_outputs + [None] * (self.num_states if self.return_state else 0)

    # --- running ------------------------------------------------------------------------------------------------------
    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        initial_readout: Any = None,
        mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        precision = self._precision()
        given = as_list(sequences)
        mask = self._mask(mask)
        leaves = self.step_inputs
        inputs = [self._cast(x, leaf, precision) for x, leaf in zip(given, leaves)]
        if self.go_backwards:
            inputs = [ops.flip(x, axis=1) for x in inputs]
            mask = None if mask is None else ops.flip(mask, axis=1)
        batch = ops.shape(inputs[0])[0]
        first, last = self.num_inputs, self.num_inputs + self.num_states
        states = self._starting("initial_state", initial_state, leaves[first:last], batch, precision)
        states += self._starting("initial_readout", initial_readout, leaves[last:], batch, precision)
        blank = [
            ops.zeros((batch, *y.shape[1:]), precision if _is_float(y.dtype) else y.dtype)
            for y in self.step.outputs[: self.num_outputs]
        ]
        run = reference_engine.run if self.chosen_engine == "reference" else keras_engine.run
        outputs, final_states = run(
            self.step,
            inputs,
            states,
            blank,
            mask,
            zero_output_for_mask=self.zero_output_for_mask,
            return_sequences=self.return_sequences,
            training=training,
        )
        answer = outputs + (final_states[: self.num_states] if self.return_state else [])
        answer = [ops.cast(y, self.compute_dtype) if _is_float(y.dtype) else y for y in answer]
        return answer[0] if self.one_output and not self.return_state else answer

    def _precision(self) -> str:
        """The dtype of states and outputs inside the loop."""
        half = self.compute_dtype in ("float16", "bfloat16")
        return "float32" if half and self.chosen_engine == "reference" else self.compute_dtype

    def _cast(self, x: Any, leaf: Any, precision: str) -> Any:
        return ops.cast(x, precision if _is_float(leaf.dtype) else leaf.dtype)

    def _mask(self, mask: Any) -> Any:
        masks = [m for m in as_list(mask) if m is not None]
        return ops.cast(masks[0], "bool") if masks else None

    def _starting(self, name: str, given: Any, leaves: list[Any], batch: Any, precision: str) -> list[Any]:
        """Return the given initial values, checked, or zeros."""
        values = as_list(given)
        if not values:
            for leaf in leaves:
                if None in leaf.shape[1:]:
                    raise ValueError(f"{name}: a state of shape {tuple(leaf.shape)} must be given in the call")
            return [self._cast(ops.zeros((batch, *leaf.shape[1:])), leaf, precision) for leaf in leaves]
        if len(values) != len(leaves):
            raise ValueError(f"{name}: {len(leaves)} tensors are needed for {self.name}; got {len(values)}")
        for value, leaf in zip(values, leaves):
            shape = tuple(value.shape)
            if len(shape) != len(leaf.shape) or any(None not in (n, m) and n != m for n, m in zip(shape, leaf.shape)):
                raise ValueError(f"{name}: shape {shape} is given where {tuple(leaf.shape)} is needed")
        return [self._cast(value, leaf, precision) for value, leaf in zip(values, leaves)]

    # --- engines ------------------------------------------------------------------------------------------------------
    @property
    def chosen_engine(self) -> str:
        """The engine that runs: the one asked for, or "keras" for "auto"."""
        return "keras" if self.engine == "auto" else self.engine

    def explain(self) -> str:
        """Return a sentence that says which engine runs this layer, and why."""
        if self.engine == "auto":
            return f'{self.name}: engine "keras", chosen by "auto": it runs any layer, and faster than "reference"'
        return f'{self.name}: engine "{self.engine}", as asked for'

    # --- Keras's own bookkeeping --------------------------------------------------------------------------------------
    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "step": keras.saving.serialize_keras_object(self.step),
            "num_inputs": self.num_inputs,
            "num_outputs": self.num_outputs,
            "num_readouts": self.num_readouts,
            "one_output": self.one_output,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
            "engine": self.engine,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RecurrentModel:
        config = dict(config)
        step = keras.saving.deserialize_keras_object(config.pop("step"))
        inputs, outputs = config.pop("num_inputs"), config.pop("num_outputs")
        readouts, one_output = config.pop("num_readouts"), config.pop("one_output")
        leaves, results = list(step.inputs), list(step.outputs)
        states = len(leaves) - inputs - readouts
        return cls(
            input=leaves[:inputs],
            output=results[0] if one_output else results[:outputs],
            initial_states=leaves[inputs : inputs + states],
            final_states=results[outputs : outputs + states],
            readout_input=leaves[inputs + states :],
            **config,
        )


def _is_float(dtype: Any) -> bool:
    return "float" in str(keras.backend.standardize_dtype(dtype))
