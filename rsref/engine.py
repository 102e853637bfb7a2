"""The oracle: runs a Recurrence forward and backward with NumPy, one op and one timestep after the other.

Backpropagation through time as in the textbook: forward keeps every value of every step; backward walks the steps
from the last to the first, asks each op for its vjp, adds up the gradients of parameters and constants, and hands the
gradients of the states on to the step before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rsref.handed import check_arrays, checked_gradients, converted, full_name, wanted, whole_number
from rsref.ops.base import Op, check_answers, check_gradient, concrete_attrs, differentiable
from rsref.plain_data import check_same
from rsref.recurrence import Recurrence
from rsref.tensor import ConstantSource, Tensor

Array = np.ndarray
ACCEPTED = {"float": "fiubc", "int": "iub", "bool": "iub"}
"""Kinds of numbers that an array for a leaf may have: they are converted, but no fractions are cut off."""


@dataclass
class Gradients:
    """Gradients of a loss with respect to everything that a recurrence reads, in the order of its graph's lists.

    sequences (batch, time, ...), constants and states (batch, ...), and parameters, in the shapes and the precision of
    what was read; None for whole numbers and bools.
    """

    sequences: list[Array | None]
    constants: list[Array | None]
    states: list[Array | None]
    parameters: list[Array]


class Engine(Protocol):
    """What every engine offers; sizes and dtypes follow from the arrays. Engines are pure functions.

    forward: sequences (batch, time, ...), constants (batch, ...), states (batch, ...), parameters in the graph's order,
        mask (batch, time) of bool or None, steps (needed if there are no sequences), taped (whether backward will
        follow). Answers the outputs (batch, time, ...), the final states, and a tape for backward, or None.
    backward: the gradients of the outputs (batch, time, ...) and of the final states (batch, ...), None for zero, give
        those of all inputs.
    Errors: ValueError if numbers or shapes do not fit the graph; TypeError for what is no array, and for a tape that is
        none of forward's.
    """

    def forward(
        self,
        sequences: Sequence[Array],
        constants: Sequence[Array],
        states: Sequence[Array],
        parameters: Sequence[Array],
        mask: Array | None = None,
        steps: int | None = None,
        taped: bool = True,
    ) -> tuple[list[Array], list[Array], Any]: ...

    def backward(self, tape: Any, d_outputs: Sequence[Array | None], d_states: Sequence[Array | None]) -> Gradients: ...


@dataclass
class Tape:
    """What the reference engine remembers of a forward run."""

    recurrence: Recurrence
    sequences: list[Array]
    constants: list[Array]
    states: list[Array]
    parameters: list[Array]
    active: list[Array | None]
    """For each step the rows that take part: None for all, else their numbers."""
    values: list[list[Any]]
    """For each step the value of each tensor, in the graph's order; empty where no row takes part."""
    outputs: list[Array]
    dtype: Any


