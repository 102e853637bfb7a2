"""Whether the gradients that an engine answers for a recurrence are those of the loss.

The loss is a random weighted sum of all outputs and final states. Its derivative along a random direction comes from
forward runs of the reference engine alone, by complex steps or central differences, and must be the gradient's dot
product with that direction.

Two things have gradients that are, on purpose, not those of the function computed; both are given a function of their
own. Truncated backpropagation: the loss with the states at the start of each stretch held fixed, stretch by stretch.
Stopped gradients and steps (stop_gradient, sign, floor, any pointwise op without derivatives): these ops answer what
they answered in a first run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rsref import ops
from rsref.engine import Engine, ReferenceEngine
from rsref.graph import StepGraph
from rsref.ops.base import Op, broadcast_shapes
from rsref.ops.pointwise import Pointwise
from rsref.recurrence import Recurrence
from rsref.tensor import Spec, Tensor
from rsref.testing.arguments import Arguments, named_leaves, random_arguments
from rsref.testing.derivatives import TOLERANCES, directional_derivative, relative_error

Array = np.ndarray

METHODS = ("complex", "difference")


def check_gradients(
    recurrence: Recurrence,
    arguments: Arguments | None = None,
    *,
    engine: Callable[[Recurrence], Engine] = ReferenceEngine,
    method: str = "complex",
    together: bool = False,
    dtype: Any = np.float64,
    tolerance: float | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Check the gradients for sequences, constants, initial states and every parameter of a recurrence.

    arguments: what to run on; random ones of batch 3 and 4 steps by default.
    engine: makes, from the recurrence, the engine whose gradients are checked.
    method: "complex" (exact; works for every op of rsref, and for a pointwise op of your own that is written with
        functions that rsref has) or "difference".
    together: one direction for all arguments at once, which costs one run (four for "difference") whatever their
        number; else one run for each of them, which also finds errors that are small beside other gradients.
    dtype: precision in which the engine runs; the derivative is always computed in float64.
    Answers the relative error of each argument. Errors: AssertionError, naming the arguments that are wrong; TypeError
    for anything but a Recurrence, such as the layer that holds it, for an engine that cannot be called, and for complex
    steps through what takes no complex numbers; ValueError for another method.
    """
    if not isinstance(recurrence, Recurrence):
        raise TypeError(
            f"check_gradients takes a Recurrence (a built layer's `recurrence`); got {type(recurrence).__name__}"
        )
    if method not in METHODS:
        raise ValueError(f"method must be {' or '.join(map(repr, METHODS))}; got {method!r}")
    if not callable(engine):
        raise TypeError(f"engine must be a function from a Recurrence to an Engine; got {engine!r}")
    rng = np.random.default_rng(seed)
    arguments = random_arguments(recurrence, seed=rng) if arguments is None else arguments
    tolerance = _tolerance(method, dtype) if tolerance is None else tolerance
    outputs, states, tape = arguments.cast(dtype).forward(engine_to_check := engine(recurrence))
    weights = [rng.normal(size=y.shape).astype(dtype) if y.dtype.kind == "f" else None for y in (*outputs, *states)]
    answer = engine_to_check.backward(tape, weights[: len(outputs)], weights[len(outputs) :])
    gradients = [*answer.sequences, *answer.constants, *answer.states, *answer.parameters]

    leaves = named_leaves(recurrence.graph)
    arrays = arguments.arrays()
    for (name, leaf), gradient, array in zip(leaves, gradients, arrays, strict=True):
        if (gradient is None) != (leaf.dtype != "float") or (gradient is not None and gradient.shape != array.shape):
            got = None if gradient is None else gradient.shape
            raise AssertionError(f"{name} has shape {array.shape}; its gradient has shape {got}")
    directions = [None if g is None else rng.normal(size=g.shape) for g in gradients]
    loss = _loss(_spelt_out(recurrence), arguments, weights)
    size = float(np.sqrt(sum(float(np.sum(np.square(w, dtype=np.float64))) for w in weights if w is not None)))

    chosen = [range(len(leaves))] if together else [[i] for i, g in enumerate(gradients) if g is not None]
    errors = {}
    for places in chosen:
        along = [d if i in places else None for i, d in enumerate(directions)]
        try:
            derivative = float(sum(d.sum() for d in directional_derivative(loss, arrays, along, method)))
        except TypeError as error:
            if method != "complex":
                raise
            raise TypeError(
                f'an op takes no complex numbers, so that method="difference" is needed: {error}'
            ) from error
        name = "all arguments together" if together else leaves[places[0]][0]
        errors[name] = relative_error(gradients, along, derivative, size)
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    if wrong:
        text = ", ".join(f"{name} (relative error {error:.1e})" for name, error in wrong.items())
        raise AssertionError(f"gradients differ from {method} steps by more than {tolerance:.0e}: {text}")
    return errors


def _tolerance(method: str, dtype: Any) -> float:
    return TOLERANCES[method if np.dtype(dtype) == np.float64 else "float32"]


def _loss(recurrence: Recurrence, arguments: Arguments, weights: Sequence[Array | None]) -> Callable[..., list[Array]]:
    """Return the function whose derivative the gradients must be: of all arrays, the terms of the loss."""
    recorded: dict[Tensor, list[Array]] = {}
    starts = _run(_rewritten(recurrence, lambda t: _Record(t, recorded)), arguments, None)[2]

    def loss(*arrays: Array) -> list[Array]:
        analytic = _rewritten(recurrence, lambda t: _Replay(iter(recorded.get(t, ()))))
        outputs, states, _ = _run(analytic, arguments.replaced(list(arrays)), starts)
        return [np.sum(w * y) for w, y in zip(weights, (*outputs, *states)) if w is not None]

    return loss


