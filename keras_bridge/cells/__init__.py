"""Cells for Keras. `keras_bridge.cells.basic` holds readable ones; those here have Keras's options and weights."""

from keras_bridge.cells import basic
from keras_bridge.cells.base import KerasCell, RNNCell, RNNCellFromModel
from keras_bridge.cells.full import (
    AttentionDecoderCell,
    ConvLSTMCell,
    FullCell,
    GRUCell,
    IndRNNCell,
    LayerNormGRUCell,
    LayerNormLSTMCell,
    LSTMCell,
    MinGRUCell,
    MinimalGatedCell,
    MinLSTMCell,
    MLSTMCell,
    PeepholeLSTMCell,
    RHNCell,
    RWACell,
    SimpleRNNCell,
    SLSTMCell,
)
from keras_bridge.cells.wrapper import LayerCell

__all__ = [
    "AttentionDecoderCell",
    "ConvLSTMCell",
    "FullCell",
    "GRUCell",
    "IndRNNCell",
    "KerasCell",
    "LSTMCell",
    "LayerCell",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "MLSTMCell",
    "MinGRUCell",
    "MinLSTMCell",
    "MinimalGatedCell",
    "PeepholeLSTMCell",
    "RHNCell",
    "RNNCell",
    "RNNCellFromModel",
    "RWACell",
    "SLSTMCell",
    "SimpleRNNCell",
    "basic",
]
