"""What a layer's call does, recorded as a graph: called on symbolic inputs, it records the keras.ops inside.

Whatever would be recorded as something else than it is, or as what it is by chance, is refused.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from types import FunctionType
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.backend.common import global_state
from keras.src.layers.layer import CallContext
from keras.src.ops import nn
from keras.src.ops.function import Function
from keras.src.utils.backend_utils import DynamicBackend, TFGraphScope

from keras_bridge import noise
from keras_bridge.backend import noting_gradients, variables_read
from keras_bridge.batch_sized import batch_sized
from keras_bridge.known_turns import known_turns
from keras_bridge.recorded_noise import recording_noise
from keras_bridge.replaced import ABSENT, replaced
from keras_bridge.trace_error import TraceError, not_recorded, with_own_weight, without_counterpart

RECORDING = threading.RLock()
"""Held while a layer is recorded: what Keras's classes then do differently is the same for all threads."""


def opened(
    layer: Any, inputs: list[Any], positions: Any, options: Any, held: dict[str, Any], path: str
) -> tuple[Function, list[tuple[Any, Any]]]:
    """Return the graph of what a layer's call does, and its further inputs: variables, with what stands for them.

    inputs: symbolic tensors, as they stand in the call's arguments: positions, options, and attributes that are held.
    Errors: TraceError, with the path, for what cannot be recorded.
    """
    with RECORDING, _as_before(layer):  # once both are recorded: the second one shows what the call keeps for the next
        graph, variables = _recorded(layer, inputs, positions, options, held, path)
        again, _ = _recorded(layer, inputs, positions, options, held, path)
    if _constants_of(graph) != _constants_of(again) or _computed(graph) & _computed(again):
        raise TraceError(
            f"{path}: the layer {type(layer).__name__} computes something else at each call, as where it draws "
            f'numbers by other means than keras.random, or reads what the last call left; engine="keras" runs it'
        )
    return graph, variables


@contextlib.contextmanager
def _as_before(layer: Any) -> Iterator[None]:
    """Undo what calls set in a layer: symbolic tensors, or counts of calls that were none."""
    before = dict(vars(layer))
    try:
        yield
    finally:
        for name in vars(layer).keys() - before:
            del vars(layer)[name]
        vars(layer).update(before)


def _recorded(
    layer: Any, inputs: list[Any], positions: Any, options: Any, held: dict[str, Any], path: str
) -> tuple[Function, list[tuple[Any, Any]]]:
    with noise.resting(layer), variables_read() as read, symbolic_attributes(layer, held) as variables:
        try:
            with _NoValues(), _scope(layer), noting_gradients(), _as_real_tensors(inputs):
                outputs = tree.flatten(layer.call(*positions, **options))
            graph = Function([*inputs, *(symbol for _, symbol in variables)], outputs)
        except TraceError as error:  # of `_NoValues`, which knows no layer
            raise TraceError(f"{path}: {error}") from error
        except Exception as error:
            raise not_recorded(layer, path, error) from error
    parts = [layer, *(part for part in graph.operations if isinstance(part, keras.layers.Layer))]
    known = {id(variable._value) for part in parts for variable in part.variables}
    if any(id(one) not in known for one in read):
        raise with_own_weight(path)
    for one in graph.inputs:  # a branch of `ops.cond` may answer one, which is then the answer of both to Keras
        operation = one._keras_history.operation
        if not isinstance(operation, keras.layers.InputLayer):
            raise without_counterpart(operation, f"{path}/{operation.name}")
    return graph, variables


def _computed(graph: Function) -> set[int]:
    """Return which operations a graph has, each as it was called."""
    return {id(node) for nodes in graph._nodes_by_depth.values() for node in nodes if not node.is_input}


def _constants_of(graph: Function) -> list[Any]:
    """Return the operations of a graph with all numbers that they are given, to be compared."""
    found: list[Any] = []
    for depth in sorted(graph._nodes_by_depth):
        for node in graph._nodes_by_depth[depth]:
            operation = node.operation
            # a layer within is opened by itself, and may count its calls; the rate is of dropout that the call draws
            layer = isinstance(operation, keras.layers.Layer)
            own = [vars(operation).get("rate")] if layer else vars(operation).values()
            found.append((type(operation), repr([v for v in own if isinstance(v, int | float | tuple)])))
            for value in tree.flatten((node.arguments.args, dict(node.arguments.kwargs))):
                if keras.ops.is_tensor(value) or isinstance(value, np.ndarray):
                    value = keras.ops.convert_to_numpy(value)
                    found.append((value.dtype, value.shape, value.tobytes()))
                elif isinstance(value, int | float):
                    found.append(repr(value))
    return found


class AsAround(int):
    """The training argument that Keras hands to layers called by an opened layer that do not give one themselves."""


@contextlib.contextmanager
def _scope(layer: Any) -> Iterator[None]:
    """Let layers called within know no call around them but the one that opens a layer.

    One made for tf.data is told to be in a graph: it then makes no tensor of what it answers.
    """
    kept, own = global_state.get_global_attribute("current_call_ctx"), CallContext(entry_layer=None)
    own.set_value("training", AsAround(False))
    global_state.set_global_attribute("current_call_ctx", own)
    try:
        with TFGraphScope() if isinstance(vars(layer).get("backend"), _Operations) else contextlib.nullcontext():
            yield
    finally:
        global_state.set_global_attribute("current_call_ctx", kept)


