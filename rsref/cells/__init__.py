"""Cells. `rsref.cells.basic` holds readable ones; those here have Keras's options and weight layout."""

from rsref.cells import basic as basic
from rsref.cells.attention import AttentionDecoderCell
from rsref.cells.base import RNNCell, RNNCellFromModel
from rsref.cells.convolutional import ConvLSTMCell
from rsref.cells.exponential import MLSTMCell, SLSTMCell
from rsref.cells.gru import GRUCell, MinimalGatedCell
from rsref.cells.highway import RHNCell
from rsref.cells.lstm import LSTMCell, PeepholeLSTMCell
from rsref.cells.normalized import LayerNormGRUCell, LayerNormLSTMCell
from rsref.cells.parallel import MinGRUCell, MinLSTMCell
from rsref.cells.simple import IndRNNCell, SimpleRNNCell
from rsref.cells.weighted_average import RWACell
from rsref.cells.wrapper import LayerCell

__all__ = [
    "AttentionDecoderCell",
    "ConvLSTMCell",
    "GRUCell",
    "IndRNNCell",
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
]
