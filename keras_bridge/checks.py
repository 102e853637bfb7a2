"""Faults of a drawn step and of a call, answered before anything is computed, by the names of the arguments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def as_list(value: Any) -> list[Any]:
    """Return a list of one tensor or of several; None is no tensor."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def check_step(
    inputs: list[Any], outputs: list[Any], initial_states: list[Any], final_states: list[Any], readouts: list[Any]
) -> None:
    """Raise TypeError or ValueError, naming the argument, if the drawn step is not a step."""
    named = {
        "input": inputs,
        "output": outputs,
        "initial_states": initial_states,
        "final_states": final_states,
        "readout_input": readouts,
    }
    for name, tensors in named.items():
        for tensor in tensors:
            if not isinstance(tensor, keras.KerasTensor):
                raise TypeError(f"{name} must hold tensors drawn from keras.Input; got {type(tensor).__name__}")
    if not outputs:
        raise ValueError("output: a step needs at least one output tensor; got none")
    if not inputs:
        raise ValueError(
            "input: a step needs at least one input tensor, which receives one slice of the sequence a step"
        )
    leaves = [*inputs, *initial_states, *readouts]
    for name in ("input", "initial_states", "readout_input"):
        for tensor in named[name]:
            if not _is_input(tensor):
                raise ValueError(
                    f"{name} must hold tensors made by keras.Input, not computed ones; got {_show(tensor)}"
                )
    if len({id(tensor) for tensor in leaves}) != len(leaves):
        raise ValueError("a tensor is named twice among input, initial_states and readout_input")
    if len(initial_states) != len(final_states):
        raise ValueError(
            f"initial_states and final_states must be equally many; got {len(initial_states)} and {len(final_states)}"
        )
    for i, (old, new) in enumerate(zip(initial_states, final_states)):
        if tuple(old.shape) != tuple(new.shape):
            raise ValueError(
                f"state {i}: the initial state {_show(old)} and the final state {_show(new)} must have the same shape"
            )
    if len(readouts) > len(outputs):
        raise ValueError(f"readout_input: {len(readouts)} are given for {len(outputs)} outputs")
    for readout, output in zip(readouts, outputs):
        if tuple(readout.shape) != tuple(output.shape):
            raise ValueError(f"readout_input {_show(readout)} must have the shape of the output {_show(output)}")
    known = {id(tensor) for tensor in leaves}
    for name in ("output", "final_states"):
        for tensor in named[name]:
            _check_origin(name, tensor, known)


def _check_origin(name: str, tensor: Any, known: set[int]) -> None:
    """Raise ValueError if a result needs an input that is not named, or a variable that no layer owns."""
    for node, leaf in _nodes_behind(tensor):
        if node.is_input and id(leaf) not in known:
            raise ValueError(
                f"{name} {_show(tensor)} is not computed from the step's inputs: it needs {_show(leaf)}, which "
                f"is not among input, initial_states and readout_input"
            )
        for argument in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if isinstance(argument, keras.Variable):
                raise ValueError(
                    f"{name} {_show(tensor)} uses the variable {argument.path!r} in a bare operation: it would be "
                    f"neither trained nor saved; make it a weight of a layer (add_weight) and call the layer"
                )


def check_sequences(layer: str, slices: list[Any], shapes: list[tuple[int | None, ...]]) -> None:
    """Raise ValueError, naming the layer, if sequences of these shapes cannot be run: (batch, time, ...) each."""
    if len(shapes) != len(slices):
        raise ValueError(f"{layer} takes {len(slices)} sequences; got {len(shapes)}")
    for own, shape in zip(slices, shapes):
        expected = (own.shape[0], None, *own.shape[1:])
        if not _fits(shape, expected):
            raise ValueError(
                f"{layer}: a sequence of shape {shape} is given where {expected} (batch, time, ...) is needed"
            )
        if not _fits(shape[:2], shapes[0][:2]):
            raise ValueError(f"{layer}: sequences must agree in batch and time; got the shapes {shapes}")


def check_masks(layer: str, expected: tuple[int | None, ...], masks: list[Any]) -> None:
    """Raise ValueError, naming the layer, if a mask is not of shape (batch, time)."""
    for mask in masks:
        if mask is not None and not _fits(tuple(mask.shape), expected):
            raise ValueError(f"{layer}: mask must have shape (batch, time) = {expected}; got {tuple(mask.shape)}")


def check_values(layer: str, name: str, leaves: list[Any], values: list[Any]) -> None:
    """Raise ValueError, naming the argument, if values do not fit the step's inputs; no values at all mean zeros."""
    if not values:
        for leaf in leaves:
            if None in leaf.shape[1:]:
                raise ValueError(f"{layer}: {name} must be given for {_show(leaf)}: zeros of which size is not known")
        return
    if len(values) != len(leaves):
        raise ValueError(f"{layer}: {name} must hold {len(leaves)} tensors; got {len(values)}")
    for value, leaf in zip(values, leaves):
        if not _fits(tuple(value.shape), tuple(leaf.shape)):
            raise ValueError(
                f"{layer}: {name}: shape {tuple(value.shape)} is given where {tuple(leaf.shape)} is needed"
            )


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
