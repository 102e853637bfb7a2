"""Keras's own recurrent layers as layers of this library and back, weights copied; and whole models."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
from keras.layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    ConvLSTM1D,
    ConvLSTM2D,
    ConvLSTM3D,
    SimpleRNN,
    TimeDistributed,
)
from keras.src.export.export_utils import get_input_signature

from keras_bridge import cells
from keras_bridge.cells.base import KerasCell
from keras_bridge.checks import stateful_in_a_graph
from keras_bridge.engines import use_engine
from keras_bridge.loop import RecurrentLayer
from keras_bridge.recurrent import RecurrentSequential
from keras_bridge.stock import is_graph

LOOP_OPTIONS = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll", "zero_output_for_mask")
COMMON = (
    *("use_bias", "kernel_initializer", "recurrent_initializer", "bias_initializer", "kernel_regularizer"),
    *("recurrent_regularizer", "bias_regularizer", "kernel_constraint", "recurrent_constraint", "bias_constraint"),
    *("activation", "dropout", "recurrent_dropout", "seed"),
)
CONVOLUTION = ("filters", "kernel_size", "strides", "padding", "dilation_rate")
GATES = ("recurrent_activation", "unit_forget_bias")
# Keras's layer, our cell, and the options that both have beside the common ones
FULL: list[tuple[type, Any, tuple[str, ...]]] = [
    (SimpleRNN, cells.SimpleRNNCell, ("units",)),
    (GRU, cells.GRUCell, ("units", "recurrent_activation", "reset_after")),
    (LSTM, cells.LSTMCell, ("units", *GATES)),
    *((layer, cells.ConvLSTMCell, (*CONVOLUTION, *GATES)) for layer in (ConvLSTM1D, ConvLSTM2D, ConvLSTM3D)),
]


AS_THEY_ARE = ("activation", "regularizer", "constraint")
"""Options that may be functions, of which Keras makes no others."""

KERAS_ORDER = ("initial_state", "mask", "training")


@keras.saving.register_keras_serializable("keras_bridge")
class ConvertedSequential(RecurrentSequential):
    """What one of Keras's layers is converted to: where initial_state is given, only an explicit mask counts, as there.

    Keras hands the mask of the layers before to a layer of its own in calls of one tensor alone. It passes on the mask
    as it came, also where outputs are in the other order.
    """

    takes_masks_beside_states = turns_masks = False

    def __call__(self, sequences: Any, *arguments: Any, **options: Any) -> Any:
        """Call the layer: by position with initial_state, mask and training, as Keras's own."""
        if len(arguments) > len(KERAS_ORDER):
            raise TypeError(f"{self.name} takes {len(KERAS_ORDER)} arguments beside sequences; got {len(arguments)}")
        return super().__call__(sequences, **dict(zip(KERAS_ORDER, arguments)), **options)


def from_keras(layer: Any, **options: Any) -> Any:
    """Return one of Keras's recurrent layers as a layer of this library, with the same weights if it is built.

    layer: SimpleRNN, GRU, LSTM, ConvLSTM1D to 3D, RNN around any cell, or a Bidirectional around one of them.
    options: instead of the layer's own, such as engine="reference".
    States of stacked cells: initial_state may be nested, as in Keras; with return_state the answer is flat.
    Errors: TypeError for any other layer; ValueError for a ConvLSTM of data_format="channels_first".
    """
    if type(layer) is Bidirectional:
        return _both_ways(layer, lambda part: from_keras(part, **options))
    known = next((entry for entry in FULL if type(layer) is entry[0]), None)
    if known is None and type(layer) is not RNN:
        raise TypeError(
            f"from_keras takes SimpleRNN, GRU, LSTM, ConvLSTM, RNN and Bidirectional; got {type(layer).__name__}"
        )
    config = layer.get_config()
    if config.get("data_format") == "channels_first":
        raise ValueError(f"{layer.name} has data_format='channels_first'; this library's ConvLSTM is channels_last")
    if known is not None:
        own = {name: config[name] for name in (*COMMON, *known[2]) if name in config}
        own |= {name: getattr(layer.cell, name) for name in own if name.endswith(AS_THEY_ARE)}  # not their mere names
        cell = known[1](name=layer.cell.name, dtype=layer.dtype_policy, **own)
    else:
        cell = KerasCell(type(layer.cell).from_config(layer.cell.get_config()), name=f"{layer.cell.name}_cell")
    loop = {name: config[name] for name in LOOP_OPTIONS if name in config}
    made = ConvertedSequential([cell], **{**_of_any_layer(layer), **loop, **options})
    if layer.built:
        _build(made, layer)
        copy_in_order(layer, made)
    return made


