"""One timestep as a graph: its order, its validation, and graphs put into graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rsref.ops.base import compatible
from rsref.ops.pointwise import broadcast_like, cast
from rsref.tensor import (
    ConstantSource,
    InputSource,
    NoiseSource,
    Parameter,
    Spec,
    Tensor,
    constant,
    noise,
)


def topological_order(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Return every tensor that the outputs are computed from, each after its operands."""
    order: list[Tensor] = []
    done: set[Tensor] = set()
    stack = [(tensor, False) for tensor in reversed(list(outputs))]
    while stack:
        tensor, visited = stack.pop()
        if tensor in done:
            continue
        if visited:
            done.add(tensor)
            order.append(tensor)
        else:
            stack.append((tensor, True))
            stack.extend((operand, False) for operand in reversed(tensor.inputs) if operand not in done)
    return order


def substitute(outputs: Sequence[Tensor], replacements: Mapping[Tensor, Tensor]) -> list[Tensor]:
    """Return the outputs drawn again with some tensors replaced; noise leaves are drawn anew, parameters are shared.

    Errors: ValueError or TypeError, from the op's own rule, if the shapes do not fit any more.
    """
    new: dict[Tensor, Tensor] = dict(replacements)
    for tensor in topological_order(outputs):
        if tensor in new:
            continue
        if isinstance(tensor.source, NoiseSource):
            new[tensor] = noise(tensor.shape, *tensor.source)
        elif tensor.op is None:
            new[tensor] = tensor
        else:
            operands = [new[operand] for operand in tensor.inputs]
            if all(operand is old for operand, old in zip(operands, tensor.inputs)):
                new[tensor] = tensor
            else:
                spec = tensor.op.infer(*(operand.spec for operand in operands), **tensor.attrs)
                new[tensor] = Tensor(spec, op=tensor.op, inputs=operands, attrs=tensor.attrs, name=tensor.name)
    return [new[output] for output in outputs]


def noise_leaves(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Return the noise that the outputs depend on."""
    return [tensor for tensor in topological_order(outputs) if isinstance(tensor.source, NoiseSource)]


def parameters_of(outputs: Iterable[Tensor]) -> list[Parameter]:
    """Return the parameters that the outputs depend on, in the order in which they were made."""
    found = [tensor.source for tensor in topological_order(outputs) if isinstance(tensor.source, Parameter)]
    return sorted(found, key=lambda parameter: parameter.serial)


class StepGraph:
    """One timestep: what the loop feeds in, what comes out. Immutable, and valid once built.

    sequences: leaves that receive one slice a step; shapes (batch, ...), without the time axis.
    constants: leaves that receive the same whole value at every step, batch axis first.
    states, new_states: what a step reads and what it leaves for the next; equally many, shapes pairwise equal.
    outputs: what a step gives out.
    parameters: found in the graph, in the order in which they were made.
    Errors: TypeError if something is not a Tensor of the right kind; ValueError if states do not match or the step
        needs a leaf that none of the lists names.
    """

    def __init__(
        self,
        *,
        sequences: Sequence[Tensor] = (),
        constants: Sequence[Tensor] = (),
        states: Sequence[Tensor] = (),
        outputs: Sequence[Tensor] = (),
        new_states: Sequence[Tensor] = (),
    ):
        self.sequences = tuple(sequences)
        self.constants = tuple(constants)
        self.states = tuple(states)
        self.outputs = tuple(outputs)
        self.new_states = tuple(new_states)
        self._check_leaves()
        self._check_states()
        self.order = tuple(topological_order((*self.outputs, *self.new_states)))
        self._check_closed()
        self.parameters = tuple(parameters_of((*self.outputs, *self.new_states)))

    def with_results(self, results: Sequence[Tensor]) -> StepGraph:
        """Return a step with the same inputs and other results: its outputs, then its new states."""
        count = len(self.outputs)
        return StepGraph(
            sequences=self.sequences,
            constants=self.constants,
            states=self.states,
            outputs=results[:count],
            new_states=results[count:],
        )

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Sequences, constants, states and parameters, in this order."""
        return (*self.sequences, *self.constants, *self.states, *(p.tensor for p in self.parameters))

    def _check_leaves(self) -> None:
        roles = {"sequence": self.sequences, "constant": self.constants, "state": self.states}
        seen: dict[Tensor, str] = {}
        for role, tensors in roles.items():
            for tensor in tensors:
                if not isinstance(tensor, Tensor):
                    raise TypeError(f"a {role} of a step must be a Tensor made by rsref.Input; got {tensor!r}")
                if not isinstance(tensor.source, InputSource | NoiseSource):
                    raise ValueError(f"a {role} of a step must be an Input, not a computed tensor; got {tensor!r}")
                if tensor in seen:
                    raise ValueError(f"{tensor!r} is named twice: as {seen[tensor]} and as {role}")
                seen[tensor] = role
        for tensor in (*self.outputs, *self.new_states):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"outputs and final states of a step must be Tensors; got {tensor!r}")

    def _check_states(self) -> None:
        if len(self.states) != len(self.new_states):
            raise ValueError(
                f"initial_states and final_states must be equally many; "
                f"got {len(self.states)} and {len(self.new_states)}"
            )
        for i, (old, new) in enumerate(zip(self.states, self.new_states)):
            if not compatible(old.shape, new.shape) or old.dtype != new.dtype:
                raise ValueError(
                    f"state {i}: the initial state {old!r} and the final state {new!r} must have the same shape and "
                    f"dtype"
                )

    def _check_closed(self) -> None:
        known = {*self.sequences, *self.constants, *self.states}
        for tensor in self.order:
            if isinstance(tensor.source, InputSource | NoiseSource) and tensor not in known:
                target = next(t for t in (*self.outputs, *self.new_states) if tensor in topological_order([t]))
                role = "output" if target in self.outputs else "final state"
                raise ValueError(
                    f"the {role} {target!r} is not computed from the step's inputs: it needs {tensor!r}, which is "
                    f"not among them (given: {', '.join(repr(t) for t in known) or 'none'})"
                )

    def infer(self, shapes: Mapping[Tensor, tuple[int, ...]]) -> dict[Tensor, Spec]:
        """Return the shape and dtype of every tensor when the leaves have the given shapes.

        Errors: ValueError, naming the op and the shapes, if they do not fit together.
        """
        specs: dict[Tensor, Spec] = {}
        for tensor in self.order:
            if tensor.op is not None:
                specs[tensor] = tensor.op.infer(*(specs[operand] for operand in tensor.inputs), **tensor.attrs)
            elif isinstance(tensor.source, ConstantSource | Parameter):
                specs[tensor] = Spec(tensor.shape, tensor.dtype)
            else:
                specs[tensor] = Spec(tuple(shapes[tensor]), tensor.dtype)
        return specs


