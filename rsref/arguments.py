"""Checks and conversions of what a user hands to a recurrent layer: every misuse is answered here, by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rsref import initializers
from rsref.engine import Engine, ReferenceEngine
from rsref.handed import converted
from rsref.layers.base import positive_integer
from rsref.options import is_drawn
from rsref.recurrence import Recurrence, Step
from rsref.tensor import Shape, Tensor, array_of

Array = np.ndarray


def check_options(kind: type, options: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that a class and those that it is derived from do not take, naming it."""
    known: dict[str, None] = {}
    for one in kind.__mro__:
        made = vars(one).get("__init__")
        known.update(dict.fromkeys(inspect.signature(made).parameters) if inspect.isfunction(made) else {})
    wrong = [name for name in options if name not in known]
    if wrong:
        near = difflib.get_close_matches(wrong[0], known, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"{kind.__name__} has no argument {wrong[0]!r}{hint}")


def precision(dtype: Any) -> Any:
    """Return float32 or float64 as a NumPy dtype; ValueError for any other."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise ValueError(f'dtype must be "float32" or "float64"; got {dtype!r}')
    return found


def teacher_forcing(value: Any) -> Any:
    """Return False, a probability, or something that answers one later; ValueError or TypeError otherwise."""
    value = value.item() if isinstance(value, np.bool_) else value
    if value is None or value is False:
        return False
    if value is True:
        return 1.0
    if callable(value):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"teacher_force must be a bool, a probability, a callable or a variable; got {value!r}"
        ) from None
    if not 0 <= number <= 1:
        raise ValueError(f"teacher_force must be a probability in [0, 1]; got {value!r}")
    return value


def probability(value: Any) -> float:
    """Return the present value of a probability, callable or variable; ValueError or TypeError for any other."""
    found = value() if callable(value) else value
    try:
        number = float(found)
    except (TypeError, ValueError):
        raise TypeError(f"teacher_force must be a probability; it answered {found!r}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"teacher_force must be a probability in [0, 1]; it answered {number!r}")
    return number


def returns_states(return_state: bool, return_states: bool | None) -> bool:
    """Return whether states are answered; ValueError if the option and its old name say the opposite of each other."""
    if return_state and return_states is not None and not return_states:
        raise ValueError(
            f"return_state={return_state!r} and its old name return_states={return_states!r} contradict each other: "
            "give one of them"
        )
    return return_state if return_states is None else return_states


def decoded_length(layer: Any, length: Any) -> int | None:
    """Return a decoder's number of steps, or None; TypeError or ValueError for anything else, and for other layers."""
    found = None if length is None else positive_integer("output_length", length)
    if found is not None and not layer.decode:
        raise ValueError(f"output_length={length} is for decode=True; without it the input has the steps")
    return found


def direction(layer: Any, backwards: bool) -> bool:
    """Return go_backwards; ValueError if it is set for a decoder."""
    if backwards and layer.decode:
        raise ValueError("go_backwards=True runs sequences from their end; with decode=True none is run through")
    return backwards


def forcing(layer: Any, value: Any) -> Any:
    """Return teacher_force as `teacher_forcing`; ValueError for a layer drawn without a readout, too."""
    found = teacher_forcing(value)
    if is_drawn(layer):
        check_forced(layer.step, found)
    return found


def check_forced(step: Step, teacher_force: Any) -> None:
    """Raise ValueError if a step without a readout is to be forced."""
    if teacher_force is not False and not step.readouts:
        raise ValueError("teacher_force needs a readout: give readout_input, or readout=... in RecurrentSequential")


def check_step(step: Step, *, decode: bool, teacher_force: Any) -> None:
    """Find the faults that are not the graph's own: readouts that do not fit, options without what they need."""
    named = {
        "input": step.sequences,
        "constants": step.constants,
        "initial_states": step.states,
        "output": step.outputs,
        "final_states": step.new_states,
        "readout_input": step.readouts,
        "mask_input": () if step.mask_input is None else (step.mask_input,),
    }
    for name, tensors in named.items():
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must hold Tensors drawn from rsref.Input; got {tensor!r}")
    if len(step.states) != len(step.new_states):
        raise ValueError(
            f"initial_states and final_states must be equally many; got {len(step.states)} and {len(step.new_states)}"
        )
    if len(step.readouts) > len(step.outputs):
        raise ValueError(f"readout_input: {len(step.readouts)} are given for {len(step.outputs)} outputs")
    for readout, output in zip(step.readouts, step.outputs):
        if readout.shape != output.shape or readout.dtype != output.dtype:
            raise ValueError(f"readout_input {readout!r} must have the shape and dtype of the output {output!r}")
    check_forced(step, teacher_force)
    if step.mask_input is not None and not decode:
        raise ValueError("mask_input needs decode=True: without it the loop itself reads the mask")
    if step.mask_input is not None and not step.sequences:
        raise ValueError("mask_input needs an input whose mask it receives")