@contextlib.contextmanager
def _as_real_tensors(inputs: list[Any]) -> Iterator[None]:
    """Let symbolic tensors do what all others do, and Keras's own do not.

    They have x[:n] and x[...], which Keras's take within a tuple alone, places in an array, +x, arrays at the left of
    a sign, kernels of several groups of channels, a length of the batch that shapes may begin with, and noise.
    """
    as_others = replaced(
        keras.KerasTensor,
        __getitem__=_item,
        __pos__=lambda x: x,
        __array_ufunc__=None,  # arrays of NumPy then leave a sign to what is at its right
        __jax_array__=ABSENT,  # as those of JAX do without
    )
    with (
        as_others,
        replaced(nn, check_conv_input_channels=lambda *_: None),
        batch_sized(inputs),
        recording_noise(),
        known_turns(),
    ):
        yield


GET_ITEM = keras.KerasTensor.__getitem__


def _item(x: Any, key: Any) -> Any:
    keys = key if isinstance(key, tuple) else (key,)
    if not any(isinstance(one, np.ndarray) for one in keys):
        return GET_ITEM(x, keys if key is None or key is Ellipsis or isinstance(key, slice) else key)
    *before, last = keys
    whole = all(isinstance(one, slice) and one == slice(None) for one in before)
    if not whole or not isinstance(last, np.ndarray) or last.dtype.kind != "i":
        raise TypeError(f"an array as an index is traced after whole axes only; got {key!r}")
    return keras.ops.take(x, last, axis=len(before))


@contextlib.contextmanager
def symbolic_attributes(layer: Any, others: dict[str, Any]) -> Iterator[list[tuple[Any, Any]]]:
    """Let a layer hold symbolic tensors in place of its own variables, so that what it computes of them is recorded.

    others: more of them, by the attribute that they stand for.
    Without this an op on a variable alone would be computed at once, and its value kept in the graph for ever.
    What takes no symbolic tensor, such as some activations of Keras, stands as operations that do.
    """
    pairs: list[tuple[Any, Any]] = []
    known: dict[int, Any] = {}

    def symbol(value: Any) -> Any:
        if isinstance(value, keras.Variable):
            if id(value) not in known:
                dtype = layer.compute_dtype if "float" in value.dtype else value.dtype
                known[id(value)] = one = keras.Input(batch_shape=value.shape, dtype=dtype)
                one.value = one
                one.assign = one.assign_add = one.assign_sub = partial(_refuse_to_set, value)
                pairs.append((value, known[id(value)]))
            return known[id(value)]
        if isinstance(value, list | tuple):
            return [symbol(one) for one in value]
        if isinstance(value, dict):
            return {name: symbol(one) for name, one in value.items()}
        if isinstance(value, DynamicBackend):
            return _Operations()
        return ACTIVATIONS.get(value, value) if isinstance(value, FunctionType) else value

    replaced = {name: v for name, v in vars(layer).items() if _is_replaced(v) and name not in BOOKKEEPING}
    stand_ins = {name: symbol(value) for name, value in replaced.items()} | others | _own_ways(layer)
    kept = {name: vars(layer)[name] for name in stand_ins if name in vars(layer)}
    vars(layer).update(stand_ins)
    try:
        yield pairs
    finally:
        vars(layer).update(kept)
        for name in stand_ins.keys() - kept:
            del vars(layer)[name]


def _own_ways(layer: Any) -> dict[str, Any]:
    """Return what stands for attributes by which Keras's own layers do what no operation says.

    Bidirectional asks whether the backend runs both ways at once. TimeDistributed goes past `__call__`, which records.
    """
    found: dict[str, Any] = {}
    if isinstance(layer, keras.layers.Bidirectional):
        found |= dict.fromkeys(("_can_attempt_fused_lstm", "_can_attempt_fused_gru"), lambda *_: False)
    if isinstance(layer, keras.layers.TimeDistributed):
        found["layer"] = _Recorded(layer.layer)
    return found


class _Recorded:
    """A layer whose `call` is recorded as one of this layer."""

    def __init__(self, layer: Any):
        self._layer = layer

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._layer(*arguments, **options)

    call = __call__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


ACTIVATIONS = {
    keras.activations.mish: lambda x: x * keras.ops.tanh(keras.ops.softplus(x)),
    keras.activations.hard_silu: keras.ops.hard_silu,
    keras.activations.sparsemax: keras.ops.sparsemax,
}

BOOKKEEPING = ("_trainable_variables", "_non_trainable_variables", "_tracker", "_parameters", "_modules")


def _is_replaced(value: Any) -> bool:
    if isinstance(value, keras.Variable | DynamicBackend):
        return True
    if isinstance(value, FunctionType):
        return value in ACTIVATIONS
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(_is_replaced(part) for part in parts)


class _Operations:
    """Keras's operations under the names of the backend's functions, which layers made for tf.data call."""

    name, image = keras.backend.backend(), keras.ops.image

    def digitize(self, x: Any, bins: Any) -> Any:
        return keras.ops.digitize(x, np.asarray(bins))  # Discretization has a list

    def __getattr__(self, name: str) -> Any:
        return self if name in ("core", "linalg", "math", "nn", "numpy") else getattr(keras.ops, name)


class _NoValues(keras.StatelessScope):
    """A scope in which no variable has a value: a layer that reads or sets one is not traced.

    The number read would be kept, and what is set would be lost.
    """

    def get_current_value(self, variable: Any) -> Any:
        raise TraceError(
            f"the value of the variable {variable.path!r} is read while the step is traced, which would keep it for "
            f'ever; engine="keras" runs this step'
        )

    def add_update(self, update: Any) -> None:
        _refuse_to_set(*update)


def _refuse_to_set(variable: Any, _value: Any) -> None:
    raise TraceError(
        f"the variable {variable.path!r} is set while the step is traced, and a traced step sets none; "
        f'engine="keras" runs this step'
    )
