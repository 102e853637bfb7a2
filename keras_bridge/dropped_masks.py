"""Masks that Keras hands to a layer while a step runs, though the drawn step does not say so."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from keras_bridge.stock import is_graph
from keras_bridge.trace_error import TraceError


def check_masks(node: Any, path: str) -> None:
    """Check that a trace sees every mask that a node's layer reads.

    Errors: TraceError if an input carries a mask, and the layer or one inside it reads masks, but is drawn without it.
    """
    layer = node.operation
    if not isinstance(layer, keras.layers.Layer) or all(_mask_of(x) is None for x in node.input_tensors):
        return
    readers = [one for one in layer._flatten_layers() if _reads_masks(one)]
    drawn = any(_is_mask(name) and value is not None for name, value in node.arguments.kwargs.items())
    if readers and not (readers == [layer] and drawn):
        raise TraceError(
            f"{path}: the mask that an input of {type(layer).__name__} carries is not traced, as it is none of the "
            f'arguments that the step is drawn with; engine="keras" runs it'
        )


def without_mask(tensor: Any) -> Any:
    """Return a tensor that carries no mask: Keras would hand a decoder's to the layers of the step."""
    return tensor if _mask_of(tensor) is None else keras.ops.copy(tensor)


def _mask_of(tensor: Any) -> Any:
    return getattr(tensor, "_keras_mask", None)


def _is_mask(argument: str) -> bool:
    return argument == "mask" or argument.endswith("_mask")


def _reads_masks(layer: Any) -> bool:
    """Whether a layer does something with masks itself, rather than hand them to the layers of its graph."""
    if is_graph(layer):
        return False
    return any(map(_is_mask, inspect.signature(layer.call).parameters))
