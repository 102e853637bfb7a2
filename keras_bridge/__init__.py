"""keras_bridge: Keras 3 layers from a step drawn with Keras's functional API, computed by Keras or by rsref."""

from keras_bridge import cells, convert
from keras_bridge.cells import *
from keras_bridge.convert import accelerate, export, from_keras, to_keras
from keras_bridge.engines import get_engine, set_engine, use_engine
from keras_bridge.loop import RecurrentLayer
from keras_bridge.memory import Learned
from keras_bridge.recurrent import CellOfLayer, RecurrentModel, RecurrentSequential
from keras_bridge.trace_error import TraceError

__all__ = [
    "CellOfLayer",
    "Learned",
    "RecurrentLayer",
    "RecurrentModel",
    "RecurrentSequential",
    "TraceError",
    "accelerate",
    "convert",
    "export",
    "from_keras",
    "get_engine",
    "set_engine",
    "to_keras",
    "use_engine",
]
__all__ += cells.__all__
