"""Cells. `rsref.cells.basic` holds readable ones; those here have Keras's options and weight layout."""

from rsref.cells.attention import AttentionDecoderCell
from rsref.cells.base import RNNCell, RNNCellFromModel
from rsref.cells.gru import GRUCell, MinimalGatedCell
from rsref.cells.highway import RHNCell
from rsref.cells.lstm import LSTMCell, PeepholeLSTMCell
from rsref.cells.normalized import LayerNormGRUCell, LayerNormLSTMCell
from rsref.cells.simple import IndRNNCell, SimpleRNNCell
from rsref.cells.weighted_average import RWACell

__all__ = [
    "AttentionDecoderCell",
    "GRUCell",
    "IndRNNCell",
    "LSTMCell",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "MinimalGatedCell",
    "PeepholeLSTMCell",
    "RHNCell",
    "RNNCell",
    "RNNCellFromModel",
    "RWACell",
    "SimpleRNNCell",
]