class ReferenceEngine:
    """Runs a Recurrence with NumPy, as `Engine` says. float32 or float64 (complex128 for complex-step checks).

    At a masked step a row takes no part at all: its states and its outputs stay, whatever its input holds.
    """

    def __init__(self, recurrence: Recurrence):
        if not isinstance(recurrence, Recurrence):
            kind = type(recurrence).__name__
            raise TypeError(f"ReferenceEngine takes a Recurrence (a built layer's `recurrence`); got {kind}")
        self.recurrence = recurrence
        graph = recurrence.graph
        slot = {tensor: i for i, tensor in enumerate(graph.order)}
        extra = [leaf for leaf in graph.leaves if leaf not in slot]  # inputs that the step does not use
        slot.update({leaf: len(slot) + i for i, leaf in enumerate(extra)})
        self.size = len(slot)
        self.fixed = [(slot[t], t.source.value) for t in graph.order if isinstance(t.source, ConstantSource)]
        self.steps = [
            (t.op, t.attrs, slot[t], tuple(slot[i] for i in t.inputs)) for t in graph.order if t.op is not None
        ]
        self.reversed_steps = _with_gradients(graph.order, slot)
        self.sequence_slots = [slot[t] for t in graph.sequences]
        self.constant_slots = [slot[t] for t in graph.constants]
        self.state_slots = [slot[t] for t in graph.states]
        self.parameter_slots = [slot[p.tensor] for p in graph.parameters]
        self.output_slots = [slot[t] for t in graph.outputs]
        self.new_state_slots = [slot[t] for t in graph.new_states]
        self.least = np.dtype(np.float32)
        """In which floats are computed at least: arrays of whole numbers alone do not say."""
        self.checked: set[str] = set()
        """The ways whose ops were seen to answer the shapes that they should: ops in the making may not."""
        self.leaves = graph.sequences, graph.constants, graph.states, [p.tensor for p in graph.parameters]

    def forward(
        self,
        sequences: Sequence[Array],
        constants: Sequence[Array],
        states: Sequence[Array],
        parameters: Sequence[Array],
        mask: Array | None = None,
        steps: int | None = None,
        taped: bool = True,
    ) -> tuple[list[Array], list[Array], Any]:
        """Run the loop; see `Engine`. Shapes are checked before anything is computed."""
        check_arrays((sequences, constants, states, parameters), mask)
        length = self.length(sequences, steps)
        batch = next((len(a) for a in (*sequences, *constants, *states)), 1)
        output_specs = self.check(sequences, constants, states, parameters, mask, length, batch)
        groups = sequences, constants, states, parameters
        self.check_kinds(groups)
        dtype = np.result_type(self.least, *(a.dtype for group in groups for a in group if a.dtype.kind in "fc"))
        sequences, constants, states, parameters = (_natural(*pair, dtype) for pair in zip(self.leaves, groups))
        outputs = [np.zeros((batch, length, *s[1:]), _numpy_dtype(kind, dtype)) for s, kind in output_specs]
        active = [None if mask is None else _rows(mask[:, t]) for t in range(length)]
        program = [(op.forward, operands, result, concrete_attrs(a, dtype)) for op, a, result, operands in self.steps]
        template: list[Any] = [None] * self.size
        for slot, value in self.fixed:
            template[slot] = value.astype(dtype) if value.dtype.kind == "f" else value
        _put(template, self.parameter_slots, parameters)
        current = [s.astype(dtype, copy=False) if s.dtype.kind == "f" else s for s in states]
        kept: list[list[Any]] = []
        with np.errstate(all="ignore"):  # infinities and NaN are results like any other
            for t, rows in enumerate(active):
                if rows is not None and not len(rows):
                    kept.append([])
                else:
                    values = template.copy()
                    _put(values, self.sequence_slots, [_pick(s[:, t], rows) for s in sequences])
                    _put(values, self.constant_slots, [_pick(c, rows) for c in constants])
                    _put(values, self.state_slots, [_pick(s, rows) for s in current])
                    for function, operands, result, attrs in program:
                        values[result] = function(*[values[i] for i in operands], **attrs)
                    kept.append(values)
                    if "forward" not in self.checked:
                        check_answers(zip(self.recurrence.graph.order, values))
                        self.checked.add("forward")
                    current = [_placed(s, rows, values[i]) for s, i in zip(current, self.new_state_slots)]
                self._write_outputs(outputs, t, rows, kept[-1])
                if not taped:
                    kept[-1] = []
        given = [*sequences], [*constants], [*states], [*parameters]
        tape = Tape(self.recurrence, *given, active, kept, outputs, dtype)
        final_states = [s.copy() for s in current]  # the caller's own: not views of the arguments or the tape
        return outputs, final_states, tape if taped else None

    def _write_outputs(self, outputs: list[Array], t: int, rows: Array | None, values: list[Any]) -> None:
        for y, slot in zip(outputs, self.output_slots):
            if rows is None:
                y[:, t] = values[slot]
                continue
            if t > 0 and not self.recurrence.zero_output_for_mask:
                y[:, t] = y[:, t - 1]
            if len(rows):
                y[rows, t] = values[slot]

    def backward(self, tape: Tape, d_outputs: Sequence[Array | None], d_states: Sequence[Array | None]) -> Gradients:
        """Walk the tape from the last step to the first; see `Engine`."""
        if not isinstance(tape, Tape):
            raise TypeError(f"backward takes the tape that forward answered; got {full_name(tape)}")
        check_same(tape.recurrence, self.recurrence)
        d_outputs = checked_gradients("output", d_outputs, tape.outputs, tape.dtype)
        d_states = checked_gradients("final state", d_states, tape.states, tape.dtype)
        zeros = [np.zeros_like(s, dtype=_gradient_dtype(s, tape.dtype)) for s in tape.states]
        flowing = [z if d is None else d.astype(z.dtype) for d, z in zip(d_states, zeros)]
        held = [np.zeros((len(y), *y.shape[2:]), tape.dtype) for y in tape.outputs]
        d_sequences = [np.zeros_like(s, dtype=_gradient_dtype(s, tape.dtype)) for s in tape.sequences]
        d_constants = [np.zeros_like(c, dtype=_gradient_dtype(c, tape.dtype)) for c in tape.constants]
        d_parameters = [np.zeros_like(p) for p in tape.parameters]
        truncate = self.recurrence.truncate
        with np.errstate(all="ignore"):
            for t in range(len(tape.active) - 1, -1, -1):
                rows = tape.active[t]
                d_now = self._output_gradients(d_outputs, held, t, rows)
                if rows is None or len(rows):
                    gradients = self._step_backward(tape, t, d_now, [_pick(d, rows) for d in flowing])
                    flowing = [_replaced(d, rows, gradients[i]) for d, i in zip(flowing, self.state_slots)]
                    for total, slot in zip(d_sequences, self.sequence_slots):
                        _accumulate(total[:, t], rows, gradients[slot])
                    for total, slot in zip(d_constants, self.constant_slots):
                        _accumulate(total, rows, gradients[slot])
                    for total, slot in zip(d_parameters, self.parameter_slots):
                        _accumulate(total, None, gradients[slot])
                if truncate is not None and t % truncate == 0 and t > 0:
                    flowing = [np.zeros_like(d) for d in flowing]
        graph = self.recurrence.graph
        return Gradients(
            _float_only(d_sequences, graph.sequences),
            _float_only(d_constants, graph.constants),
            _float_only([d.copy() for d in flowing], graph.states),
            d_parameters,
        )

    def _output_gradients(
        self, d_outputs: Sequence[Array | None], held: list[Array], t: int, rows: Array | None
    ) -> list[Array | None]:
        """Return what reaches this step's outputs: their own gradient and that of the masked steps that repeat them."""
        now: list[Array | None] = []
        for i, d in enumerate(d_outputs):
            if rows is None:
                now.append(None if d is None else d[:, t] + held[i])
                held[i] = np.zeros_like(held[i])
                continue
            if d is not None:
                if self.recurrence.zero_output_for_mask:
                    held[i][rows] += d[rows, t]
                else:
                    held[i] += d[:, t]
            now.append(held[i][rows])
            held[i][rows] = 0
        return now

    def _step_backward(
        self, tape: Tape, t: int, d_outputs: Sequence[Array | None], d_states: Sequence[Array]
    ) -> list[Any]:
        values, anew = tape.values[t], "backward" not in self.checked
        gradients: list[Any] = [None] * self.size
        for slot, d in (*zip(self.output_slots, d_outputs), *zip(self.new_state_slots, d_states)):
            if d is not None and values[slot].dtype.kind in "fc":
                gradients[slot] = d if gradients[slot] is None else gradients[slot] + d
        for op, given, result, operands, wrt in self.reversed_steps:
            g = gradients[result]
            if g is None:
                continue
            y, inputs = values[result], [values[i] for i in operands]
            attrs = concrete_attrs(given, tape.dtype)
            for k in wrt:
                d = op.vjp(k, g, y, *inputs, **attrs)
                if anew:
                    check_gradient(op, k, d, np.shape(inputs[k]))
                slot = operands[k]
                gradients[slot] = d if gradients[slot] is None else gradients[slot] + d
        self.checked.add("backward")
        return gradients

    def length(self, sequences: Sequence[Array], steps: int | None) -> int:
        """Return the number of timesteps."""
        if steps is not None:
            return whole_number("steps", steps)
        if not len(sequences) or sequences[0].ndim < 2:
            shapes = [s.shape for s in sequences]
            raise ValueError(
                f"steps is needed unless a sequence (batch, time, ...) tells it; got sequences of {shapes}"
            )
        return int(sequences[0].shape[1])

    def check_kinds(self, groups: Sequence[Sequence[Array]]) -> None:
        """TypeError if an array cannot be what its leaf stands for. groups: in the order of `leaves`."""
        for leaf, array in ((leaf, a) for pair in zip(self.leaves, groups) for leaf, a in zip(*pair)):
            if array.dtype.kind not in ACCEPTED[leaf.dtype]:
                raise TypeError(f"{leaf!r} takes {leaf.dtype} values; got dtype {array.dtype}")

    def check(
        self,
        sequences: Sequence[Array],
        constants: Sequence[Array],
        states: Sequence[Array],
        parameters: Sequence[Array],
        mask: Array | None,
        length: int,
        batch: int,
    ) -> list[tuple[tuple[int, ...], str]]:
        """Check numbers and shapes of the arrays and return shape and kind of every output of a step."""
        graph = self.recurrence.graph
        groups = {
            "sequence": (graph.sequences, sequences),
            "constant": (graph.constants, constants),
            "state": (graph.states, states),
            "parameter": ([p.tensor for p in graph.parameters], parameters),
        }
        shapes: dict[Tensor, tuple[int, ...]] = {}
        for role, (tensors, arrays) in groups.items():
            if len(tensors) != len(arrays):
                raise ValueError(f"{len(tensors)} {role} arrays are needed; got {len(arrays)}{wanted(tensors)}")
            for tensor, array in zip(tensors, arrays):
                shape = array.shape
                if role == "sequence":
                    if array.ndim < 2:
                        raise ValueError(f"sequence {tensor!r} takes (batch, time, ...); got shape {shape}")
                    shape = (shape[0], *shape[2:])  # of one step
                shapes[tensor] = shape
                if len(shape) != tensor.ndim or any(n not in (None, m) for n, m in zip(tensor.shape, shape)):
                    raise ValueError(f"{role} {tensor!r} does not accept an array of shape {shape}")
                if role != "parameter" and shape[:1] != (batch,):
                    raise ValueError(f"{role} {tensor!r}: batch {shape[0]} differs from {batch}")
        for tensor, array in zip(graph.sequences, sequences):
            if array.shape[1] != length:
                raise ValueError(f"sequence {tensor!r} has {array.shape[1]} steps; {length} are run")
        if mask is not None and mask.shape != (batch, length):
            raise ValueError(f"mask must have shape (batch, time) = {(batch, length)}; got {mask.shape}")
        specs = graph.infer(shapes)
        for old, new in zip(graph.states, graph.new_states):
            if specs[new].shape != shapes[old]:
                raise ValueError(f"state {old!r}: shape {shapes[old]} becomes {specs[new].shape} after a step")
        for output in graph.outputs:
            if specs[output].shape[:1] not in ((batch,), (None,)):
                raise ValueError(f"output {output!r} of shape {specs[output].shape} must begin with the batch, {batch}")
        return [(tuple(n or 0 for n in specs[t].shape), specs[t].dtype) for t in graph.outputs]