class Model:
    """A drawn function from tensors to tensors that can be put into another drawing: `model([x, h])`.

    inputs, outputs: one Tensor or a list; called with as many tensors as inputs, it answers in the form of outputs.
    mask_input: a leaf that receives the mask of the first input, a whole sequence (batch, time) of bool; None if the
        model has no use for one. A call that gives no mask lets every place count.
    Weights are shared between calls. Integers and booleans become what the model's inputs are drawn for. Errors: as
    `StepGraph`, ValueError for a wrong number or shape of tensors, and TypeError for floats where an input takes
    integers or booleans.
    """

    def __init__(
        self,
        inputs: Tensor | Sequence[Tensor],
        outputs: Tensor | Sequence[Tensor],
        name: str | None = None,
        mask_input: Tensor | None = None,
    ):
        self.name = name or "model"
        self.mask_input = mask_input
        self._one_output = isinstance(outputs, Tensor)
        self.inputs = as_list(inputs)
        self.outputs = as_list(outputs)
        masks = noise_leaves(t for t in self.outputs if isinstance(t, Tensor))
        StepGraph(constants=[*self.inputs, *as_list(mask_input), *masks], outputs=self.outputs)

    @property
    def parameters(self) -> list[Parameter]:
        return parameters_of(self.outputs)

    def __call__(self, inputs: Tensor | Sequence[Tensor], mask: Tensor | None = None) -> Any:
        given = as_list(inputs)
        check_mask(self.name, mask)
        if len(given) != len(self.inputs):
            raise ValueError(f"{self.name} takes {len(self.inputs)} tensors; got {len(given)}")
        for own, tensor in zip(self.inputs, given):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{self.name} takes Tensors; got {type(tensor).__name__}")
            if not compatible(own.shape, tensor.shape):
                raise ValueError(f"{self.name}: input {own!r} does not accept {tensor!r}")
            if own.dtype != "float" and tensor.dtype == "float":
                raise TypeError(f"{self.name}: input {own!r} takes {own.dtype} values; got {tensor!r}")
        # an op drawn for floats is not what is drawn for integers: `x + x` of bools would be `or`
        replacements = {own: cast(tensor, own.dtype) for own, tensor in zip(self.inputs, given)}
        if self.mask_input is not None:
            replacements[self.mask_input] = _every_place(given[0]) if mask is None else mask
        elif mask is not None:
            raise ValueError(f"{self.name} has no mask_input: it cannot take a mask")
        outputs = substitute(self.outputs, replacements)
        return outputs[0] if self._one_output else outputs


def _every_place(x: Tensor) -> Tensor:
    """Return a mask (batch, time), true everywhere, for a tensor (batch, time, ...)."""
    places = x[(slice(None), slice(None), *[0] * (x.ndim - 2))]
    mask: Tensor = broadcast_like(constant(True), places)
    return mask


def check_mask(name: str, mask: Any) -> None:
    """Say that tensors are handed in one list to whom hands more of them, as Keras's cells take their states."""
    if not (mask is None or isinstance(mask, Tensor)):
        raise TypeError(
            f"{name} takes its tensors in one list, [x, state, ...]; what follows it is a mask, a Tensor; "
            f"got {type(mask).__name__}"
        )


def readers_of(tensors: Iterable[Tensor]) -> dict[Tensor, list[Tensor]]:
    """Return which tensors read each one that is an operand, once for each place where it stands."""
    found: dict[Tensor, list[Tensor]] = {}
    for tensor in tensors:
        for operand in tensor.inputs:
            found.setdefault(operand, []).append(tensor)
    return found


def as_list(value: Any) -> list[Any]:
    """Return a list of one or of several; None is no element."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