def _run(
    recurrence: Recurrence, arguments: Arguments, starts: list[list[Array]] | None
) -> tuple[list[Array], list[Array], list[list[Array]]]:
    """Run stretch by stretch, as truncated backpropagation cuts the steps; answer also the states between stretches.

    starts: the states with which the stretches after the first begin; None for those that the one before left.
    """
    engine = ReferenceEngine(recurrence)
    length, mask, states = arguments.length, arguments.mask, arguments.states
    stretch = recurrence.truncate or max(length, 1)
    pieces: list[list[Array]] = []
    between: list[list[Array]] = []
    for first in range(0, max(length, 1), stretch):
        if first:
            between.append(states)
            states = states if starts is None else starts[len(between) - 1]
        span = slice(first, min(first + stretch, length))
        part = replace(
            arguments,
            sequences=[s[:, span] for s in arguments.sequences],
            states=states,
            mask=None if mask is None else mask[:, span],
            steps=span.stop - first,
        )
        outputs, states, _ = part.forward(engine)
        if first and mask is not None and not recurrence.zero_output_for_mask:
            waiting = ~np.logical_or.accumulate(mask[:, span].astype(bool), axis=1)
            outputs = [_continued(y, waiting, before) for y, before in zip(outputs, pieces[-1])]
        pieces.append(outputs)
    return [np.concatenate(parts, axis=1) for parts in zip(*pieces)], states, between


def _continued(outputs: Array, waiting: Array, before: Array) -> Array:
    """Return a stretch's outputs, where rows that had no valid step yet repeat the last output before the stretch."""
    where = waiting.reshape(waiting.shape + (1,) * (outputs.ndim - 2))
    return np.where(where, before[:, -1:], outputs)


def _rewritten(recurrence: Recurrence, stand_in: Callable[[Tensor], Op]) -> Recurrence:
    """Return the recurrence with other ops in place of those that are held fixed, and |x| as a function of x and -x.

    So are comparisons: where numbers are equal, the rounding of a step would turn the scale.
    """

    def again(tensor: Tensor, op: Op, operands: list[Tensor]) -> Tensor:
        held = isinstance(op, Pointwise) and not op.derivatives and tensor.dtype in ("float", "bool")
        new = stand_in(tensor) if held else _SignedAbsolute() if op.name == "absolute" else op
        return Tensor(tensor.spec, op=new, inputs=operands, attrs=tensor.attrs)

    return _drawn_again(recurrence, again)


def _spelt_out(recurrence: Recurrence) -> Recurrence:
    """Return the recurrence with what the formulas of others' pointwise ops draw in place of these ops, if they can."""

    def again(tensor: Tensor, op: Op, operands: list[Tensor]) -> Tensor:
        if isinstance(op, Pointwise) and op.derivatives and getattr(ops, op.name, None) is not op:
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                drawn = op.formula(*operands)
                if isinstance(drawn, Tensor) and drawn.spec == tensor.spec:
                    return drawn
        return Tensor(tensor.spec, op=op, inputs=operands, attrs=tensor.attrs)

    return _drawn_again(recurrence, again)


def _drawn_again(recurrence: Recurrence, again: Callable[[Tensor, Op, list[Tensor]], Tensor]) -> Recurrence:
    graph = recurrence.graph
    new: dict[Tensor, Tensor] = {}
    for tensor in graph.order:
        if tensor.op is not None:
            new[tensor] = again(tensor, tensor.op, [new.get(operand, operand) for operand in tensor.inputs])
    step = StepGraph(
        sequences=graph.sequences,
        constants=graph.constants,
        states=graph.states,
        outputs=[new.get(t, t) for t in graph.outputs],
        new_states=[new.get(t, t) for t in graph.new_states],
    )
    return replace(recurrence, graph=step)


class _StandIn(Op):
    """Shapes as those of pointwise ops with one operand that decides."""

    name = "stand_in"

    def infer(self, *operands: Spec, **attrs: Any) -> Spec:
        return Spec(broadcast_shapes(self.name, *(operand.shape for operand in operands)), operands[0].dtype)


class _Record(_StandIn):
    """Computes the op and remembers, call after call, what it answered."""

    def __init__(self, tensor: Tensor, recorded: dict[Tensor, list[Array]]):
        self.op, self.calls = tensor.op, recorded.setdefault(tensor, [])

    def forward(self, *operands: Any, **attrs: Any) -> Any:
        self.calls.append(self.op.forward(*operands, **attrs))  # type: ignore[union-attr]
        return self.calls[-1]


class _Replay(_StandIn):
    """Answers what the record holds, call after call, whatever its operands are now."""

    def __init__(self, calls: Iterator[Array]):
        self.calls = calls

    def forward(self, *operands: Any, **attrs: Any) -> Any:
        return next(self.calls)


class _SignedAbsolute(_StandIn):
    """|x| written so that it is analytic on both sides of zero."""

    def forward(self, *operands: Any, **attrs: Any) -> Any:
        return np.where(np.real(operands[0]) < 0, -operands[0], operands[0])
