"""Faults of a drawn step, answered when the layer is made, by the names of its arguments."""

from __future__ import annotations

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
            for leaf in _leaves_of(tensor):
                if id(leaf) not in known:
                    raise ValueError(
                        f"{name} {_show(tensor)} is not computed from the step's inputs: it needs {_show(leaf)}, which "
                        f"is not among input, initial_states and readout_input"
                    )


def _show(tensor: Any) -> str:
    return f"<{tensor.name} {tuple(tensor.shape)}>"


def _is_input(tensor: Any) -> bool:
    history = getattr(tensor, "_keras_history", None)
    return history is not None and history.operation._inbound_nodes[history.node_index].is_input


def _leaves_of(output: Any) -> list[Any]:
    """Return the keras.Input tensors that a tensor is computed from."""
    leaves, seen, stack = [], set(), [output]
    while stack:
        tensor = stack.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if node.is_input:
            leaves.append(tensor)
        else:
            stack.extend(node.input_tensors)
    return leaves
