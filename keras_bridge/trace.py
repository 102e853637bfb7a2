"""From a step drawn with Keras to an rsref StepGraph, operation by operation.

A layer without a rule of its own is opened: called on fresh symbolic inputs it records the keras.ops inside, and these
have rules. So Dense, Lambda, subclassed layers and cells need no registration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.backend.common import global_state
from keras.src.layers.layer import CallContext
from keras.src.ops.function import Function

from keras_bridge import noise
from keras_bridge.backend import array_now, is_own_weight, noting_gradients, variables_read
from keras_bridge.dropped_masks import check_masks
from keras_bridge.graph_layer import GraphLayer
from keras_bridge.rules import LAYERS, apply_rule, kind_of
from keras_bridge.rules.noise import RANDOM_LAYERS
from keras_bridge.stock import is_graph, is_stock
from keras_bridge.trace_error import TraceError
from keras_bridge.unrolling import unrolled
from rsref import ops
from rsref.tensor import Input, Parameter, Tensor, constant


@dataclass
class TracedStep:
    """A Keras step said with rsref's ops.

    inputs, outputs: rsref tensors in the order of the step model's. variables: the Keras variables that are the graph's
    parameters, with the rsref parameters that stand for them. generators: for noise of a layer that was given a
    seed, the layer's keras.random.SeedGenerator.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    variables: list[tuple[Any, Parameter]]
    generators: dict[Tensor, Any]


def trace(step: Any, training: bool = False) -> TracedStep:
    """Return a Keras functional model as rsref tensors; TraceError, naming layer or operation, if it cannot be."""
    tracer = _Tracer(training)
    inputs = [
        Input(batch_shape=tuple(tensor.shape), dtype=kind_of(tensor.dtype), name=tensor.name) for tensor in step.inputs
    ]
    outputs = tracer.walk(step, inputs, step.name)
    return TracedStep(inputs, outputs, list(tracer.variables.values()), tracer.generators)