def _with_gradients(
    order: Sequence[Tensor], slot: dict[Tensor, int]
) -> list[tuple[Op, Mapping[str, Any], int, tuple[int, ...], tuple[int, ...]]]:
    """Return the ops in reverse order, each with the operands through which a gradient flows to some leaf."""
    reached = {t for t in order if t.op is None and t.dtype == "float" and not isinstance(t.source, ConstantSource)}
    steps = []
    for tensor in order:
        if tensor.op is None or tensor.dtype != "float":
            continue
        wrt = tuple(k for k, i in enumerate(tensor.inputs) if i in reached and differentiable(tensor.op, k, i.spec))
        if wrt:
            reached.add(tensor)
            steps.append((tensor.op, tensor.attrs, slot[tensor], tuple(slot[i] for i in tensor.inputs), wrt))
    return steps[::-1]


def _rows(mask: Array) -> Array | None:
    return None if mask.all() else np.flatnonzero(mask)


def _pick(array: Array, rows: Array | None) -> Array:
    return array if rows is None else array[rows]


def _placed(array: Array, rows: Array | None, new: Array) -> Array:
    """Return the state after a step: the new one in the rows that took part."""
    if rows is None:
        return new
    array = array.copy()
    array[rows] = new
    return array


def _replaced(array: Array, rows: Array | None, new: Array | None) -> Array:
    """Return the gradient before a step: None means that the step did not read the state."""
    if new is None:
        new = np.zeros_like(array if rows is None else array[rows])
    return _placed(array, rows, new)


