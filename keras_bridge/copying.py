"""Weights from a Keras layer to one of rsref, or back: both steps are walked together, so that no order counts."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_bridge import reference_engine
from keras_bridge.loop import RecurrentLayer
from rsref.graph import StepGraph
from rsref.handed import full_name
from rsref.loop import RecurrentLayer as OfRsref
from rsref.tensor import Parameter, Tensor


def copy_weights(source: Any, target: Any) -> None:
    """Copy the weights of a recurrent layer of Keras to one of rsref whose step was drawn alike, or the other way.

    Each lists its weights in an order of its own: Keras by the depth of the graph, rsref as they were made.
    Errors: TypeError for other layers; ValueError for one that is not built, or if the steps differ, naming where;
    TraceError for a step of Keras's that rsref's ops cannot say.
    """
    pair = {isinstance(one, RecurrentLayer): one for one in (source, target)}
    if len(pair) != 2 or not isinstance(pair[False], OfRsref):
        kinds = f"{full_name(source)} and {full_name(target)}"
        raise TypeError(f"copy_weights takes a recurrent layer of keras_bridge and one of rsref; got {kinds}")
    layer, own = pair[True], pair[False]
    for one, there in ((layer, layer.step is not None), (own, own.built)):
        if not there:
            raise ValueError(f"{one.name} is not built: call it once, or build it")
    for variable, parameter in _pairs(layer, own):
        if source is layer:
            parameter.assign(np.asarray(keras.ops.convert_to_numpy(variable.value), np.float64))
        else:
            variable.assign(parameter.value)


def _pairs(layer: Any, own: Any) -> list[tuple[Any, Parameter]]:
    """Return the weights of both layers, those that belong together in pairs."""
    try:
        found = _of_steps(layer, own, False)
    except ValueError as error:
        try:
            found = _of_steps(layer, own, True)  # dropout is a part of a step of Keras's in training alone
        except ValueError:
            raise ValueError(f"the steps of {layer.name} and {own.name} are not drawn alike: {error}") from error
    learned = [(a, b) for a, b in zip(layer.memory.learned, own.memory.learned) if a is not None or b is not None]
    if any(a is None or b is None for a, b in learned):
        raise ValueError(f"{layer.name} and {own.name} have not the same learned initial states")
    return [*found, *learned]


def _of_steps(layer: Any, own: Any, training: bool) -> list[tuple[Any, Parameter]]:
    traced, drawn = reference_engine.prepare(layer.recurrence, training), layer.recurrence
    matched = _matched(traced.graph, own.recurrence.graph, drawn.sequences, drawn.constants)
    place = dict(zip(traced.graph.parameters, traced.variables))
    return [(place[one], other) for one, other in matched.items()]


def _matched(one: StepGraph, other: StepGraph, sequences: int, constants: int) -> dict[Parameter, Parameter]:
    """Return which parameter stands where in another graph. Errors: ValueError, saying what differs.

    sequences, constants: how many of them were drawn; dropout masks and the like follow.
    """
    roots = [[*graph.outputs, *graph.new_states] for graph in (one, other)]
    if len(roots[0]) != len(roots[1]) or len(one.states) != len(other.states):
        raise ValueError("one has more outputs or states")
    leaves: dict[Tensor, str] = {}
    for graph in (one, other):
        for role, drawn in (
            ("input", graph.sequences[:sequences]), ("constant", graph.constants[:constants]), ("state", graph.states),
        ):  # fmt: skip
            leaves.update((leaf, f"{role} {i}") for i, leaf in enumerate(drawn))
    found: dict[Parameter, Parameter] = {}
    left = list(zip(*roots))
    seen = set(left)
    while left:
        a, b = left.pop()
        kinds = [f"{_kind(tensor, leaves)} of shape {tensor.shape}" for tensor in (a, b)]
        if kinds[0] != kinds[1] or len(a.inputs) != len(b.inputs):
            raise ValueError(f"{a!r} is {kinds[0]}, where {b!r} is {kinds[1]}")
        one_weight = isinstance(a.source, Parameter) and isinstance(b.source, Parameter)
        if one_weight and found.setdefault(a.source, b.source) is not b.source:
            raise ValueError(f"{a.source.name} stands where two weights of the other do")
        new = [pair for pair in zip(a.inputs, b.inputs) if pair not in seen]
        seen.update(new)
        left += new
    if len(set(found.values())) < len(found):
        raise ValueError("two weights of one stand where the same weight of the other does")
    return found


def _kind(tensor: Tensor, leaves: dict[Tensor, str]) -> str:
    if tensor.op is not None:
        return f"{tensor.op.name} {dict(tensor.attrs)}"
    return "a weight" if isinstance(tensor.source, Parameter) else leaves.get(tensor, "a number, or noise")
