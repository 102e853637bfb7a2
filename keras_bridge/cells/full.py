"""Full cells: those of `rsref.cells` as Keras layers, with Keras's options and weight layout."""

from __future__ import annotations

import inspect
import random
from typing import Any, ClassVar

import keras
import numpy as np

from keras_bridge.backend import outside_graphs
from keras_bridge.cells.base import RNNCell
from keras_bridge.emission import standard_dtype
from keras_bridge.graph_layer import GraphLayer
from rsref import activations, cells, initializers
from rsref.graph import substitute
from rsref.tensor import Tensor


class FullCell(RNNCell):
    """A cell of rsref as a Keras cell; its arguments are those of the class of the same name in `rsref.cells`.

    Activations, initializers, regularizers and constraints may be given by name or as objects of Keras; `seed` is that
    of the dropout masks, which last for a whole sequence.
    """

    reference: ClassVar[type[cells.RNNCell]]

    def __init__(self, *arguments: Any, seed: int | None = None, **options: Any):
        own = {name: options.pop(name) for name in ("name", "dtype", "trainable") if name in options}
        super().__init__(**own)
        parameters = inspect.signature(self.reference.__init__).parameters.values()
        names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
        if len(arguments) > len(names):
            raise TypeError(f"{type(self).__name__} takes at most {len(names)} positional arguments")
        doubled = sorted(set(names[: len(arguments)]) & set(options))
        if doubled:
            raise TypeError(f"{type(self).__name__} got two values for {', '.join(doubled)}")
        self.options = {**dict(zip(names, arguments)), **options}
        self.seed = seed
        self._draw_cell()  # so that a wrong option is answered here

    def _draw_cell(self) -> cells.RNNCell:
        translated = {key: _translated(key, value) for key, value in self.options.items()}
        return self.reference(name=self.name, **translated)

    @property
    def units(self) -> int:
        """The length of the state."""
        return int(getattr(self._draw_cell(), "units"))  # noqa: B009

    @property
    def mask_input(self) -> Any:
        return self.model.inputs[-1] if self.graph_layer.drawn.mask_input is not None else None

    def build_model(self, input_shape: tuple[int | None, ...]) -> Any:
        cell = self._draw_cell()
        with outside_graphs(), initializers.seeded(random.randrange(2**32)):  # keras.utils.set_random_seed seeds it
            cell.build(tuple(input_shape))
        self.graph_layer = GraphLayer(cell.model, seed=self.seed, name=self.name, dtype=self.dtype_policy)
        precision = standard_dtype(self.compute_dtype)
        leaves = [
            keras.Input(batch_shape=leaf.shape, dtype=precision if leaf.dtype == "float" else leaf.dtype)
            for leaf in self.graph_layer.leaves
        ]
        return keras.Model(leaves, self.graph_layer(leaves))

    def get_config(self) -> dict[str, Any]:
        options = {key: _serialized(key, value) for key, value in self.options.items()}
        return {**super().get_config(), "seed": self.seed, **options}


def _translated(key: str, value: Any) -> Any:
    """Return an option of Keras as rsref takes it."""
    if key.endswith("activation"):
        return _activation(value)
    if key.endswith("initializer") and not (isinstance(value, str) and value in initializers.INITIALIZERS):
        return _Initializer(keras.initializers.get(value))
    if key.endswith("regularizer") and value is not None:
        return _Regularizer(keras.regularizers.get(value))
    if key.endswith("constraint"):
        return keras.constraints.get(value)
    return value


def _activation(value: Any) -> Any:
    """Return an activation for rsref tensors: rsref's of that name, or the Keras function traced."""
    if value is None or isinstance(value, str):
        return activations.get(value or "linear")
    function = keras.activations.get(value)
    name = getattr(function, "__name__", "")
    if name in activations.ACTIVATIONS and function is getattr(keras.activations, name, None):
        return activations.get(name)

    def drawn(x: Tensor) -> Tensor:
        from keras_bridge.trace import trace  # which opens these cells

        inputs = keras.Input(batch_shape=x.shape)
        traced = trace(keras.Model(inputs, function(inputs)))
        if traced.variables:
            raise ValueError(f"the activation {function!r} has weights: put it behind the cell, as a layer of the step")
        return substitute(traced.outputs, {traced.inputs[0]: x})[0]

    return drawn


class _Initializer:
    """A Keras initializer that answers an array."""

    def __init__(self, of_keras: Any):
        self.of_keras = of_keras

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(self.of_keras(shape, dtype="float32")))


class _Regularizer:
    """A Keras regularizer on its way through rsref to the weight of a layer, where Keras computes it.

    Its gradient is asked for by rsref's own `regularization` alone, which no Keras layer calls.
    """

    def __init__(self, of_keras: Any):
        self.of_keras = of_keras

    def __call__(self, weight: np.ndarray) -> float:
        return float(keras.ops.convert_to_numpy(self.of_keras(keras.ops.convert_to_tensor(weight))))

    def gradient(self, weight: np.ndarray) -> np.ndarray:
        raise NotImplementedError("Keras differentiates its regularizers itself")


def _serialized(key: str, value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if key.endswith("activation"):
        return _serialized_activation(keras.activations.get(value))
    if key.endswith(("initializer", "regularizer", "constraint")):
        return keras.saving.serialize_keras_object(value)
    return value


def _serialized_activation(function: Any) -> Any:
    """Return an activation as plain data from which Keras finds this very function, and no other of its name."""
    name = getattr(function, "__name__", "")
    if function is getattr(keras.ops, name, None):
        return {"module": "keras.ops", "class_name": "function", "config": name, "registered_name": name}
    found = keras.activations.serialize(function)
    if isinstance(found, str) and keras.activations.get(found) is not function:
        raise ValueError(
            f"the activation {function!r} cannot be saved under its name, since Keras has another one named {found!r}: "
            f"give it a name of its own"
        )
    return found


def _full(reference: type[cells.RNNCell]) -> Any:
    """Make the Keras class of one of rsref's cells."""
    members = {"reference": reference, "__doc__": reference.__doc__, "__module__": __name__}
    made = type(reference.__name__, (FullCell,), members)
    return keras.saving.register_keras_serializable("keras_bridge")(made)


SimpleRNNCell = _full(cells.SimpleRNNCell)
GRUCell = _full(cells.GRUCell)
LSTMCell = _full(cells.LSTMCell)
PeepholeLSTMCell = _full(cells.PeepholeLSTMCell)
LayerNormLSTMCell = _full(cells.LayerNormLSTMCell)
LayerNormGRUCell = _full(cells.LayerNormGRUCell)
MinimalGatedCell = _full(cells.MinimalGatedCell)
IndRNNCell = _full(cells.IndRNNCell)
RHNCell = _full(cells.RHNCell)
RWACell = _full(cells.RWACell)
SLSTMCell = _full(cells.SLSTMCell)
MLSTMCell = _full(cells.MLSTMCell)
MinGRUCell = _full(cells.MinGRUCell)
MinLSTMCell = _full(cells.MinLSTMCell)
ConvLSTMCell = _full(cells.ConvLSTMCell)
AttentionDecoderCell = _full(cells.AttentionDecoderCell)