def to_keras(layer: Any) -> Any:
    """Return a layer of this library as one of Keras's own, with the same weights if it is built.

    layer: a RecurrentSequential of one cell, SimpleRNN, GRU, LSTM, ConvLSTM or one of Keras's, with options that
        Keras's layers have; or a Bidirectional around one.
    Errors: TypeError or ValueError that say what has no counterpart.
    """
    if type(layer) is Bidirectional:
        return _both_ways(layer, to_keras)
    if not isinstance(layer, RecurrentSequential):
        raise TypeError(f"to_keras takes a RecurrentSequential or a Bidirectional; got {type(layer).__name__}")
    asked = {
        "readout": layer.readout,
        "decode": layer.decode,
        "truncate": layer.truncate,
        "state_sync": layer.state_sync,
    }
    asked |= {"teacher_force": layer.teacher_force, "state_initializer": layer.state_initializer}
    extra = [name for name, value in asked.items() if value]
    if extra or len(layer.layers) != 1:
        raise ValueError(f"{layer.name}: Keras's recurrent layers have one cell and no {', '.join(extra) or 'stack'}")
    (cell,) = layer.layers
    loop = {**_of_any_layer(layer), **{name: getattr(layer, name) for name in LOOP_OPTIONS}}
    if isinstance(cell, KerasCell):
        made = RNN(type(cell.cell).from_config(cell.cell.get_config()), **loop)
    else:
        made = _stock(layer, cell, loop)
    if layer.built:
        _build(made, layer)
        copy_in_order(layer, made)
    return made


def _stock(layer: Any, cell: Any, loop: dict[str, Any]) -> Any:
    entries = [entry for entry in FULL if type(cell) is entry[1]]
    if not entries:
        raise ValueError(f"{layer.name}: the cell {type(cell).__name__} has no counterpart among Keras's layers")
    keras_class, _, names = entries[0] if len(entries) == 1 else entries[_spatial_axes(layer, cell) - 1]
    config = cell.get_config()
    options = {name: config[name] for name in (*COMMON, *names) if name in config and name != "units"}
    first = {} if "filters" in names else {"units": cell.units}
    if "filters" in names:
        loop = {name: value for name, value in loop.items() if name != "unroll"}
        options.setdefault("filters", cell.units)
        options.setdefault("kernel_size", 3)
        options["data_format"] = "channels_last"
    return keras_class(**first, **options, **loop)


def _spatial_axes(layer: Any, cell: Any) -> int:
    """Return how many spatial axes a convolutional cell has: its class is one for all numbers."""
    if cell.model is not None:
        return len(cell.model.inputs[0].shape) - 2
    kernel_size = cell.get_config().get("kernel_size")
    if not isinstance(kernel_size, list | tuple):
        raise ValueError(f"{layer.name} does not say how many spatial axes it has: build it first")
    return len(kernel_size)


def _of_any_layer(layer: Any) -> dict[str, Any]:
    """Return the options of a layer that every layer of Keras has."""
    return {
        "name": layer.name,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
        "activity_regularizer": layer.activity_regularizer,
    }


def copy_in_order(source: Any, target: Any) -> None:
    """Copy the weights of a recurrent layer, and which are trained, into one of the same cells, on either side."""
    values, places = source.weights, target.weights
    if [tuple(w.shape) for w in values] != [tuple(w.shape) for w in places]:
        raise ValueError(f"the weights of {source.name} do not fit {target.name}")
    for place, value in zip(places, values):
        place.assign(keras.ops.convert_to_numpy(value))  # a copy: JAX gives the arrays of a trained model away
        place.trainable = value.trainable


def _build(made: Any, layer: Any) -> None:
    """Build a layer as another one is: under the names of the models around that, so that weights' paths differ."""
    around = (layer.path or layer.name).split("/")[:-1]
    with contextlib.ExitStack() as stack:
        for name in around:
            stack.enter_context(keras.name_scope(name))
        made.build(_built_shape(layer))


def _built_shape(layer: Any) -> tuple[int | None, ...]:
    config = layer.get_build_config() or {}
    shape = config.get("input_shape") or (config.get("shapes_dict") or {}).get("sequences_shape")
    if shape is None:
        raise ValueError(f"{layer.name} does not say for which shape it is built: call it first")
    return tuple(shape)


def _both_ways(layer: Any, convert: Any) -> Any:
    """Return a Bidirectional around the converted layers of one."""
    forward, backward = convert(layer.forward_layer), convert(layer.backward_layer)
    made = Bidirectional(forward, layer.merge_mode, backward_layer=backward, **_of_any_layer(layer))
    made.forward_layer.zero_output_for_mask = layer.forward_layer.zero_output_for_mask
    if layer.built:
        _build(made, layer)
        copy_in_order(forward, made.forward_layer)
    return made


