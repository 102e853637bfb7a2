"""Faults of a drawn step and of a call, answered before anything is computed, by the names of the arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from rsref.arguments import decoded_length
from rsref.graph import as_list
from rsref.recurrence import Step


def is_float(tensor: Any) -> bool:
    """Whether a tensor, symbolic or not, holds floating numbers."""
    return "float" in str(tensor.dtype)  # every backend's own dtypes say so, and this is asked often


def cast(value: Any, dtype: str) -> Any:
    """Return a value as a tensor of a dtype; one that is such a tensor as it is, which saves a call of the backend."""
    if keras.ops.is_tensor(value) and keras.backend.standardize_dtype(value.dtype) == dtype:
        return value
    return keras.ops.cast(value, dtype)


def cast_all(values: Iterable[Any], leaves: Iterable[Any], precision: str) -> list[Any]:
    """Return values as the tensors that a step's inputs stand for. precision: the dtype of floats."""
    return [cast(value, precision if is_float(leaf) else leaf.dtype) for value, leaf in zip(values, leaves)]


CALLED = ("sequences", "initial_state", "initial_readout", "ground_truth", "constants", "mask")
"""The arguments of a recurrent layer's call that hold tensors, in their order."""


def check_kinds(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise TypeError, naming the argument, for arrays or tensors of what is no real number among those of a call.

    Before Keras sees them: what it says of them is each backend's own, and on JAX it makes NaN of None.
    """
    for argument, value in (*zip(CALLED, args), *kwargs.items()):
        if argument == "sequences" and not _holds_tensors(value):
            raise TypeError(f"{name}: sequences must be a tensor, or a list of tensors; got {value!r}")
        for one in _each(value):
            dtype = getattr(one, "dtype", None)
            if dtype.kind in "OSUTMmc" if isinstance(dtype, np.dtype) else re.search("complex|string", str(dtype)):
                raise TypeError(f"{name}: {argument} must hold numbers or booleans; got dtype {dtype}")


def _holds_tensors(value: Any) -> bool:
    """Whether this is a tensor or a list of them, as far as can be told before Keras makes tensors of numbers."""
    given = as_list(value)
    return bool(given) and not any(one is None or isinstance(one, Mapping) for one in given)


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _each(one)
    else:
        yield value


def plain(number: Any) -> Any:
    """Return one of NumPy's numbers as Python's, and anything else as it is."""
    return number.item() if isinstance(number, np.number | np.bool_) else number


def stateful_in_a_graph(name: str) -> ValueError:
    """Return the error for a layer whose states an exported graph would not carry over."""
    return ValueError(
        f"{name} is stateful, and the exported graph would carry no states over: let initial_state be an input of the "
        "model, and return_state=True give its outputs"
    )


def check_drawn(step: Step) -> None:
    """Raise TypeError or ValueError, naming the argument, if what a user drew is not a step."""
    masks = [] if step.mask_input is None else [step.mask_input]
    named: dict[str, list[Any]] = {
        "input": list(step.sequences),
        "constants": list(step.constants),
        "output": list(step.outputs),
        "initial_states": list(step.states),
        "final_states": list(step.new_states),
        "readout_input": list(step.readouts),
        "mask_input": masks,
    }
    for name, tensors in named.items():
        for tensor in tensors:
            if not isinstance(tensor, keras.KerasTensor):
                kind = type(tensor)
                raise TypeError(
                    f"{name} must hold tensors drawn from keras.Input; got {kind.__module__}.{kind.__qualname__}"
                )
    if not step.outputs:
        raise ValueError("output: a step needs at least one output tensor; got none")
    if not step.sequences:
        raise ValueError(
            "input: a step needs at least one input tensor, which receives one slice of the sequence a step"
        )
    leaves = [*step.sequences, *step.constants, *step.states, *step.readouts, *masks]
    for name in ("input", "constants", "initial_states", "readout_input", "mask_input"):
        for tensor in named[name]:
            if not _is_input(tensor):
                raise ValueError(
                    f"{name} must hold tensors made by keras.Input, not computed ones; got {_show(tensor)}"
                )
    if len({id(tensor) for tensor in leaves}) != len(leaves):
        raise ValueError("a tensor is named twice among input, constants, initial_states, readout_input and mask_input")
    known = {id(tensor) for tensor in leaves}
    for name in ("output", "final_states"):
        for tensor in named[name]:
            _check_origin(name, tensor, known)


def check_step(step: Step, decode: bool, forced: bool) -> None:
    """Raise ValueError, naming the argument, if the parts of a step or the layer's options do not fit together."""
    if len(step.states) != len(step.new_states):
        raise ValueError(
            f"initial_states and final_states must be equally many; got {len(step.states)} and {len(step.new_states)}"
        )
    for i, (old, new) in enumerate(zip(step.states, step.new_states)):
        if tuple(old.shape) != tuple(new.shape):
            raise ValueError(
                f"state {i}: the initial state {_show(old)} and the final state {_show(new)} must have the same shape"
            )
    if len(step.readouts) > len(step.outputs):
        raise ValueError(f"readout_input: {len(step.readouts)} are given for {len(step.outputs)} outputs")
    for readout, output in zip(step.readouts, step.outputs):
        if tuple(readout.shape) != tuple(output.shape):
            raise ValueError(f"readout_input {_show(readout)} must have the shape of the output {_show(output)}")
    if forced and not step.readouts:
        raise ValueError("teacher_force needs a readout: give readout_input, or readout=... in RecurrentSequential")
    if step.mask_input is not None and not decode:
        raise ValueError("mask_input needs decode=True: without it the loop itself reads the mask")


def _check_origin(name: str, tensor: Any, known: set[int]) -> None:
    """Raise ValueError if a result needs an input that is not named, or a variable that no layer owns."""
    for node, leaf in _nodes_behind(tensor):
        if node.is_input and id(leaf) not in known:
            raise ValueError(
                f"{name} {_show(tensor)} is not computed from the step's inputs: it needs {_show(leaf)}, which "
                f"is not among input, constants, initial_states and readout_input"
            )
        for argument in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if isinstance(argument, keras.Variable):
                raise ValueError(
                    f"{name} {_show(tensor)} uses the variable {argument.path!r} in a bare operation: it would be "
                    f"neither trained nor saved; make it a weight of a layer (add_weight) and call the layer"
                )


def check_call(
    layer: Any,
    shapes: list[tuple[int | None, ...]],
    states: Sequence[Any] = (),
    readouts: Sequence[Any] = (),
    truths: Sequence[Any] = (),
    constants: Sequence[Any] = (),
    masks: Sequence[Any] = (),
    output_length: int | None = None,
) -> None:
    """Raise TypeError or ValueError, naming layer and argument, if the arguments of a call do not fit the step."""
    drawn, name = layer.drawn, layer.name
    decoded_length(layer, output_length)
    if layer.decode and output_length is None and layer.output_length is None:
        raise ValueError(f"{name}: decode=True needs output_length, in the layer or in the call")
    check_sequences(layer, shapes)
    known_steps = (output_length or layer.output_length) if layer.decode else shapes[0][1]
    if layer.decode and drawn.mask_input is None and any(mask is not None for mask in masks):
        raise ValueError(f"{name} decodes with a step that has no mask_input: it cannot take a mask")
    for mask in masks:
        if mask is not None and not hasattr(mask, "shape"):
            raise TypeError(f"{name}: mask must be a tensor of booleans, (batch, time); got {mask!r}")
        if mask is not None and not _fits(tuple(mask.shape), shapes[0][:2]):
            raise ValueError(f"{name}: mask must have shape (batch, time) = {shapes[0][:2]}; got {tuple(mask.shape)}")
    if readouts and not drawn.readouts:
        raise ValueError(f"{name} has no readout: initial_readout is not accepted")
    batch = shapes[0][0]
    if states:
        check_values(name, "initial_state", drawn.states, states, batch)
    if readouts:
        check_values(name, "initial_readout", drawn.readouts, readouts, batch)
    if len(constants) != len(drawn.constants):
        raise ValueError(f"{name}: constants must hold {len(drawn.constants)} tensors; got {len(constants)}")
    check_values(name, "constants", drawn.constants, constants, batch)
    if truths and layer.teacher_force is False:
        raise ValueError(f"{name}: ground_truth is given, but teacher_force is False")
    if truths:
        if len(truths) != len(drawn.readouts):
            raise ValueError(f"{name}: ground_truth must hold {len(drawn.readouts)} tensors; got {len(truths)}")
        for truth, readout in zip(truths, drawn.readouts):
            expected = (shapes[0][0], known_steps, *readout.shape[1:])
            if not _fits(tuple(truth.shape), expected):
                raise ValueError(f"{name}: ground_truth must have shape {expected}; got {tuple(truth.shape)}")


def check_sequences(layer: Any, shapes: list[tuple[int | None, ...]]) -> None:
    """Raise ValueError, naming the layer, if inputs of these shapes do not fit its step."""
    slices, name = layer.drawn.sequences, layer.name
    if len(shapes) != len(slices):
        raise ValueError(f"{name} takes {len(slices)} sequences; got {len(shapes)}")
    for own, shape in zip(slices, shapes):
        expected = tuple(own.shape) if layer.decode else (own.shape[0], None, *own.shape[1:])
        words = "the whole input of a decoder" if layer.decode else "(batch, time, ...)"
        if not _fits(shape, expected):
            raise ValueError(f"{name}: an input of shape {shape} is given where {expected}, {words}, is needed")
        shared = 1 if layer.decode else 2
        if not _fits(shape[:shared], shapes[0][:shared]):
            raise ValueError(f"{name}: sequences must agree in batch and time; got the shapes {shapes}")


def check_values(layer: str, name: str, leaves: Sequence[Any], values: Sequence[Any], batch: int | None = None) -> None:
    """Raise TypeError or ValueError, naming the argument, if values do not fit the step's inputs.

    batch: how many samples there are, if that is known.
    """
    for value in values:
        if not hasattr(value, "shape"):
            raise TypeError(f"{layer}: {name} must hold tensors; got {value!r}")
    if len(values) != len(leaves):
        raise ValueError(f"{layer}: {name} must hold {len(leaves)} tensors; got {len(values)}")
    for value, leaf in zip(values, leaves):
        expected = (batch if leaf.shape[0] is None else leaf.shape[0], *leaf.shape[1:])
        if not _fits(tuple(value.shape), expected):
            raise ValueError(f"{layer}: {name}: shape {tuple(value.shape)} is given where {expected} is needed")


def _fits(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(None in (n, m) or n == m for n, m in zip(shape, expected))


def _show(tensor: Any) -> str:
    return f"<{tensor.name} {tuple(tensor.shape)}>"


def _is_input(tensor: Any) -> bool:
    history = getattr(tensor, "_keras_history", None)
    return history is not None and history.operation._inbound_nodes[history.node_index].is_input


def _nodes_behind(output: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each node that a tensor is computed from, with one of its tensors."""
    seen, stack = set(), [output]
    while stack:
        tensor = stack.pop()
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) not in seen:
            seen.add(id(node))
            yield node, tensor
            stack.extend(node.input_tensors)