def check_same_states(first: Any, other: Any) -> None:
    """Raise ValueError for two cells that are to share states and have other ones."""
    shapes = [[tuple(state.shape) for state in cell.states] for cell in (first, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"state_sync needs cells with the same states; {first.name} has states of shapes {shapes[0]}, "
            f"{other.name} of shapes {shapes[1]}"
        )


def check_cell(name: str, state_initializer: Any) -> None:
    """Raise ValueError for a layer that is to be a cell, but says where its states start."""
    if state_initializer is not None:
        raise ValueError(
            f"{name} has state_initializer={state_initializer!r}, but where a cell's states start is said by the layer "
            "around it: give it that state_initializer, and take the cell from a layer without"
        )


def state_initializer(given: Any) -> Any:
    """Return an initializer, or a list of them, as given; ValueError for an unknown name, as `initializers.get`."""
    for one in given if isinstance(given, list | tuple) else [given]:
        _state_initializer(one)
    return given


def state_initializers(given: Any, states: Sequence[Tensor]) -> list[Any]:
    """Return one initializer a state: one for all, or a list, the rest zeros.

    Errors: ValueError if the list is too long, or if a state that is to be learned does not hold floats.
    """
    chosen = list(given) if isinstance(given, list | tuple) else [given] * len(states)
    if len(chosen) > len(states):
        raise ValueError(f"state_initializer: {len(chosen)} are given for {len(states)} states")
    chosen += [None] * (len(states) - len(chosen))
    found = [_state_initializer(one) for one in chosen]
    for i, (state, one) in enumerate(zip(states, found)):
        if isinstance(one, initializers.Learned) and state.dtype != "float":
            raise ValueError(
                f"state_initializer: state {i} holds values of dtype {state.dtype} and cannot be learned: give a list, "
                f"one initializer a state"
            )
    return found


def _state_initializer(value: Any) -> Any:
    if isinstance(value, initializers.Learned):
        return value
    if value is initializers.Learned or (isinstance(value, str) and value == "learned"):
        return initializers.Learned()
    if isinstance(value, str) and value not in initializers.INITIALIZERS:
        known = ", ".join(sorted({*initializers.INITIALIZERS, "learned"}))
        raise ValueError(f"state_initializer {value!r} is unknown; known are {known}")
    return initializers.get(value)


def numeric_arrays(name: str, value: Any) -> list[Array]:
    """Return a list of arrays from one array-like or a list of arrays; TypeError for objects, strings, complex.

    A list or tuple is taken as several arrays if its elements are arrays, else as one array-like.
    """
    if value is None:
        return []
    several = isinstance(value, list | tuple) and (not value or any(hasattr(v, "shape") for v in value))
    arrays = []
    for one in value if several else [value]:
        if isinstance(one, Tensor):
            raise TypeError(f"{name} must be an array; got the symbolic {one!r}")
        array = array_of(name, one)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name} must be a numeric array (float, int or bool); got dtype {array.dtype}")
        arrays.append(array)
    return arrays