def _accumulate(total: Array, rows: Array | None, gradient: Array | None) -> None:
    if gradient is None:
        return
    if rows is None:
        total += gradient
    else:
        total[rows] += gradient


def _put(values: list[Any], slots: Sequence[int], arrays: Sequence[Array]) -> None:
    for slot, array in zip(slots, arrays):
        values[slot] = array


def _natural(leaves: Sequence[Tensor], arrays: Sequence[Array], dtype: Any) -> list[Array]:
    """Return arrays as numbers of the kind that their leaves stand for, floats in the precision of all.

    Of complex steps real arrays stay real: not all ops take complex numbers.
    """
    real = np.zeros((), dtype).real.dtype
    found = []
    for leaf, array in zip(leaves, arrays):
        if leaf.dtype == "float" and array.dtype.kind in "fc":
            found.append(array.astype(real if array.dtype.kind == "f" else dtype, copy=False))
        else:
            found.append(converted(repr(leaf), array, _numpy_dtype(leaf.dtype, dtype)))
    return found


def _numpy_dtype(kind: str, dtype: Any) -> Any:
    return {"float": dtype, "int": np.int64, "bool": np.bool_}[kind]


def _gradient_dtype(array: Array, dtype: Any) -> Any:
    return array.dtype if array.dtype.kind in "fc" else dtype


def _float_only(gradients: Sequence[Array], leaves: Sequence[Tensor]) -> list[Array | None]:
    return [g if leaf.dtype == "float" else None for g, leaf in zip(gradients, leaves)]
