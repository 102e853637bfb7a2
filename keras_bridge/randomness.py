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

    The cell of a recurrent layer within the step does not: that layer draws masks for its own sequence, at each step.
    """
    found = list(step._flatten_layers()) if training else []
    within = {cell for layer in found if isinstance(layer, keras.layers.RNN) for cell in layer.cell._flatten_layers()}
    layers = [layer for layer in found if layer not in within]
    for layer in layers:
        if isinstance(layer, GraphLayer) and layer.noise:
            layer.hold_masks(batch)
        elif isinstance(layer, DropoutRNNCell) and isinstance(layer, keras.layers.Layer):
            _hold_keras_masks(layer, batch)
    try:
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