def numpy_dtype(leaf: Tensor, dtype: Any) -> Any:
    """Return the dtype of the arrays that a leaf receives."""
    return {"float": dtype, "int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}[leaf.dtype]


def cast_inputs(name: str, arrays: Sequence[Array], leaves: Sequence[Tensor], dtype: Any, *, time: bool) -> list[Array]:
    """Return the arrays in the leaves' dtypes; ValueError or TypeError if number, rank, shape or dtype do not fit."""
    if len(arrays) != len(leaves):
        shapes = [leaf.shape for leaf in leaves]
        raise ValueError(f"{name}: {len(leaves)} arrays are needed (one for each of {shapes}); got {len(arrays)}")
    result = []
    for array, leaf in zip(arrays, leaves):
        expected = (leaf.shape[0], None, *leaf.shape[1:]) if time else leaf.shape
        if len(expected) != array.ndim or any(n not in (None, m) for n, m in zip(expected, array.shape)):
            words = " (batch, time, ...)" if time else ""
            raise ValueError(f"{name}: shape {array.shape} is given where {expected}{words} is needed, for {leaf!r}")
        if leaf.dtype != "float" and array.dtype.kind == "f":
            raise TypeError(f"{name}: {leaf!r} takes {leaf.dtype} values; got dtype {array.dtype}")
        result.append(converted(f"{name}: {leaf!r}", array, numpy_dtype(leaf, dtype)))
    return result


def list_of(name: str, value: Any) -> list[Any]:
    """Return a list of what a list or another iterable holds; TypeError for one thing alone."""
    if not isinstance(value, Iterable) or isinstance(value, str):
        raise TypeError(f"{name} must be a list; got {value!r}")
    return list(value)


def engine_maker(value: Any) -> Callable[[Recurrence], Engine]:
    """Return what makes a layer's engine, the reference engine's class for None; TypeError unless it can be called."""
    if value is not None and not callable(value):
        raise TypeError(
            f"engine must be a function from a Recurrence to an Engine, such as rsref_fast.compile; got {value!r}"
        )
    return value or ReferenceEngine


def batch_of(arrays: Iterable[Array]) -> int:
    """Return the batch size of the first array that has one, 1 if there is none."""
    return next((len(array) for array in arrays if array.ndim), 1)


def check_batch(name: str, arrays: Sequence[Array], batch: int) -> None:
    """ValueError unless every array has this batch size."""
    for array in arrays:
        if len(array) != batch:
            raise ValueError(f"{name}: batch size {len(array)} is given where {batch} is needed")


def mask_array(mask: Any, lengths: Any, batch: int, steps: int) -> Array | None:
    """Return a mask (batch, time) of bool from a mask or lengths, or None for neither."""
    if lengths is not None:
        if mask is not None:
            raise ValueError("mask and lengths say the same thing: give one of them")
        given = array_of("lengths", lengths)
        given = given if given.size else given.astype(int)  # the dtype of an empty list says nothing
        if given.shape != (batch,) or given.dtype.kind not in "iu":
            raise ValueError(f"lengths must be integers of shape ({batch},); got {given.dtype} of shape {given.shape}")
        if given.size and (given.min() < 0 or given.max() > steps):
            raise ValueError(f"lengths must lie between 0 and the {steps} steps; got {given.min()} to {given.max()}")
        return np.arange(steps) < given[:, None]
    if mask is None:
        return None
    array = array_of("mask", mask)
    if array.dtype.kind not in "biu":
        raise TypeError(f"mask must hold booleans; got dtype {array.dtype}")
    if not np.isin(array, (0, 1)).all():
        raise TypeError(f"mask must hold booleans, or 0 and 1; got the value {array[~np.isin(array, (0, 1))][0]}")
    if array.shape != (batch, steps):
        raise ValueError(f"mask must have shape (batch, time) = {(batch, steps)}; got {array.shape}")
    return array.astype(bool)


def known_shape(what: str, shape: Shape) -> tuple[int, ...]:
    """Return a shape without unknown lengths; ValueError if it has one."""
    if None in shape:
        raise ValueError(f"{what} needs a known shape after the batch axis; got {shape}: give it in the call")
    return tuple(n for n in shape if n is not None)


def last_step(y: Array) -> Array:
    """Return the last step of (batch, time, ...), an array of its own; zeros if there is none."""
    return y[:, -1].copy() if y.shape[1] else np.zeros((y.shape[0], *y.shape[2:]), y.dtype)


def shaped_array(name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array-like as an array of a shape; ValueError if the shape differs."""
    (array,) = numeric_arrays(name, array_of(name, value))
    if array.shape != tuple(shape):
        raise ValueError(f"{name}: shape {array.shape} is given where {tuple(shape)} is needed")
    return array.astype(dtype, copy=False)


def gradient_like(name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> Array | None:
    """Return a gradient as an array of a shape, or None for zero; ValueError if the shape differs."""
    return None if value is None else shaped_array(name, value, shape, dtype)


def output_gradient(d: Any, y: Array, return_sequences: bool) -> Array | None:
    """Return the gradient of all steps' outputs (batch, time, ...), from that of all of them or of the last alone."""
    if d is None or y.dtype.kind != "f":
        return None
    if return_sequences:
        return gradient_like("dy", d, y.shape, y.dtype)
    last = gradient_like("dy", d, (y.shape[0], *y.shape[2:]), y.dtype)
    full = np.zeros_like(y)
    if y.shape[1]:
        full[:, -1] = last
    return full
