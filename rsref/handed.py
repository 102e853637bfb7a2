"""Checks of the arrays that an engine is handed, alike for all engines of arrays on the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rsref.tensor import NoiseSource, Tensor

Array = np.ndarray
MOST = np.iinfo(np.int64).max


def full_name(value: Any) -> str:
    """Return the name of a value's class, and of the module that it is from."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def wanted(leaves: Sequence[Tensor]) -> str:
    """Return what to say of leaves for which arrays are missing; nobody thinks of the noise among them."""
    means = sorted({leaf.source.mean for leaf in leaves if isinstance(leaf.source, NoiseSource)})
    names = " or ".join({0.0: "zeros", 1.0: "ones"}.get(mean, f"{mean:g}") for mean in means)
    words = f"; {names}, unless in training, for noise, which stands for dropout masks and the like" if means else ""
    return f", for {', '.join(map(repr, leaves)) or 'none'}{words}"


def whole_number(name: str, value: Any) -> int:
    """Return a number from 0 on; TypeError or ValueError, naming it, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number; got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative; got {value!r}")
    return int(value)


def converted(name: str, array: Array, dtype: Any) -> Array:
    """Return an array in a dtype. Errors: ValueError, naming it, for numbers beyond those of 64 bits with a sign."""
    if array.dtype == np.uint64 and np.dtype(dtype).kind == "i" and array.size and array.max() > MOST:
        raise ValueError(f"{name} takes whole numbers up to {MOST}; got {array.max()}")
    return array.astype(dtype, copy=False)


def check_arrays(groups: Sequence[Sequence[Array]], mask: Array | None) -> None:
    """TypeError unless sequences, constants, states and parameters hold NumPy's arrays, and a mask is one."""
    for name, arrays in zip(("sequences", "constants", "states", "parameters"), groups):
        if not isinstance(arrays, Iterable):
            raise TypeError(f"{name} must be a list of arrays; got {arrays!r}")
        for i, array in enumerate(arrays):
            _check_array(f"{name}[{i}]", array)
    if mask is not None:
        _check_array("mask", mask)
        if mask.dtype.kind != "b":
            raise TypeError(f"mask must hold booleans; got dtype {mask.dtype}")


def _check_array(name: str, value: Any) -> None:
    if type(value) is np.ndarray:
        return
    if not isinstance(value, np.ndarray | np.generic) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array; got {full_name(value)}")


def checked_gradients(
    name: str, gradients: Sequence[Array | None], values: Sequence[Array], dtype: Any
) -> list[Array | None]:
    """Return the gradients that were handed to backward in the tape's precision.

    Errors: ValueError if shapes differ; TypeError if one holds no numbers, or is complex and the tape is not.
    """
    if not isinstance(gradients, list | tuple):
        raise TypeError(f"{name} gradients must be a list of arrays and None; got {type(gradients).__name__}")
    if len(gradients) != len(values):
        raise ValueError(f"{len(values)} {name} gradients are needed (None for zero); got {len(gradients)}")
    return [
        d if d is None or (type(d) is np.ndarray and d.dtype == dtype and d.shape == value.shape)  # as most are
        else _checked_gradient(name, i, d, value, np.dtype(dtype))
        for i, (d, value) in enumerate(zip(gradients, values))
    ]  # fmt: skip


def _checked_gradient(name: str, i: int, d: Any, value: Array, dtype: np.dtype[Any]) -> Array:
    _check_array(f"the gradient of {name} {i}", d)
    if d.shape != value.shape:
        raise ValueError(f"{name} {i} has shape {value.shape}; its gradient has shape {d.shape}")
    if d.dtype.kind not in "biufc":
        raise TypeError(f"the gradient of {name} {i} must hold numbers; got dtype {d.dtype}")
    if d.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError(f"{name} {i} is real; its gradient has dtype {d.dtype}")
    found: Array = d.astype(dtype, copy=False)
    return found