class _Tracer:
    def __init__(self, training: bool):
        self.training = training
        self.generators: dict[Tensor, Any] = {}
        self.variables: dict[int, tuple[Any, Parameter]] = {}
        self.held = noise.Held()

    def walk(self, graph: Any, inputs: list[Tensor], path: str) -> list[Tensor]:
        """Return the outputs of a Keras graph of operations, given its inputs.

        The mode that a layer is drawn with in a model is not heeded: all runs in the call's, as in Keras's fit and
        predict. Only where a call says none Keras heeds it, but then hands it on to layers that are called later, too.
        """
        values = {id(own): tensor for own, tensor in zip(tree.flatten(graph.inputs), inputs)}
        recorded, training = not isinstance(graph, keras.layers.Layer), self.training
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                name = f"{path}/{node.operation.name}"
                arguments, keywords = tree.map_structure(
                    lambda v, name=name: self.value(v, values, name), (node.arguments.args, dict(node.arguments.kwargs))
                )
                check_masks(node, name)
                if getattr(node, "gradients_off", False):
                    what = "an operation within torch.no_grad, or in a function with a gradient of its own,"
                    raise TraceError(f'{name}: {what} is not traced; engine="keras" runs it')
                asked = keywords.get("training")
                if recorded and asked is not None and not isinstance(asked, _AsAround):
                    self.training = bool(asked)  # of this layer and all within it
                results = self.operation(node.operation, arguments, keywords, name)
                self.training = training
                for own, result in zip(node.outputs, results):
                    values[id(own)] = result
        return [self.value(tensor, values, path) for tensor in tree.flatten(graph.outputs)]

    def value(self, value: Any, values: dict[int, Tensor], path: str) -> Any:
        """Return what an argument stands for: a tensor of the graph, a parameter, an array, or itself."""
        if isinstance(value, keras.KerasTensor):
            return values[id(value)]
        if isinstance(value, keras.Variable):
            return self.parameter(value)
        if is_own_weight(value):
            raise _with_own_weight(path)
        if keras.ops.is_tensor(value) or isinstance(value, np.ndarray):
            return constant(keras.ops.convert_to_numpy(value))
        return value

    def parameter(self, variable: Any) -> Tensor:
        try:
            kind = kind_of(variable.dtype)
        except TraceError as error:
            raise TraceError(f"the variable {variable.path!r}: {error}") from error
        if id(variable) not in self.variables:
            if kind == "int":
                _check_whole(variable)
            parameter = Parameter(variable.path, np.zeros(variable.shape), variable.trainable)
            self.variables[id(variable)] = (variable, parameter)
        tensor = self.variables[id(variable)][1].tensor
        return tensor if kind == "float" else ops.cast(tensor, kind)

    def operation(self, operation: Any, arguments: Any, keywords: dict[str, Any], path: str) -> list[Tensor]:
        if is_graph(operation):
            graph = operation._functional if isinstance(operation, keras.Sequential) else operation
            return self.walk(graph, tree.flatten(arguments), path)
        if isinstance(operation, keras.layers.Layer):
            return self.layer(operation, arguments, keywords, path)
        try:
            results = apply_rule(operation, arguments, keywords)
        except TraceError as error:  # of a dtype
            raise TraceError(f"{path}: {error}") from error
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:  # the latter of axes without a length
            raise TraceError(
                f"{path}: {type(operation).__name__} has no counterpart in rsref for these arguments: {error}"
            ) from error
        if results is None:
            raise _without_counterpart(operation, path)
        return results

    def random(self, layer: Any, tensors: list[Tensor], path: str) -> list[Tensor]:
        """Draw a random layer with noise that comes from outside; at inference nothing is left of it."""
        if not self.training:
            return tensors
        (x,) = tensors
        y, drawn = noise.in_training(layer, x, path)
        self.draw_as_seeded(layer, drawn)
        return [y]

    def noise_of_graph(self, layer: GraphLayer) -> list[Tensor]:
        """Return what stands for the noise of a layer that rsref drew; at inference its mean does."""
        if not self.training:
            return [constant(noise.source_of(leaf).mean) for leaf in layer.noise]
        drawn = self.held.of_graph(layer)
        self.draw_as_seeded(layer, drawn)
        return drawn

    def masks_of_cell(self, layer: Any, tensors: list[Any], path: str) -> dict[str, Any]:
        """Return the masks that a cell of Keras's own has in training, by attribute."""
        if not self.training or not noise.keeps_masks(layer):
            return {}
        x, state, *_ = (one for one in tensors if isinstance(one, Tensor))
        masks = self.held.of_cell(layer, x, state, path)
        self.draw_as_seeded(layer, [mask for mask in tree.flatten(masks) if mask is not None])
        return masks

    @contextlib.contextmanager
    def sequence_within(self) -> Iterator[None]:
        """Let what cells keep for a sequence live for a step: theirs is that of a recurrent layer in the step."""
        kept, self.held = self.held, noise.Held("step")
        try:
            yield
        finally:
            self.held = kept

    def draw_as_seeded(self, layer: Any, drawn: list[Tensor]) -> None:
        """Let the seed of a layer count for its noise, if it was given one."""
        if layer.seed is not None:
            self.generators.update(dict.fromkeys(drawn, layer.seed_generator))

    def layer(self, layer: Any, arguments: Any, keywords: dict[str, Any], path: str) -> list[Tensor]:
        """Open a layer: record what its call does to fresh symbolic inputs, and follow that."""
        if isinstance(layer, GraphLayer):
            return layer.draw(tree.flatten(arguments), self.parameter, self.noise_of_graph(layer))
        if isinstance(layer, keras.layers.RNN) or hasattr(layer, "recurrence"):
            if not is_stock(layer):
                what = "a recurrent layer with a call of its own inside a step"
                raise TraceError(f'{path}: {what} is not traced; engine="keras" runs it')
            with self.sequence_within():
                return unrolled(self, layer, arguments, keywords, path)
        if layer.quantization_mode is not None:  # Keras calls then not call, but quantized_call
            raise TraceError(f'{path}: quantized weights are not traced; engine="keras" runs it')
        if type(layer) in RANDOM_LAYERS:
            return self.random(layer, tree.flatten(arguments), path)
        options = {name: value for name, value in keywords.items() if name != "training"}
        if type(layer) in LAYERS:
            return [LAYERS[type(layer)](layer, *arguments, **options)]
        cell_masks = self.masks_of_cell(layer, tree.flatten((arguments, options)), path)
        given: list[Tensor] = []
        fresh: list[Any] = []

        def symbol(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            given.append(value)
            fresh.append(keras.Input(batch_shape=value.shape, dtype=_keras_dtype(value, layer)))
            return fresh[-1]

        positions, options, held = tree.map_structure(symbol, (arguments, options, cell_masks))
        if layer._call_has_training_arg:
            options["training"] = self.training
        graph, variables = _recorded(layer, fresh, positions, options, held, path)
        again, _ = _recorded(layer, fresh, positions, options, held, path)
        if _constants_of(graph) != _constants_of(again):
            raise TraceError(
                f"{path}: the layer {type(layer).__name__} computes something else at each call, as where it draws "
                f'numbers by other means than keras.random; engine="keras" runs it'
            )
        return self.walk(graph, [*given, *(self.parameter(variable) for variable, _ in variables)], path)


def _recorded(
    layer: Any, inputs: list[Any], positions: Any, options: Any, held: dict[str, Any], path: str
) -> tuple[Function, list[tuple[Any, Any]]]:
    """Return the graph of what a layer's call does, and the variables that are inputs of it after the given ones."""
    with noise.resting(layer), variables_read() as read, symbolic_attributes(layer, held) as variables:
        try:
            with _NoValues(), _call_context(), _lone_slices(), noting_gradients():
                outputs = tree.flatten(layer.call(*positions, **options))
        except TraceError as error:  # of `_NoValues`, which knows no layer
            raise TraceError(f"{path}: {error}") from error
        except Exception as error:
            raise TraceError(
                f"{path}: the layer {type(layer).__name__} cannot be called on symbolic tensors, nor be traced "
                f'({type(error).__name__}: {error}); engine="keras" runs it'
            ) from error
    graph = Function([*inputs, *(symbol for _, symbol in variables)], outputs)
    parts = [layer, *(part for part in graph.operations if isinstance(part, keras.layers.Layer))]
    known = {id(variable._value) for part in parts for variable in part.variables}
    if any(id(one) not in known for one in read):
        raise _with_own_weight(path)
    for one in graph.inputs:  # a branch of `ops.cond` may answer one, which is then the answer of both to Keras
        operation = one._keras_history.operation
        if not isinstance(operation, keras.layers.InputLayer):
            raise _without_counterpart(operation, f"{path}/{operation.name}")
    return graph, variables


def _constants_of(graph: Function) -> list[Any]:
    """Return the operations of a graph with all numbers that they are given, to be compared."""
    found: list[Any] = []
    for depth in sorted(graph._nodes_by_depth):
        for node in graph._nodes_by_depth[depth]:
            operation = node.operation
            own = (
                () if isinstance(operation, keras.layers.Layer) else vars(operation).values()
            )  # layers are opened, too
            found.append((type(operation), repr([v for v in own if isinstance(v, int | float | tuple)])))
            for value in tree.flatten((node.arguments.args, dict(node.arguments.kwargs))):
                if keras.ops.is_tensor(value) or isinstance(value, np.ndarray):
                    value = keras.ops.convert_to_numpy(value)
                    found.append((value.dtype, value.shape, value.tobytes()))
                elif isinstance(value, int | float):
                    found.append(repr(value))
    return found


class _AsAround(int):
    """The training argument that Keras hands to layers called by an opened layer that do not give one themselves."""


@contextlib.contextmanager
def _call_context() -> Iterator[None]:
    """Let layers called within know no call around them but the one that opens a layer."""
    kept, own = global_state.get_global_attribute("current_call_ctx"), CallContext(entry_layer=None)
    own.set_value("training", _AsAround(False))
    global_state.set_global_attribute("current_call_ctx", own)
    try:
        yield
    finally:
        global_state.set_global_attribute("current_call_ctx", kept)


@contextlib.contextmanager
def _lone_slices() -> Iterator[None]:
    """Let symbolic tensors have x[:n] and x[...], as all others have; Keras's own take these within a tuple alone."""
    keras.KerasTensor.__getitem__ = lambda x, key: GET_ITEM(x, (key,) if _is_lone(key) else key)
    try:
        yield
    finally:
        keras.KerasTensor.__getitem__ = GET_ITEM


GET_ITEM = keras.KerasTensor.__getitem__


def _is_lone(key: Any) -> bool:
    return key is None or key is Ellipsis or isinstance(key, slice)


@contextlib.contextmanager
def symbolic_attributes(layer: Any, others: dict[str, Any]) -> Iterator[list[tuple[Any, Any]]]:
    """Let a layer hold symbolic tensors in place of its own variables, so that what it computes of them is recorded.

    others: more of them, by the attribute that they stand for.
    Without this an op on a variable alone would be computed at once, and its value kept in the graph for ever.
    Activations of Keras that take no symbolic tensor stand as operations that do.
    """
    pairs: list[tuple[Any, Any]] = []
    known: dict[int, Any] = {}

    def symbol(value: Any) -> Any:
        if isinstance(value, keras.Variable):
            if id(value) not in known:
                dtype = layer.compute_dtype if "float" in value.dtype else value.dtype
                known[id(value)] = one = keras.Input(batch_shape=value.shape, dtype=dtype)
                one.assign = one.assign_add = one.assign_sub = partial(_refuse_to_set, value)
                pairs.append((value, known[id(value)]))
            return known[id(value)]
        if isinstance(value, list | tuple):
            return [symbol(one) for one in value]
        if isinstance(value, dict):
            return {name: symbol(one) for name, one in value.items()}
        return ACTIVATIONS.get(value, value) if isinstance(value, FunctionType) else value

    kept = {name: value for name, value in vars(layer).items() if _is_replaced(value) and name not in BOOKKEEPING}
    vars(layer).update({name: symbol(value) for name, value in kept.items()})
    kept.update((name, vars(layer).get(name)) for name in others)
    vars(layer).update(others)
    try:
        yield pairs
    finally:
        vars(layer).update(kept)


ACTIVATIONS = {
    keras.activations.mish: lambda x: x * keras.ops.tanh(keras.ops.softplus(x)),
    keras.activations.hard_silu: keras.ops.hard_silu,
    keras.activations.sparsemax: keras.ops.sparsemax,
}

BOOKKEEPING = ("_trainable_variables", "_non_trainable_variables", "_tracker", "_parameters", "_modules")


def _is_replaced(value: Any) -> bool:
    if isinstance(value, keras.Variable):
        return True
    if isinstance(value, FunctionType):
        return value in ACTIVATIONS
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(_is_replaced(part) for part in parts)


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


def _check_whole(variable: Any) -> None:
    """Engines hold all weights as floats."""
    value = array_now(variable)
    if value is not None and np.abs(value.astype(np.float64)).max(initial=0) > 2**24:
        raise TraceError(
            f"the variable {variable.path!r} holds whole numbers beyond 2**24, which float32 does not tell apart; "
            f'engine="keras" runs it'
        )


def _with_own_weight(path: str) -> TraceError:
    return TraceError(
        f"{path}: a weight that Keras does not know, such as a torch.nn.Parameter or a tf.Variable, is not traced; "
        f'make it by add_weight; engine="keras" runs it'
    )


def _without_counterpart(operation: Any, path: str) -> TraceError:
    return TraceError(
        f'{path}: the operation {type(operation).__name__} has no counterpart in rsref; engine="keras" runs it'
    )


def _keras_dtype(tensor: Tensor, layer: Any) -> str:
    return {"float": layer.compute_dtype, "int": "int32", "bool": "bool"}[tensor.dtype]
