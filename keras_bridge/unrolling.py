"""A recurrent layer inside a drawn step, Keras's own or one of ours, said timestep by timestep."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import tree

from keras_bridge.trace_error import TraceError
from rsref import ops
from rsref.tensor import Tensor, constant

Step = Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]


def unrolled(tracer: Any, layer: Any, arguments: Any, keywords: dict[str, Any], path: str) -> list[Tensor]:
    """Return the answer of a recurrent layer drawn step by step, given what it is called with.

    Errors: TraceError if the number of steps is unknown, or the layer does more than run a step over one sequence.
    """
    named = inspect.signature(layer.call).bind(*arguments, **keywords).arguments
    given = {name: _tensors(value) for name, value in named.items()}
    x, *others = given.pop(next(iter(named)))
    own, read = given.pop("initial_state", []), given.pop("initial_readout", [])
    step, states = _ours(tracer, layer, path) if hasattr(layer, "recurrence") else _of_keras(tracer, layer, path)
    count = layer.num_states if hasattr(layer, "recurrence") else len(states)  # the readouts' states follow
    if (
        others or any(given.values()) or layer.stateful
        or x.ndim < 3 or x.shape[1] is None
        or len(own) not in (0, count) or len(read) not in (0, len(states) - count)
    ):  # fmt: skip
        raise TraceError(
            f"{path}: a recurrent layer inside a step is traced if its number of steps is known and it has neither "
            f'mask nor stateful; engine="keras" runs it'
        )
    states, outputs = [*(own or states[:count]), *(read or states[count:])], []
    for t in range(x.shape[1])[::-1] if layer.go_backwards else range(x.shape[1]):
        y, states = step(x[:, t], states)
        outputs.append(y)
    answer = ops.stack(outputs, 1) if layer.return_sequences else outputs[-1]
    return [answer, *(states if layer.return_state else [])]


def _tensors(value: Any) -> list[Tensor]:
    return [one for one in tree.flatten(value) if isinstance(one, Tensor)]


def _of_keras(tracer: Any, layer: Any, path: str) -> tuple[Step, list[Tensor]]:
    from keras_bridge.cells.base import plain, starts_its_states  # whose full cells are opened by the tracer

    sizes = plain(layer.cell.state_size)
    nested = isinstance(sizes, list)
    if -1 in tree.flatten(sizes):  # which Keras's ConvLSTMCells say
        raise TraceError(f'{path}: states that are no vectors are not traced; engine="keras" runs it')

    if starts_its_states(layer.cell):
        raise TraceError(f'{path}: states that start from get_initial_state are not traced; engine="keras" runs it')

    def step(x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        held = tree.pack_sequence_as(sizes, states) if nested else states
        y, *new = tracer.operation(layer.cell, (x, held), {}, f"{path}/{layer.cell.name}")
        return y, new

    return step, [constant(np.zeros((1, size))) for size in tree.flatten(sizes)]


def _ours(tracer: Any, layer: Any, path: str) -> tuple[Step, list[Tensor]]:
    recurrence, memory = layer.recurrence, layer.memory
    if (recurrence.sequences, recurrence.constants, recurrence.outputs) != (1, 0, 1) or layer.truncate is not None:
        raise TraceError(f'{path}: a recurrent layer of this kind inside a step is not traced; engine="keras" runs it')
    states = []
    for shape, initializer, learned in zip(memory.shapes, memory.initializers, memory.learned):
        if learned is not None:
            states.append(ops.expand_dims(tracer.parameter(learned), 0))
        elif initializer is None or type(initializer).__name__ == "Zeros":
            states.append(constant(np.zeros((1, *shape))))
        else:
            raise TraceError(f'{path}: states that start from {initializer} are not traced; engine="keras" runs it')

    def step(x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        y, *new = tracer.walk(recurrence.model, [x, *states], path)
        return y, new

    return step, states
