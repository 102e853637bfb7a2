"""RecurrentModel: a Keras layer from one timestep drawn with Keras's functional API."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from keras_bridge import keras_engine, reference_engine
from keras_bridge.checks import as_list, check_masks, check_sequences, check_step, check_values

ENGINES = ("auto", "keras", "reference")


@keras.saving.register_keras_serializable("keras_bridge")
class RecurrentModel(keras.layers.Layer):
    """A layer from one drawn timestep.

    input, output: the step's input and output tensors (drawn from keras.Input); lists for several.
    initial_states, final_states: equally many tensors, shapes pairwise equal; one, a list, or none.
    readout_input: a step input that receives the step's previous output (a list: the first outputs', pairwise).
    return_sequences: the output of every step, or only the last one.
    return_state (return_states): the answer is (output, state, ...), the readout not among the states.
    go_backwards: sequences are run from their end; outputs come in the order in which they are computed, as in Keras.
    unroll: accepted for Keras's sake; it never changes a result.
    zero_output_for_mask: outputs of masked steps are zero, instead of the last valid one.
    engine: "keras" runs the step with Keras's own ops, "reference" with rsref's hand-written gradients, "auto"
        chooses (see `explain`).
    Call: `layer(x, initial_state=None, initial_readout=None, mask=None, training=None)`; x (batch, time, ...),
        a list if the step has several inputs; states start from zeros. mask (batch, time), or one for each input: a
        step counts where all of them say so.
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
        self.stateful, self.states = False, None  # asked for by keras.layers.Bidirectional: nothing is carried over

    # --- shapes -------------------------------------------------------------------------------------------------------
    @property
    def step_inputs(self) -> list[Any]:
        """The step's own inputs: slices, states, readouts."""
        return list(self.step.inputs)

    def build(self, sequences_shape: Any, initial_state_shape: Any = None, initial_readout_shape: Any = None) -> None:
        """Check the shapes, and that the engine can run the step; the step's weights exist since it was drawn."""
        check_sequences(self.name, self.step_inputs[: self.num_inputs], self._shapes(sequences_shape))
        if self.chosen_engine == "reference":
            reference_engine.recurrence_of(self.step, self.num_inputs, self.zero_output_for_mask, training=False)
        self.built = True

    @staticmethod
    def _shapes(sequences_shape: Any) -> list[tuple[int | None, ...]]:
        """Return the shapes of all sequences, given one shape or several."""
        several = bool(sequences_shape) and isinstance(sequences_shape[0], list | tuple)
        return [tuple(shape) for shape in (sequences_shape if several else [sequences_shape])]

    def compute_output_shape(
        self, sequences_shape: Any, initial_state_shape: Any = None, initial_readout_shape: Any = None
    ) -> Any:
        """Return the shape of the answer, a tuple of shapes if it holds several tensors."""
        batch, time = self._shapes(sequences_shape)[0][:2]
        lead = (batch, time) if self.return_sequences else (batch,)
        shapes = [(*lead, *y.shape[1:]) for y in self._step_outputs]
        return self._answer(shapes, [(batch, *s.shape[1:]) for s in self._new_states])

    def compute_output_spec(
        self,
        sequences: Any,
        initial_state: Any = None,
        initial_readout: Any = None,
        mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        """Return the answer's KerasTensors; misuse in a symbolic call is answered here."""
        self._check_call(as_list(sequences), initial_state, initial_readout, as_list(mask))
        shapes = self.compute_output_shape([tuple(x.shape) for x in as_list(sequences)])
        several = not self.one_output or self.return_state
        tensors = [*self._step_outputs, *(self._new_states if self.return_state else [])]
        specs = [
            keras.KerasTensor(shape, self.compute_dtype if _is_float(y.dtype) else y.dtype)
            for shape, y in zip(shapes if several else [shapes], tensors)
        ]
        return tuple(specs) if several else specs[0]

    @property
    def _step_outputs(self) -> list[Any]:
        return list(self.step.outputs[: self.num_outputs])

    @property
    def _new_states(self) -> list[Any]:
        return list(self.step.outputs[self.num_outputs : self.num_outputs + self.num_states])

    def _answer(self, outputs: list[Any], states: list[Any]) -> Any:
        """Return outputs and states in the form of the layer's answer: one of them alone, or a tuple."""
        if self.return_state:
            return (*outputs, *states)
        return outputs[0] if self.one_output else tuple(outputs)

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        """Pass the mask on with whole sequences; states and last outputs have none."""
        passed = self._mask(as_list(mask)) if self.return_sequences else None
        return self._answer([passed] * self.num_outputs, [None] * self.num_states)

    # --- running ------------------------------------------------------------------------------------------------------
    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        initial_readout: Any = None,
        mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        given = as_list(sequences)
        self._check_call(given, initial_state, initial_readout, as_list(mask))
        precision = self._precision()
        valid = self._mask(as_list(mask))
        leaves = self.step_inputs
        inputs = [self._cast(x, leaf, precision) for x, leaf in zip(given, leaves)]
        if self.go_backwards:
            inputs = [ops.flip(x, axis=1) for x in inputs]
            valid = None if valid is None else ops.flip(valid, axis=1)
        batch = ops.shape(inputs[0])[0]
        first, last = self.num_inputs, self.num_inputs + self.num_states
        states = self._starting(initial_state, leaves[first:last], batch, precision)
        states += self._starting(initial_readout, leaves[last:], batch, precision)
        blank = [
            ops.zeros((batch, *y.shape[1:]), precision if _is_float(y.dtype) else y.dtype) for y in self._step_outputs
        ]
        run = reference_engine.run if self.chosen_engine == "reference" else keras_engine.run
        outputs, final_states = run(
            self.step,
            inputs,
            states,
            blank,
            valid,
            zero_output_for_mask=self.zero_output_for_mask,
            return_sequences=self.return_sequences,
            training=training,
        )
        found = [ops.cast(y, self.compute_dtype) if _is_float(y.dtype) else y for y in (*outputs, *final_states)]
        return self._answer(found[: self.num_outputs], found[self.num_outputs :][: self.num_states])

    def _check_call(self, sequences: list[Any], initial_state: Any, initial_readout: Any, masks: list[Any]) -> None:
        leaves = self.step_inputs
        first, last = self.num_inputs, self.num_inputs + self.num_states
        check_sequences(self.name, leaves[:first], [tuple(x.shape) for x in sequences])
        check_masks(self.name, tuple(sequences[0].shape)[:2], masks)
        check_values(self.name, "initial_state", leaves[first:last], as_list(initial_state))
        check_values(self.name, "initial_readout", leaves[last:], as_list(initial_readout))

    def _precision(self) -> str:
        """The dtype of states and outputs inside the loop."""
        half = self.compute_dtype in ("float16", "bfloat16")
        return "float32" if half and self.chosen_engine == "reference" else self.compute_dtype

    def _cast(self, x: Any, leaf: Any, precision: str) -> Any:
        return ops.cast(x, precision if _is_float(leaf.dtype) else leaf.dtype)

    @staticmethod
    def _mask(masks: list[Any]) -> Any:
        """Return where a step counts, (batch, time) of bool, or None if it always does."""
        given = [ops.cast(mask, "bool") for mask in masks if mask is not None]
        return functools.reduce(ops.logical_and, given) if given else None

    def _starting(self, given: Any, leaves: list[Any], batch: Any, precision: str) -> list[Any]:
        """Return the given initial values, or zeros, in the dtypes of the loop."""
        values = as_list(given) or [ops.zeros((batch, *leaf.shape[1:])) for leaf in leaves]
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
