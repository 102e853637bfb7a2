"""What generated source calls, in plain Python and NumPy: to run it without a compiler, slowly, and see every index.

A pointer is a one-dimensional array from its place on; an index outside of it is an error here, not a crash. Fresh
memory holds NaN, so that reading what was never written shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from rsref.ops.pointwise import error_function, error_function_above
from rsref_fast.cpu import turns

WIDTH = 16
"""Columns of a panel of packed weights."""


def namespace(dtype: Any) -> dict[str, Any]:
    """Return the names that generated source uses, for a working precision."""
    real = np.dtype(dtype).type
    names = {name: getattr(np, name) for name in UFUNCS}
    functions = (
        at,
        part,
        meet,
        rank_of,
        size_of,
        copy_rows,
        gather_rows,
        rows_at,
        in_a_row,
        room_at,
        gather_previous,
        previous_at,
        zero_rows,
        add_part,
        cutting_of,
        cut_rows,
        pack,
        multiply_packed,
        multiply,
        multiply_row,
        aside,
        begin_row,
        end_row,
        arrive,
        wait_for_all,
        sigmoid,
    )
    return {
        **names,
        **{f.__name__: f for f in functions},
        "rest_masked": lambda: None, "softplus": softplus, "erf": error_function, "erfc": error_function_above,
        "modulo": np.remainder, "kernel": _same, "summing": _same, "waiting": _same, "entry": _same,
        "floats": _pointer, "ints": _pointer, "bytes_": _pointer, "F": real, "I": np.int64, "U": np.uint8,
        "NAN": real("nan"), "INFINITY": real("inf"),
    }  # fmt: skip


UFUNCS = (
    "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh", "floor", "ceil",
    "rint", "sign", "absolute", "maximum", "minimum", "power", "arctan2", "floor_divide",
)  # fmt: skip


def load(text: str, dtype: Any) -> dict[str, Callable[..., Any]]:
    """Return what a generated module defines, run by Python itself."""
    names = namespace(dtype)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("from rsref_fast."))
    exec(compile(body, "<generated>", "exec"), names)  # the text is our own
    return names


def _same(function: Any) -> Any:
    return function


def _pointer(memory: Any, slot: int) -> Any:
    return memory[slot]


def at(pointer: Any, place: int) -> Any:
    return pointer[place:]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def softplus(x: Any) -> Any:
    return np.where(x > 0, x, 0) + np.log1p(np.exp(np.where(x > 0, -x, x)))


def part(length: int, rank: int, size: int) -> int:
    return min(length, -(-length // WIDTH) * rank // size * WIDTH)


def rank_of(numbers: Any) -> int:
    return int(numbers[6])


def size_of(numbers: Any) -> int:
    return int(numbers[7])


def meet(numbers: Any) -> None:
    turns.meet(int(numbers[8]), int(numbers[7]))


def arrive(numbers: Any) -> None:
    """Nothing: `wait_for_all`, which follows, is the whole meeting."""


def wait_for_all(numbers: Any) -> None:
    meet(numbers)


def zero_rows(count: int, width: int, target: Any, rank: int, size: int) -> None:
    target[: count * width].reshape(count, width)[:, part(width, rank, size) : part(width, rank + 1, size)] = 0


def add_part(count: int, source: Any, target: Any, rank: int, size: int) -> None:
    own = slice(part(count, rank, size), part(count, rank + 1, size))
    target[own] += source[own]


def cutting_of(numbers: Any, count: int, cut: Any) -> int:
    return int(np.any(cut[:count]))


def cut_rows(count: int, width: int, cut: Any, target: Any, rank: int, size: int) -> None:
    for i in range(count):
        if cut[i]:
            target[i * width + part(width, rank, size) : i * width + part(width, rank + 1, size)] = 0


def copy_rows(count: int, width: int, source: Any, target: Any, rank: int, size: int) -> None:
    gather_rows(count, width, source, range(count), target, rank, size)


def gather_rows(count: int, width: int, source: Any, index: Any, target: Any, rank: int, size: int) -> None:
    first, last = part(width, rank, size), part(width, rank + 1, size)
    for i in range(count):
        target[i * width + first : i * width + last] = source[index[i] * width + first : index[i] * width + last]


def gather_previous(
    first: int, last: int, width: int, n0: int, off: Any, source: Any, target: Any, rank: int, size: int
) -> None:
    for s in range(first, last):
        before, place = 0 if s == 0 else n0 + off[s - 1], off[s] - off[first]
        copy_rows(off[s + 1] - off[s], width, source[before * width :], target[place * width :], rank, size)


def rows_at(count: int, width: int, source: Any, index: Any, target: Any, rank: int, size: int) -> Any:
    if in_a_row(count, index):
        return source[index[0] * width :]
    gather_rows(count, width, source, index, target, rank, size)
    return target


def in_a_row(count: int, index: Any) -> bool:
    return count > 0 and np.array_equal(index[:count], index[0] + np.arange(count))


def room_at(count: int, width: int, sequence: Any, index: Any, own: Any) -> Any:
    return sequence[index[0] * width :] if in_a_row(count, index) else own


def previous_at(
    first: int, last: int, width: int, n0: int, off: Any, source: Any, target: Any, rank: int, size: int
) -> Any:
    before, count = (n0 + off[first - 1], off[first] - off[first - 1]) if first else (0, n0)
    if last - first == 1 or off[last] - off[first] == (last - first) * count:
        return source[before * width :]
    gather_previous(first, last, width, n0, off, source, target, rank, size)
    return target


def _matrix(pointer: Any, rows: int, columns: int, row_step: int, column_step: int) -> Any:
    if rows and columns and (rows - 1) * row_step + (columns - 1) * column_step >= len(pointer):
        raise IndexError("a product reads past its operand")
    size = pointer.itemsize
    return as_strided(pointer, (rows, columns), (row_step * size, column_step * size))


def _columns(columns: int, rank: int, size: int) -> tuple[int, int]:
    """Return the columns that a thread of a team computes: whole panels."""
    return part(columns, rank, size), part(columns, rank + 1, size)


def pack(
    depth: int, columns: int, b: Any, row_step: int, column_step: int, panels: Any, rank: int, size: int
) -> None:  # fmt: skip
    first, last = _columns(columns, rank, size)
    count = -(-(last - first) // WIDTH)
    padded = np.zeros((depth, count * WIDTH), b.dtype)
    padded[:, : last - first] = _matrix(b, depth, columns, row_step, column_step)[:, first:last]
    panels[first * depth : first * depth + padded.size] = padded.reshape(depth, count, WIDTH).transpose(1, 0, 2).ravel()


def multiply_packed(
    rows: int, columns: int, depth: int, a: Any, row_step: int, depth_step: int, panels: Any, c: Any, c_step: int,
    start: Any, start_step: int, accumulate: int, rank: int, size: int, turn: int, whole: int,
) -> None:  # fmt: skip
    count = -(-columns // WIDTH)
    b = panels[: count * depth * WIDTH].reshape(count, depth, WIDTH).transpose(1, 0, 2).reshape(depth, count * WIDTH)
    own = slice(*_columns(columns, rank, size))
    begin = _matrix(start, rows, columns, start_step, 1)[:, own].copy() if accumulate else 0
    _multiply(rows, columns, depth, a, row_step, depth_step, b[:, :columns], c, c_step, begin, own)


def multiply_row(
    columns: int, depth: int, units: int, a: Any, panels: Any, c: Any, o: Any, accumulate: int, rank: int, size: int,
    turn: int,
) -> None:  # fmt: skip
    multiply_packed(1, columns, depth, a, depth, 1, panels, c, columns, o, columns, accumulate, rank, size, turn, 0)


def aside() -> list[Any]:
    return []


def begin_row(
    pieces: int, columns: int, depth: int, units: int, a: Any, panels: Any, tile: Any, rank: int, turn: int
) -> None:  # fmt: skip
    """Read a thread's own part of the row, which is all that may be there, and keep it."""
    own = np.zeros((depth // units, units), bool)
    own[:, part(units, rank, 2) : part(units, rank + 1, 2)] = True
    tile += [own.reshape(-1), a[:depth].copy()]


def end_row(
    pieces: int, columns: int, depth: int, units: int, a: Any, panels: Any, tile: Any, rank: int, turn: int,
    c: Any, o: Any, accumulate: int,
) -> None:  # fmt: skip
    own, early = tile
    row = np.where(own, early, a[:depth])
    for i in range(0, pieces * columns, columns):
        b = panels[i * depth :]
        multiply_row(columns, depth, units, row, b, c[i:], o[i:], accumulate, rank, 2, turn)


def multiply(
    rows: int, columns: int, depth: int, a: Any, row_step: int, depth_step: int, b: Any, b_row: int, b_column: int,
    c: Any, c_step: int, accumulate: int, rank: int, size: int,
) -> None:  # fmt: skip
    own = slice(*_columns(columns, rank, size))
    right = _matrix(b, depth, columns, b_row, b_column)
    begin = _matrix(c, rows, columns, c_step, 1)[:, own].copy() if accumulate else 0
    _multiply(rows, columns, depth, a, row_step, depth_step, right, c, c_step, begin, own)


def _multiply(
    rows: int, columns: int, depth: int, a: Any, row_step: int, depth_step: int, right: Any, c: Any, c_step: int,
    begin: Any, own: slice,
) -> None:  # fmt: skip
    result = _matrix(a, rows, depth, row_step, depth_step) @ right[:, own]
    _matrix(c, rows, columns, c_step, 1)[:, own] = begin + result