def accelerate(model: Any, **options: Any) -> Any:
    """Return a copy of a model whose stock recurrent layers are this library's: same weights, same outputs.

    model: Functional or Sequential.
    Replaced: LSTM, GRU, SimpleRNN, RNN around any cell, ConvLSTM, and Bidirectional and TimeDistributed around them, in
    nested models too. A model with a `call` of its own within one is copied as it is, as other layers are.
    A compiled model is compiled again. options: of the new layers, such as engine="reference".
    Errors: ValueError for a subclassed model, or one with a `call` of its own, of which a copy would do something else;
    those of `from_keras`.
    """
    if not is_graph(model):
        kind = type(model).__name__
        raise ValueError(
            f"accelerate takes Functional and Sequential models; {kind} is neither, or has a call of its own"
        )
    pairs: list[tuple[Any, Any]] = []
    clones: dict[int, Any] = {}

    def clone(layer: Any) -> Any:
        if id(layer) not in clones:  # one of several places, or of several models
            clones[id(layer)] = cloned_anew(layer)
        return clones[id(layer)]

    def cloned_anew(layer: Any) -> Any:
        if type(layer) is TimeDistributed and _is_taken(layer.layer):
            made = TimeDistributed(from_keras(layer.layer, **options), **_of_any_layer(layer))
            if layer.built:
                _build(made, layer)
            return made
        if _is_taken(layer):
            return from_keras(layer, **options)
        if isinstance(layer, keras.layers.Lambda):  # which has no weights, and whose function may have no config
            return layer
        if is_graph(layer):
            return _cloned(layer, clone)
        copy = type(layer).from_config(layer.get_config())
        if isinstance(layer, keras.layers.Layer):  # else an operation, which has no weights
            pairs.append((layer, copy))
        return copy

    cloned = _cloned(model, clone)
    for source, target in pairs:
        target.set_weights(source.get_weights())
        for place, value in zip(target.weights, source.weights):
            place.trainable = value.trainable
        for old, new in zip(source._flatten_layers(), target._flatten_layers()):
            if hasattr(old, "adapt"):
                _copy_adapted(old, new)
    if model.compiled and type(model).compile is keras.Model.compile:
        cloned.compile(**_compiled_with(model))
    elif model.compiled:  # in a way of its own, which may take something else
        cloned.compile_from_config(model.get_compile_config())
    return cloned


def _compiled_with(model: Any) -> dict[str, Any]:
    """Return what a model was compiled with: new ones of what keeps numbers, all else as it is, functions too."""

    def anew(value: Any) -> Any:
        keeps = isinstance(value, keras.Metric | keras.Optimizer)
        return type(value).from_config(value.get_config()) if keeps else value

    found: dict[str, Any] = keras.tree.map_structure(anew, model._compile_config.config)
    return found


def _cloned(model: Any, clone: Callable[[Any], Any]) -> Any:
    """Return a copy of a model. Errors: ValueError if Keras makes one of another class, which may do something else."""
    compiled, model.compiled = model.compiled, False  # else Keras compiles the copy, which it cannot with own functions
    try:
        made = keras.models.clone_model(model, clone_function=clone)
    finally:
        model.compiled = compiled
    if type(made) is not type(model):
        raise ValueError(
            f"accelerate takes Functional and Sequential models; a copy of {model.name!r}, of the class "
            f"{type(model).__name__}, would be a mere {type(made).__name__}"
        )
    return made


def _is_taken(layer: Any) -> bool:
    """Whether `from_keras` takes a layer."""
    inner = layer.forward_layer if type(layer) is Bidirectional else layer
    return type(inner) is RNN or any(type(inner) is entry[0] for entry in FULL)


def _copy_adapted(source: Any, target: Any) -> None:
    """Copy what an adapted layer knows, as a saved model does: vocabularies are no weights, weights alone not used."""
    store: dict[str, Any] = {}
    source.save_own_variables(store)
    # a copy: JAX gives the arrays of a running model away
    target.load_own_variables({name: keras.ops.convert_to_numpy(value) for name, value in store.items()})
    if hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)


def export(model: Any, path: Any, **options: Any) -> None:
    """Export a model as `model.export`, its recurrent layers computed by Keras's own ops.

    Other engines call code that an exported graph cannot carry. Options as `keras.Model.export`.
    Errors: ValueError, naming the layer, for a graph that would answer other numbers than the model.
    """
    _check_exported(model, options)
    with use_engine("keras"):
        model.export(path, **options)


def _check_exported(model: Any, options: dict[str, Any]) -> None:
    """Refuse what a graph would silently do in another way: on PyTorch loops are unrolled, and states become constants.

    No state changes in an ONNX graph, whoever writes it.
    """
    unrolled = keras.backend.backend() == "torch"
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, RecurrentLayer)]
    for layer in layers:
        if layer.stateful and (unrolled or options.get("format") == "onnx"):
            raise stateful_in_a_graph(layer.name)
    looping = [layer for layer in layers if not layer.decode]
    if unrolled and looping:
        for spec in keras.tree.flatten(options.get("input_signature") or get_input_signature(model)):
            if None in spec.shape[1:]:
                raise ValueError(
                    f"{looping[0].name}: a graph exported from PyTorch runs a fixed number of steps: give it in "
                    f"input_signature or in keras.Input; an input has shape {tuple(spec.shape)}"
                )
