"""Dropout masks that last for a whole sequence: drawn before the loop, held by the step's layers while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from keras_bridge.graph_layer import GraphLayer


def is_random(step: Any) -> bool:
    """Whether a step has a layer that draws random numbers."""
    return any(getattr(layer, "seed_generator", None) is not None for layer in step._flatten_layers())


@contextlib.contextmanager
def held_masks(step: Any, batch: Any, training: bool) -> Iterator[None]:
    """Let all layers of a step that keep one mask for a sequence draw it now, and forget it afterwards.

    Not the cells of Keras's recurrent layers within the step: each call of such a layer is a sequence of its own.
    """
    layers = list(step._flatten_layers()) if training else []
    nested = [layer for layer in layers if isinstance(layer, keras.layers.RNN)]
    theirs = {id(part) for layer in nested for part in layer._flatten_layers(include_self=False)}
    layers = [layer for layer in layers if id(layer) not in theirs]
    try:
        for layer in layers:
            if isinstance(layer, GraphLayer) and layer.noise:
                layer.hold_masks(batch)
            elif isinstance(layer, DropoutRNNCell):
                _hold_keras_masks(layer, batch)
        yield
    finally:
        for layer in layers:
            if isinstance(layer, GraphLayer):
                layer.drop_masks()
            elif isinstance(layer, DropoutRNNCell):
                layer.reset_dropout_mask()
                layer.reset_recurrent_dropout_mask()


def _hold_keras_masks(cell: Any, batch: Any) -> None:
    """Draw the masks of one of Keras's own cells anew: drawing the step symbolically may have left one in it."""
    cell.reset_dropout_mask()
    cell.reset_recurrent_dropout_mask()
    cell.get_dropout_mask(ops.ones((batch, cell.kernel.shape[0]), cell.compute_dtype))
    cell.get_recurrent_dropout_mask(ops.ones((batch, cell.units), cell.compute_dtype))
