"""What every recurrent layer does around its engine: arguments, initial states, masks, readout, weights, gradients."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref import arguments, first_call, initializers, noise
from rsref.engine import Engine
from rsref.graph import as_list
from rsref.layers.base import assign_weights, forget, watched
from rsref.memory import Memory
from rsref.options import Checked, Drawn, Looped
from rsref.recurrence import (
    Recurrence,
    Step,
    truncation,
    with_decoder,
    with_noise,
    with_readout,
    with_teacher_forcing,
)
from rsref.tape import LayerGradients, LayerTape, layer_gradients
from rsref.tensor import Parameter, Shape, Tensor, unique_name

if TYPE_CHECKING:
    from rsref.recurrent import CellOfLayer

Array = np.ndarray

DRAWN = ("drawn", "step", "forced_step", "num_states", "recurrence", "forced_recurrence", "memory", "noise_shapes")
"""Attributes that a layer has once its step is drawn."""


class RecurrentLayer(abc.ABC):
    """The options and calls that all recurrent layers share.

    teacher_force: in training, the readout is the truth of the step before: True, or a probability in [0, 1] for each
        sample and step (scheduled sampling, Bengio 2015), or a callable or a variable that answers one.
    decode: the whole input is given to the step at each of `output_length` steps, instead of one slice a step.
    return_sequences: the output of every step, or only the last one; with decode, every step's unless said otherwise.
    return_state (return_states): the answer is [output, state, ...], the readout not among the states.
    go_backwards: sequences are run from their end; outputs come in the order in which they are computed, as in Keras.
        Not for decoders, which run through none.
    stateful: states, the readout among them, carry over to the next call; see `reset_states`.
    unroll: accepted for Keras's sake; it never changes a result.
    state_initializer: one for all states, or a list (the rest zeros): a name, a callable, a number, an array, or
        "learned" (`initializers.Learned`) for a trainable vector.
    zero_output_for_mask: outputs of masked steps are zero, instead of the last valid one.
    truncate: gradients are cut every so many steps.
    dtype: "float64" or "float32", the precision of all computation.
    engine: a function from a `Recurrence` to an `Engine`; the reference engine if none is given.
    seed: of this layer's own draws (dropout, scheduled sampling).
    Set later: return_sequences, return_state, go_backwards, stateful, output_length, zero_output_for_mask, truncate,
    teacher_force and make_engine count from the next call on. Errors: AttributeError for decode, state_initializer and
    dtype once the step is drawn.
    """

    _one_output: bool
    memory: Memory
    decode = Drawn()
    teacher_force = Checked(arguments.forcing)
    output_length = Checked(arguments.decoded_length)
    go_backwards = Checked(arguments.direction)
    state_initializer = Drawn()
    dtype = Drawn()
    zero_output_for_mask = Looped()
    truncate = Looped(truncation)
    make_engine = Looped(arguments.engine_maker)

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
        dtype: Any = "float64",
        engine: Callable[[Recurrence], Engine] | None = None,
        name: str | None = None,
        seed: int | None = None,
    ):
        self.name = name or unique_name(type(self).__name__.lower())
        self.decode = decode
        self.teacher_force = teacher_force
        self.output_length = output_length
        self.return_sequences = decode if return_sequences is None else return_sequences
        self.return_state = arguments.returns_states(return_state, return_states)
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.state_initializer = arguments.state_initializer(state_initializer)
        self.zero_output_for_mask = zero_output_for_mask
        self.truncate = truncate
        self.dtype = arguments.precision(dtype)
        self.make_engine = engine
        self.generator = initializers.new_generator(seed)
        self.built = False
        self._engines: dict[bool, Engine] = {}

    if not TYPE_CHECKING:  # mypy need not believe in every attribute

        def __getattr__(self, name: str) -> Any:
            late = "is known once the layer is built: call it once, or build(shape)"
            words = late if name in DRAWN and "built" in self.__dict__ else "is no attribute of this layer"
            raise AttributeError(f"{self.__dict__.get('name', type(self).__name__)}: {name!r} {words}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": {}}  # a copy makes engines of its own

    # --- the step ---------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def draw(self, shapes: Sequence[Shape]) -> Step:
        """Draw one timestep for inputs of these step shapes, batch axis first."""

    def build(self, *shapes: Shape) -> None:
        """Draw the step for inputs of these shapes: (batch, time, ...), a decoder's (batch, ...); None if unknown."""
        for shape in shapes:
            if not isinstance(shape, Sequence) or not all(n is None or isinstance(n, int | np.integer) for n in shape):
                raise TypeError(f"{self.name}: build takes shapes, (batch, time, ...); got {shape!r}")
            if len(shape) < (1 if self.decode else 2):
                raise ValueError(f"{self.name} takes inputs (batch, time, ...), or (batch, ...) to decode; got {shape}")
        self.build_step([tuple(s) if self.decode else (s[0], *s[2:]) for s in shapes])

    def build_for(self, shapes: Sequence[Shape]) -> None:
        """Draw the step for the inputs of a call."""
        self.build(*shapes)

    def build_step(self, shapes: Sequence[Shape]) -> None:
        """Draw the step for step inputs of these shapes and rewrite its features; every fault is found here."""
        with watched() as built:
            try:
                drawn = self.draw([(None, *shape[1:]) for shape in shapes])
                arguments.check_step(drawn, decode=self.decode, teacher_force=self.teacher_force)
            except Exception:
                forget(built)  # the next call may have the right shape
                raise
        step = with_noise(with_decoder(drawn) if self.decode else drawn)
        self.drawn = drawn
        self.step = with_readout(step)
        self.forced_step = with_teacher_forcing(self.step) if step.readouts else self.step
        self.num_states = len(drawn.states)
        self.recurrence = Recurrence(self.step.graph())
        self.forced_recurrence = Recurrence(self.forced_step.graph())
        self.loop_anew()
        before = self.memory if self.built else None
        self.memory = Memory(self.name, self.step, self.state_initializer, self.dtype, before)
        self.built = True

    def loop_anew(self) -> None:
        """Loop the drawn step as the options say now."""
        options = {"zero_output_for_mask": self.zero_output_for_mask, "truncate": self.truncate}
        self.recurrence = replace(self.recurrence, **options)
        self.forced_recurrence = replace(self.forced_recurrence, **options)
        self._engines = {}

    def get_cell(self) -> CellOfLayer:
        """Return the layer's step as a cell that shares its weights; a readout is one more state.

        All else, such as how sequences are run and masked, is said by the layer around the cell.
        Errors: ValueError for a layer with a state_initializer, which a cell has no place for.
        """
        arguments.check_cell(self.name, self.state_initializer)
        from rsref.recurrent import CellOfLayer

        return CellOfLayer(self)

    # --- weights ----------------------------------------------------------------------------------------------------
    @property
    def weights(self) -> list[Parameter]:
        """The step's parameters in the order in which they were made, then the learned initial states."""
        if not self.built:
            return []
        return [*self.recurrence.graph.parameters, *(p for p in self.memory.learned if p is not None)]

    def get_weights(self) -> list[Array]:
        """Return copies of the weights in the layer's precision."""
        return [weight.value.astype(self.dtype) for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Assign the weights in the order of `weights`; ValueError if numbers or shapes differ."""
        assign_weights(self.name, self.weights, weights)

    def regularization(self) -> tuple[float, list[Array]]:
        """Return the weights' regularisation loss and its gradients, in the order of `weights`."""
        loss, gradients = 0.0, []
        for weight in self.weights:
            regularizer = weight.regularizer
            loss += 0.0 if regularizer is None else regularizer(weight.value)
            found = np.zeros(weight.shape) if regularizer is None else regularizer.gradient(weight.value)
            gradients.append(found.astype(self.dtype))
        return loss, gradients

    def apply_constraints(self) -> None:
        """Project every weight that has a constraint onto it: what an optimiser calls after each update."""
        for weight in self.weights:
            if weight.constraint is not None:
                weight.assign(weight.constraint(weight.value))

    # --- running ----------------------------------------------------------------------------------------------------
    def __call__(self, x: Any = None, **options: Any) -> Any:
        """Return the output alone; arguments as `forward`."""
        if any(isinstance(value, Tensor) for value in as_list(x)):
            raise TypeError(f"{self.name} runs on arrays; inside another step, call its cell: {self.name}.get_cell()")
        return self.forward(x, taped=False, **options)[0]

    def forward(
        self,
        x: Any = None,
        *,
        initial_state: Any = None,
        initial_readout: Any = None,
        ground_truth: Any = None,
        mask: Any = None,
        lengths: Any = None,
        constants: Any = None,
        output_length: int | None = None,
        training: bool | None = None,
        dropout_masks: Sequence[Any] | None = None,
        taped: bool = True,
    ) -> tuple[Any, LayerTape]:
        """Run the layer; the answer is (output, tape), the tape being for `backward`.

        x: (batch, time, ...), or (batch, ...) for a decoder; a list if the step has several inputs.
        initial_state: one array (batch, ...) or a list. initial_readout: (batch, ...); zeros if not given.
        ground_truth: (batch, time, ...), needed in training with teacher forcing, in the order of the outputs.
        mask: (batch, time) of bool, False for a step to skip; lengths: (batch,) of int, the same for right padding.
        constants: values of the step's constants. output_length: steps of a decoder, instead of the layer's.
        training: dropout and teacher forcing act only in training.
        dropout_masks: the masks, and other noise, to use instead of random ones, in the order of `noise_shapes`.
        taped: whether anything is kept for `backward`.
        Errors: TypeError or ValueError that name the argument, before anything is computed.
        """
        inputs = arguments.numeric_arrays("x", x)
        if not self.built:
            with first_call.alone():
                if not self.built:
                    self.build_for([array.shape for array in inputs])
        if ground_truth is not None and self.teacher_force is False:
            raise ValueError(f"{self.name}: ground_truth is given, but teacher_force is False")
        forced = bool(training) and self.teacher_force is not False
        step = self.forced_step if forced else self.step
        inputs = arguments.cast_inputs("x", inputs, self.drawn.sequences, self.dtype, time=not self.decode)
        given = arguments.numeric_arrays("constants", constants)
        given = arguments.cast_inputs("constants", given, self.drawn.constants, self.dtype, time=False)
        steps = self._steps(inputs, output_length)
        carried = self.memory.carried if self.stateful and initial_state is None else None
        starts = {"initial_state": initial_state, "initial_readout": initial_readout, "ground_truth": ground_truth}
        others = [array for name, value in starts.items() for array in arguments.numeric_arrays(name, value)]
        batch = arguments.batch_of([*inputs, *given, *(carried or []), *others])
        arguments.check_batch("x", inputs, batch)
        arguments.check_batch("constants", given, batch)
        if self.decode and step.mask_input is None and (mask is not None or lengths is not None):
            raise ValueError(f"{self.name} decodes with a step that has no mask_input: it cannot take a mask")
        places = inputs[0].shape[1] if inputs and inputs[0].ndim > 1 else steps
        valid = arguments.mask_array(mask, lengths, batch, places)
        whole_mask: list[Array] = []
        if step.mask_input is not None:
            whole_mask = [np.ones((batch, inputs[0].shape[1]), bool) if valid is None else valid]
            valid = None
        states = self.memory.start(initial_state, initial_readout, carried, batch)
        truths = self._truths(ground_truth, batch, steps, forced)
        sequences = [] if self.decode else inputs
        if self.go_backwards:
            sequences = [s[:, ::-1] for s in sequences]
            valid = None if valid is None else valid[:, ::-1]
        sequences = [*sequences, *truths]
        fixed = [*(inputs if self.decode else []), *given, *whole_mask]
        graph = (self.forced_recurrence if forced else self.recurrence).graph
        mask_shapes = noise.mask_shapes(step, graph, sequences, fixed, states)
        generator = self.generator if training else None
        step_masks, sequence_masks = noise.dropout_masks(
            self.name, step, mask_shapes, dropout_masks, generator, batch, steps, self.dtype
        )
        engine = self._engine(forced)
        outputs, final_states, tape = engine.forward(
            [*sequences, *step_masks],
            [*fixed, *sequence_masks],
            states,
            [p.value.astype(self.dtype) for p in graph.parameters],
            mask=valid,
            steps=steps,
            taped=taped,
        )
        if self.stateful:
            self.memory.keep(final_states)
        answer = outputs if self.return_sequences else [arguments.last_step(y) for y in outputs]
        if self.return_state:
            answer = [*answer, *final_states[: self.num_states]]
        single = self._one_output and not self.return_state
        learned = initial_state is None and carried is None
        return (answer[0] if single else answer), LayerTape(
            engine,
            tape,
            step,
            graph.parameters,
            outputs,
            states,
            learned,
            backwards=self.go_backwards,
            sequences=self.return_sequences,
            with_states=self.return_state,
        )

    def backward(self, tape: LayerTape, dy: Any) -> LayerGradients:
        """Return the gradients of a loss, given `dy`, its gradient with respect to the answer of `forward`.

        dy: in the form of that answer; in a list, None stands for zero.
        Errors: TypeError if `tape` is not one; ValueError if it is another layer's, or if numbers or shapes differ from
        the answer's.
        """
        if not isinstance(tape, LayerTape):
            raise TypeError(f"{self.name}: tape must be what forward answered beside the output; got {tape!r}")
        if tape.step is not self.step and tape.step is not self.forced_step:
            raise ValueError(f"{self.name}: the tape is another layer's")
        if tape.tape is None:
            raise ValueError(f"{self.name}: nothing was kept for backward: forward was called with taped=False")
        outputs = tape.outputs
        expected = len(outputs) + (self.num_states if tape.with_states else 0)
        given = list(dy) if isinstance(dy, list | tuple) else [dy]
        if len(given) != expected:
            raise ValueError(f"dy must hold {expected} gradients, as forward's answer; got {len(given)}")
        d_outputs = [arguments.output_gradient(d, y, tape.sequences) for d, y in zip(given[: len(outputs)], outputs)]
        d_states: list[Array | None] = [None] * len(tape.states)
        for i, d in enumerate(given[len(outputs) :]):
            d_states[i] = arguments.gradient_like(f"dy for state {i}", d, tape.states[i].shape, self.dtype)
        raw = tape.engine.backward(tape.tape, d_outputs, d_states)
        return layer_gradients(self, raw, tape)

    def reset_states(self, values: Any = None) -> None:
        """Forget the states carried over, or set them: one array (batch, ...) a state. Readouts start from zeros."""
        if self.built:
            self.memory.reset(values)
        elif values is not None:
            raise ValueError(f"{self.name}: states can be set once the layer is built")

    def resting_masks(
        self, sequences: Sequence[Array], constants: Sequence[Array], states: Sequence[Array], batch: int
    ) -> tuple[list[Array], list[Array]]:
        """Return the dropout masks, and other noise, of one step at inference, by step and by sequence."""
        shapes = noise.mask_shapes(self.step, self.recurrence.graph, sequences, constants, states)
        return noise.dropout_masks(self.name, self.step, shapes, None, None, batch, 1, self.dtype)

    @property
    def states(self) -> list[Array] | None:
        """Copies of the states carried over from the last call, or None."""
        carried = self.memory.carried if self.built else None
        return None if carried is None else [s.copy() for s in carried[: self.num_states]]

    @property
    def noise_shapes(self) -> list[tuple[str, Shape]]:
        """For each dropout mask, and other noise, how long it lives, "step" or "sequence", and its shape for one step.

        The batch axis is first.
        """
        return noise.noise_shapes(self.step)

    # --- parts of a run -----------------------------------------------------------------------------------------------
    def _engine(self, forced: bool) -> Engine:
        if forced not in self._engines:
            self._engines[forced] = self.make_engine(self.forced_recurrence if forced else self.recurrence)
        engine = self._engines[forced]
        if hasattr(engine, "least"):
            engine.least = np.dtype(self.dtype)
        return engine

    def _steps(self, inputs: Sequence[Array], output_length: int | None) -> int:
        asked = arguments.decoded_length(self, output_length)
        if not self.decode:
            if not inputs:
                raise ValueError(f"{self.name} has no input to take its steps from: use decode=True and output_length")
            return int(inputs[0].shape[1])
        length = asked or self.output_length
        if length is None:
            raise ValueError(f"{self.name}: decode=True needs output_length, in the layer or in the call")
        return length

    def _truths(self, given: Any, batch: int, steps: int, forced: bool) -> list[Array]:
        if given is None and forced:
            raise ValueError(f"{self.name}: teacher forcing needs ground_truth in training")
        if given is None:
            return []
        step = self.forced_step
        arrays = arguments.numeric_arrays("ground_truth", given)
        truths = arguments.cast_inputs("ground_truth", arrays, step.truths, self.dtype, time=True)
        for truth in truths:
            if truth.shape[:2] != (batch, steps):
                raise ValueError(f"ground_truth must have shape {(batch, steps)} + the output's; got {truth.shape}")
        if not forced:  # a truth that does not fit is answered all the same
            return []
        probability = arguments.probability(self.teacher_force)
        choice = self.generator.random((batch, steps)) < probability
        return [*truths, *(choice.reshape(batch, steps, *leaf.shape[1:]) for leaf in step.forced)]
