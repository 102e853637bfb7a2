"""Loops and choices of keras.ops, said turn by turn while a layer is recorded, where known numbers decide on them.

`fori_loop`, `scan`, `associative_scan`, `map`, `vectorized_map`, `while_loop`, `switch` and `cond`: Keras would record
one operation each, and not what their functions compute of symbolic tensors around them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import tree
from keras.src import backend
from keras.src.backend.common import global_state
from keras.src.ops import core

from keras_bridge.replaced import replaced

TURNS = 256
"""At most so many turns are said one after another: each has kernels of its own."""


@contextlib.contextmanager
def known_turns() -> Iterator[None]:
    """Let loops and choices over known numbers be what they do."""
    with contextlib.ExitStack() as stack:
        for owner, of_operation in OPERATIONS.items():
            stack.enter_context(replaced(owner, symbolic_call=_here(of_operation, owner.symbolic_call)))
        ours = {f.__name__: _of_numbers(f, getattr(backend.core, f.__name__)) for f in FUNCTIONS}
        stack.enter_context(replaced(backend.core, **{name: _here(*pair) for name, pair in ours.items()}))
        yield


def _of_numbers(
    function: Callable[..., Any], kept: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what begins with known numbers alone, which a function may join with symbolic tensors, and the backend's.

    The latter goes on where there are many turns: with numbers alone it can.
    """

    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except _TooManyError:
            return kept(*arguments, **options)

    return call, kept


def _here(function: Callable[..., Any], kept: Callable[..., Any]) -> Callable[..., Any]:
    """Return what calls a function from now on, but another one in other threads, and where Keras asks for shapes."""
    thread, scope = threading.get_ident(), global_state.get_global_attribute("symbolic_scope")

    def call(*arguments: Any, **options: Any) -> Any:
        own = threading.get_ident() == thread and global_state.get_global_attribute("symbolic_scope") is scope
        return (function if own else kept)(*arguments, **options)

    return call


def fori_loop(lower: Any, upper: Any, body_fun: Callable[..., Any], init_val: Any) -> Any:
    value = init_val
    for turn in _turns(range(_known(lower), _known(upper))):
        value = body_fun(turn, value)
    return value


def scan(
    f: Callable[..., Any], init: Any, xs: Any = None, length: Any = None, reverse: bool = False, unroll: Any = 1
) -> Any:
    carry, answers = init, []
    turns = _turns(range(_length(xs) if length is None else _known(length)))
    for turn in reversed(turns) if reverse else turns:
        carry, answer = f(carry, _at(xs, turn))
        answers.append(answer)
    return carry, _stacked(answers[::-1] if reverse else answers)


def associative_scan(f: Callable[..., Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    def part(x: Any, turn: int) -> Any:
        return x[(slice(None),) * (axis % len(x.shape)) + (slice(turn, turn + 1),)]

    turns = _turns(range(_length(elems, axis)))
    answers: list[Any] = []
    for turn in reversed(turns) if reverse else turns:
        now = tree.map_structure(lambda x, turn=turn: part(x, turn), elems)
        answers.append(f(answers[-1], now) if answers else now)
    return tree.map_structure(
        lambda *parts: keras.ops.concatenate(parts, axis), *(answers[::-1] if reverse else answers)
    )


def vectorized_map(function: Callable[..., Any], elements: Any) -> Any:
    return _stacked([function(_at(elements, turn)) for turn in _turns(range(_length(elements)))])


def map(f: Callable[..., Any], xs: Any) -> Any:
    return vectorized_map(f, xs)


def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: Any = None
) -> Any:
    several = isinstance(loop_vars, tuple | list)
    values, turn = tuple(loop_vars) if several else (loop_vars,), 0
    while (maximum_iterations is None or turn < maximum_iterations) and _known(cond(*values), bool):
        answer = body(*values)
        values, turn = tuple(answer) if isinstance(answer, tuple | list) else (answer,), turn + 1
        _turns(range(turn))
    return values if several else values[0]


def switch(index: Any, branches: Any, *operands: Any) -> Any:
    return branches[min(max(_known(index), 0), len(branches) - 1)](*operands)


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    return true_fn() if _known(pred, bool) else false_fn()


FUNCTIONS = (fori_loop, scan, associative_scan, map, vectorized_map, while_loop, switch, cond)

OPERATIONS: dict[type[keras.Operation], Callable[..., Any]] = {
    core.ForiLoop: lambda own, init: fori_loop(own.lower, own.upper, own.body_fun, init),
    core.Scan: lambda own, f, init, xs=None: scan(f, init, xs, own.length, own.reverse),
    core.AssociativeScan: lambda own, f, elems: associative_scan(f, elems, own.reverse, own.axis),
    core.Map: lambda own, f, xs: map(f, xs),
    core.VectorizedMap: lambda own, elements: vectorized_map(own.function, elements),
    core.WhileLoop: lambda own, values: while_loop(own.cond, own.body, values, own.maximum_iterations),
    core.Switch: lambda own, index, branches, *operands: switch(index, branches, *operands),
}
"""What an operation does in place of its `symbolic_call`, given its arguments."""


class KnownTurns(keras.layers.Layer):
    """One of these operations as a layer, to be opened: that of a step in which it was drawn itself."""

    def __init__(self, operation: Any):
        super().__init__(name=operation.name)
        self.operation = operation

    def call(self, *arguments: Any, **options: Any) -> Any:
        return OPERATIONS[type(self.operation)](self.operation, *arguments, **options)


class _TooManyError(ValueError):
    """More turns than are said one by one."""


def _known(number: Any, kind: Callable[[Any], int] = int) -> int:
    if isinstance(number, keras.KerasTensor):
        raise TypeError("how often functions are called, or which one, depends on computed values")
    return kind(number)


def _turns(turns: range) -> range:
    if len(turns) > TURNS:
        raise _TooManyError(f"up to {TURNS} turns are traced; got {len(turns)}")
    return turns


def _length(values: Any, axis: int = 0) -> int:
    length = tree.flatten(values)[0].shape[axis]
    if length is None:
        raise ValueError(f"the axis {axis}, as long as the batch, is not gone through one by one")
    return length


def _at(values: Any, turn: int) -> Any:
    return None if values is None else tree.map_structure(lambda x: x[turn], values)


def _stacked(answers: list[Any]) -> Any:
    if not answers:
        raise ValueError("what a loop answers of no turn has no shape")
    return tree.map_structure(lambda *parts: None if parts[0] is None else keras.ops.stack(parts), *answers)
