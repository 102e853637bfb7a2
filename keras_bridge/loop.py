"""What every recurrent Keras layer does around its engine: arguments, initial states, masks, readout, forcing."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from keras_bridge import direct, engines, forcing
from keras_bridge.backend import exporting, freeze_drawn, name_drawn
from keras_bridge.checks import (
    cast,
    cast_all,
    check_call,
    check_kinds,
    check_sequences,
    check_step,
    is_float,
    plain,
    stateful_in_a_graph,
)
from keras_bridge.emission import standard_dtype
from keras_bridge.memory import Memory, serialized, state_initializers
from keras_bridge.randomness import is_random
from keras_bridge.step import keras_recurrence, with_teacher_forcing
from rsref.arguments import check_cell, decoded_length, direction, returns_states
from rsref.graph import as_list
from rsref.options import Checked, Drawn
from rsref.recurrence import Step, truncation, with_decoder, with_readout


class RecurrentLayer(keras.layers.Layer):
    """The options and calls that all recurrent layers share.

    teacher_force: in training, the readout is the truth of the step before: True, or a probability in [0, 1] for each
        sample and step (scheduled sampling, Bengio 2015): a number, a keras.Variable that a schedule moves, or a
        callable that answers one.
    decode: the whole input is given to the step at each of `output_length` steps, instead of one slice a step.
    return_sequences: the output of every step, or only the last one; with decode, every step's unless said otherwise.
    return_state (return_states): the answer is (output, state, ...), the readout not among the states.
    go_backwards: sequences are run from their end; outputs come in the order in which they are computed, as in Keras.
        Not for decoders, which run through none.
    stateful: states, the readout among them, carry over to the next call; see `reset_states`.
    unroll: accepted for Keras's sake; it never changes a result.
    state_initializer: one for all states, or a list (the rest zeros): a name, an initializer of Keras, a number, an
        array, "learned" (`Learned`) for a trainable vector; None: zeros, or a Keras cell's get_initial_state.
    zero_output_for_mask: outputs of masked steps are zero, instead of the last valid one.
    truncate: gradients are cut every so many steps.
    engine: "keras" runs the step with Keras's own ops, "reference" with rsref's hand-written gradients, "fast" with
        kernels compiled for it, "auto" with the fastest that can (see `explain`, `set_engine`).
    Call: `layer(x, initial_state=None, initial_readout=None, ground_truth=None, constants=None, mask=None,
        training=None, output_length=None)`; x (batch, time, ...), or (batch, ...) for a decoder; a list if the step has
        several inputs. mask (batch, time), or one for each input: a step counts where all of them say so.
    Precision: that of the layer's dtype policy; the reference engine computes half precision in float32.
    Set later: return_sequences, return_state, go_backwards, stateful, output_length, zero_output_for_mask, truncate,
        engine and teacher_force (if it was not False when the step was drawn) count from the next call on; decode,
        state_initializer and seed can be set until then.
    Errors: TypeError or ValueError that name the argument, before anything is computed; AttributeError for an option
        that cannot be set any more.
    """

    takes_masks_beside_states = True
    """Whether the mask of the layers before counts in a call of several tensors, such as initial_state."""

    turns_masks = True
    """Whether the mask that is passed on is in the order of the outputs, with go_backwards too."""

    decode = Drawn()
    output_length = Checked(decoded_length)
    go_backwards = Checked(direction)
    truncate = Checked(lambda _layer, steps: truncation(steps))
    state_initializer = Drawn()
    seed = Drawn()

    def __init__(
        self,
        *,
        teacher_force: Any = False,
        decode: bool = False,
        output_length: int | None = None,
        return_sequences: bool | None = None,
        return_state: bool = False,
        return_states: bool | None = None,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        state_initializer: Any = None,
        zero_output_for_mask: bool = False,
        truncate: int | None = None,
        engine: str = "auto",
        seed: int | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.teacher_force = teacher_force
        self.decode = decode
        self.output_length = output_length
        self.return_sequences = decode if return_sequences is None else return_sequences
        self.return_state = returns_states(return_state, return_states)
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.state_initializer = state_initializer
        self.zero_output_for_mask = zero_output_for_mask
        self.truncate = truncate
        self.engine = engines.check_engine(engine)
        self.seed = seed
        self.supports_masking = True
        self.supports_jit = keras.backend.backend() != "tensorflow"  # XLA knows neither a loop of any length nor Python
        self.input_spec = None
        self.one_output = True
        self.step: Any = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "teacher_force":
            forcing.keep(self, value)
        else:
            super().__setattr__(name, value)

    # --- the step -----------------------------------------------------------------------------------------------------
    def set_step(self, drawn: Step, starts: list[Any] | None = None) -> None:
        """Check a drawn step, rewrite its features, and make what the layer keeps about it.

        starts: what starts each state that state_initializer does not name; zeros if not given.
        """
        check_step(drawn, self.decode, self.teacher_force is not False)
        step = with_readout(with_decoder(drawn) if self.decode else drawn)
        self.drawn = drawn
        self.leaves = step
        self.recurrence = keras_recurrence(step, self.zero_output_for_mask, self.truncate)
        self.step = self.recurrence.model
        for layer in self.step._flatten_layers(include_self=False):
            if getattr(layer, "activity_regularizer", None) is not None:
                raise ValueError(
                    f"the step's layer {layer.name!r} has an activity_regularizer, which a loop cannot keep"
                )
        self.num_states = len(drawn.states)
        chosen = state_initializers(self.state_initializer, starts or [None] * self.num_states)
        self.memory = Memory(list(step.states), chosen, name=f"{self.name}_memory", dtype=self.dtype_policy)
        self.forced_recurrence: Any = None
        if self.teacher_force is not False:
            self.forced_leaves = with_teacher_forcing(step)
            self.forced_recurrence = keras_recurrence(self.forced_leaves, self.zero_output_for_mask, self.truncate)
            self.forced_recurrence.watched = self.recurrence.watched  # of the same layers
        needs_seed = self.teacher_force is not False or is_random(self.step)
        self.seed_generator = keras.random.SeedGenerator(self.seed) if needs_seed else None
        freeze_drawn(self)

    @property
    def variables(self) -> list[Any]:
        """All variables, the one of `teacher_force` too: it is no weight, but compiled code on JAX must know it."""
        found, force = super().variables, self.teacher_force
        own = isinstance(force, keras.Variable) and all(variable is not force for variable in found)
        return [*found, force] if own else found

    @property
    def states(self) -> list[Any] | None:
        """The variables that carry a stateful layer's states, or None."""
        return list(self.memory.carried[: self.num_states]) if self.step is not None and self.memory.carried else None

    def get_cell(self) -> Any:
        """Return the layer's step as a cell that shares its weights; see `rsref.loop.RecurrentLayer.get_cell`."""
        check_cell(self.name, self.state_initializer)
        from keras_bridge.recurrent import CellOfLayer

        return CellOfLayer(self)

    def reset_states(self, values: Any = None) -> None:
        """Forget the states carried over, or set them: one array (batch, ...) a state. Readouts start from zeros."""
        if self.step is None:
            raise ValueError(f"{self.name}: states can be reset once the layer is built")
        self.memory.reset(keras.tree.flatten(as_list(values)), self.name)

    reset_state = reset_states

    # --- shapes -------------------------------------------------------------------------------------------------------
    def draw(self, shapes: list[tuple[int | None, ...]]) -> None:
        """Draw the step for step inputs of these shapes, batch axis first, and set it; nothing if it is drawn."""

    def build(
        self,
        sequences_shape: Any,
        initial_state_shape: Any = None,
        initial_readout_shape: Any = None,
        ground_truth_shape: Any = None,
        constants_shape: Any = None,
    ) -> None:
        """Draw the step if need be, check the shapes, and that the engine can run the step."""
        shapes = self._shapes(sequences_shape)
        self.draw([(None, *(shape[1:] if self.decode else shape[2:])) for shape in shapes])
        check_sequences(self, shapes)
        if self.stateful and shapes[0][0] is not None and not self.memory.carried:
            self.memory.allocate(shapes[0][0])
        engines.module_of(engines.chosen(self.engine, self.recurrence)).prepare(self.recurrence)
        name_drawn(self)

    @staticmethod
    def _shapes(sequences_shape: Any) -> list[tuple[int | None, ...]]:
        """Return the shapes of all sequences, given one shape or several."""
        several = bool(sequences_shape) and isinstance(sequences_shape[0], list | tuple)
        return [tuple(shape) for shape in (sequences_shape if several else [sequences_shape])]

    def compute_output_shape(
        self,
        sequences_shape: Any,
        initial_state_shape: Any = None,
        initial_readout_shape: Any = None,
        ground_truth_shape: Any = None,
        constants_shape: Any = None,
        output_length: int | None = None,
    ) -> Any:
        """Return the shape of the answer, a tuple of shapes if it holds several tensors."""
        shapes = self._shapes(sequences_shape)
        if self.step is None:
            self.draw([(None, *(shape[1:] if self.decode else shape[2:])) for shape in shapes])
        batch = shapes[0][0]
        steps = (output_length or self.output_length) if self.decode else shapes[0][1]
        lead = (batch, steps) if self.return_sequences else (batch,)
        return self._answer(
            [(*lead, *y.shape[1:]) for y in self.drawn.outputs],
            [(batch, *s.shape[1:]) for s in self.drawn.new_states],
        )

    def compute_output_spec(
        self,
        sequences: Any,
        initial_state: Any = None,
        initial_readout: Any = None,
        ground_truth: Any = None,
        constants: Any = None,
        mask: Any = None,
        training: bool | None = None,
        output_length: int | None = None,
        sequences_mask: Any = None,
    ) -> Any:
        """Return the answer's KerasTensors; misuse in a symbolic call is answered here."""
        given = as_list(sequences)
        check_call(
            self,
            [tuple(x.shape) for x in given],
            keras.tree.flatten(as_list(initial_state)),
            as_list(initial_readout),
            as_list(ground_truth),
            as_list(constants),
            as_list(sequences_mask if mask is None else mask),
            output_length,
        )
        shapes = self.compute_output_shape([tuple(x.shape) for x in given], output_length=output_length)
        several = not self.one_output or self.return_state
        tensors = [*self.drawn.outputs, *(self.drawn.states if self.return_state else [])]
        specs = [
            keras.KerasTensor(shape, self.compute_dtype if is_float(y) else y.dtype)
            for shape, y in zip(shapes if several else [shapes], tensors)
        ]
        return tuple(specs) if several else specs[0]

    def _answer(self, outputs: list[Any], states: list[Any]) -> Any:
        """Return outputs and states in the form of the layer's answer: one of them alone, or a tuple."""
        if self.return_state:
            return (*outputs, *states)
        return outputs[0] if self.one_output else tuple(outputs)

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        """Pass the mask on with whole sequences, in their order; states, last outputs and a decoder's have none."""
        passed = self._mask(as_list(mask)) if self.return_sequences and not self.decode else None
        if passed is not None and self.go_backwards and self.turns_masks:
            passed = ops.flip(passed, axis=1)
        return self._answer([passed] * len(self.drawn.outputs), [None] * self.num_states)

    # --- running ------------------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer as Keras does; a plain call on PyTorch goes straight to the engine."""
        check_kinds(self.name, args, kwargs)
        if "output_length" in kwargs:
            kwargs["output_length"] = plain(kwargs["output_length"])  # Keras would make a tensor of it
        if keras.backend.backend() == "torch":
            return direct.call(self, super().__call__, args, kwargs)
        return super().__call__(*args, **kwargs)

    def _renew(self) -> None:
        """Forget the traces of the step if its layers have changed since."""
        if self.step is not None and self.recurrence.watched.changed():
            self.recurrence.forget()
            if self.forced_recurrence is not None:
                self.forced_recurrence.forget()

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        initial_readout: Any = None,
        ground_truth: Any = None,
        constants: Any = None,
        mask: Any = None,
        training: bool | None = None,
        output_length: int | None = None,
        sequences_mask: Any = None,
    ) -> Any:
        """Return the layer's answer.

        sequences_mask: the mask of the layers before, which Keras gives by this name where a call has several tensors,
            and as `mask` where it has one; an explicit mask counts instead of it.
        """
        self._renew()
        mask = sequences_mask if mask is None and self.takes_masks_beside_states else mask
        given, truths, fixed = as_list(sequences), as_list(ground_truth), as_list(constants)
        given_states = keras.tree.flatten(as_list(initial_state))  # nested for a stack of Keras's cells
        check_call(
            self,
            [tuple(x.shape) for x in given],
            given_states,
            as_list(initial_readout),
            truths,
            fixed,
            as_list(mask),
            output_length,
        )
        forced = bool(training) and self.teacher_force is not False
        if forced and not truths:
            raise ValueError(f"{self.name}: teacher forcing needs ground_truth in training")
        leaves, recurrence = self.leaves, self.forced_recurrence if forced else self.recurrence
        # set on a layer that is there: the first by Bidirectional
        recurrence.zero_output_for_mask, recurrence.truncate = self.zero_output_for_mask, self.truncate
        precision = self._precision()
        inputs = cast_all(given, leaves.constants[: len(given)] if self.decode else leaves.sequences, precision)
        valid = self._mask(as_list(mask))
        batch = ops.shape(given[0])[0]
        length = (output_length or self.output_length) if self.decode else ops.shape(given[0])[1]
        if self.stateful:
            if exporting():
                raise stateful_in_a_graph(self.name)
            self.memory.make(given[0].shape[0], self.name, given[0])
        states = self.memory.starting(given_states, as_list(initial_readout), batch, self.stateful)
        states = cast_all(states, leaves.states, precision)
        whole = [
            *(inputs if self.decode else []),
            *cast_all(fixed, leaves.constants[-len(fixed) or None :], precision),
        ]
        if leaves.mask_input is not None:
            whole.append(ops.ones(ops.shape(given[0])[:2], "bool") if valid is None else valid)
            valid = None
        running = [] if self.decode else inputs
        if self.go_backwards:
            running = [ops.flip(x, axis=1) for x in running]
            valid = None if valid is None else ops.flip(valid, axis=1)
        shapes = self._output_shapes(running, whole, states)
        specs = [((batch, *s), precision if is_float(y) else y.dtype) for s, y in zip(shapes, leaves.outputs)]
        if forced:
            running = [*running, *self._forcing(truths, batch, length, given[0], precision)]
        engine = engines.module_of(engines.chosen(self.engine, self.recurrence))
        outputs, final_states = engine.run(
            recurrence,
            running,
            whole,
            states,
            specs,
            valid,
            length,
            return_sequences=self.return_sequences,
            training=bool(training),
            seed=self.seed_generator,
        )
        if self.stateful:
            self.memory.keep(final_states)
        found = [cast(y, self.compute_dtype) if is_float(y) else y for y in (*outputs, *final_states)]
        return self._answer(found[: len(outputs)], found[len(outputs) :][: self.num_states])

    def _output_shapes(self, sequences: list[Any], constants: list[Any], states: list[Any]) -> list[tuple[Any, ...]]:
        """Return the shapes of the step's outputs but for the batch axis, lengths that only the call tells among them.

        sequences, constants, states: of the call.
        """
        shapes = [tuple(y.shape[1:]) for y in self.leaves.outputs]
        if not any(None in shape for shape in shapes):
            return shapes
        slices = [(None, *x.shape[2:]) for x in sequences] + [(None, *x.shape[1:]) for x in (*constants, *states)]
        inputs = [keras.KerasTensor(shape, leaf.dtype) for shape, leaf in zip(slices, self.step.inputs)]
        return [tuple(y.shape[1:]) for y in as_list(self.step.compute_output_spec(inputs))[: len(shapes)]]

    def _precision(self) -> str:
        """The dtype of states and outputs inside the loop."""
        traced = engines.chosen(self.engine, self.recurrence) != "keras"
        return standard_dtype(self.compute_dtype) if traced else self.compute_dtype

    @staticmethod
    def _mask(masks: list[Any]) -> Any:
        """Return where a step counts, (batch, time) of bool, or None if it always does."""
        given = [ops.cast(mask, "bool") for mask in masks if mask is not None]
        return functools.reduce(ops.logical_and, given) if given else None

    def _forcing(self, truths: list[Any], batch: Any, length: Any, like: Any, precision: str) -> list[Any]:
        """Return the true outputs and, for each, where they are read: the choice of every sample and step."""
        chance = ops.convert_to_tensor(forcing.probability_now(self.teacher_force, like), "float32")
        choice = keras.random.uniform((batch, length), seed=self.seed_generator, dtype="float32") < chance
        leaves = self.forced_leaves
        choices = [ops.reshape(choice, (batch, length, *leaf.shape[1:])) for leaf in leaves.forced]
        return [*cast_all(truths, leaves.truths, precision), *choices]

    def explain(self) -> str:
        """Return which engine runs this layer, why, and what held each faster one back."""
        if self.step is None:
            raise ValueError(f"{self.name}: the step is drawn at the first call: build the layer first")
        return engines.explanation(self.name, self.engine, self.recurrence)

    # --- Keras's own bookkeeping --------------------------------------------------------------------------------------
    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "teacher_force": forcing.saved(self.teacher_force),
            "decode": self.decode,
            "output_length": self.output_length,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "state_initializer": serialized(self.state_initializer),
            "zero_output_for_mask": self.zero_output_for_mask,
            "truncate": self.truncate,
            "engine": self.engine,
            "seed": self.seed,
        }
