"""Functions of NumPy whose arguments are others than those of the op of the same name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Call = tuple[Sequence[Any], Mapping[str, Any]]


def translated(function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]) -> Call:
    """Return with what to call the op for a call of NumPy's function. Errors: TypeError for what the op has not."""
    translate = TRANSLATIONS.get((function.__module__, function.__name__))
    return (arguments, options) if translate is None else translate(*arguments, **options)


def _of_last_axes(x: Any, /, *, offset: int = 0) -> Call:
    """numpy.linalg's take the last two axes, numpy's the first two."""
    return (x, offset, -2, -1), {}


def _nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Call:
    return (x, nan, posinf, neginf), {}


def _solve(a: Any, b: Any) -> Call:
    """To NumPy a vector has one axis; the op takes many of them, as Keras does."""
    if 1 < b.ndim < a.ndim:
        raise TypeError(
            f"numpy.linalg.solve of b {tuple(b.shape)} for a {tuple(a.shape)} is not drawn: give b as many axes as a, "
            f"or call rsref.ops.solve for a vector a matrix"
        )
    return (a, b), {}


TRANSLATIONS: dict[tuple[str, str], Callable[..., Call]] = {
    ("numpy.linalg", "trace"): _of_last_axes,
    ("numpy.linalg", "diagonal"): _of_last_axes,
    ("numpy.linalg", "solve"): _solve,
    ("numpy", "nan_to_num"): _nan_to_num,
}
