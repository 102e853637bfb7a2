"""From a step drawn with Keras to an rsref StepGraph, operation by operation.

A layer without a rule of its own is opened, see `keras_bridge.opening`: the operations that it records have rules. So
Dense, Lambda, subclassed layers and cells need no registration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_bridge import noise
from keras_bridge.backend import array_now, is_own_weight
from keras_bridge.dropped_masks import check_masks
from keras_bridge.graph_layer import GraphLayer
from keras_bridge.known_turns import OPERATIONS as TURNING
from keras_bridge.known_turns import KnownTurns
from keras_bridge.opening import AsAround, opened
from keras_bridge.rules import LAYERS, apply_rule, kind_of
from keras_bridge.rules.noise import RANDOM_LAYERS
from keras_bridge.stock import is_graph, is_stock
from keras_bridge.trace_error import TraceError, with_own_weight, without_counterpart
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
                if recorded and asked is not None and not isinstance(asked, AsAround):
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
            raise with_own_weight(path)
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
        if type(operation) in TURNING:
            return self.layer(KnownTurns(operation), arguments, keywords, path)
        try:
            results = apply_rule(operation, arguments, keywords)
        except TraceError as error:  # of a dtype
            raise TraceError(f"{path}: {error}") from error
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:  # the latter of axes without a length
            raise TraceError(
                f"{path}: {type(operation).__name__} has no counterpart in rsref for these arguments: {error}"
            ) from error
        if results is None:
            raise without_counterpart(operation, path)
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
        graph, variables = opened(layer, fresh, positions, options, held, path)
        return self.walk(graph, [*given, *(self.parameter(variable) for variable, _ in variables)], path)


def _check_whole(variable: Any) -> None:
    """Engines hold all weights as floats."""
    value = array_now(variable)
    if value is not None and np.abs(value.astype(np.float64)).max(initial=0) > 2**24:
        raise TraceError(
            f"the variable {variable.path!r} holds whole numbers beyond 2**24, which float32 does not tell apart; "
            f'engine="keras" runs it'
        )


def _keras_dtype(tensor: Tensor, layer: Any) -> str:
    return {"float": layer.compute_dtype, "int": "int32", "bool": "bool"}[tensor.dtype]
