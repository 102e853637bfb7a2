"""keras_bridge: Keras 3 layers from a step drawn with Keras's functional API, computed by Keras or by rsref."""

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name == "keras":
        raise ModuleNotFoundError('keras_bridge needs Keras 3: pip install "rsref[keras]"', name="keras") from error
    needed = str(error.name).partition(".")[0]
    extra = {"jax": "keras", "torch": "torch"}.get(needed, "tensorflow")
    raise ModuleNotFoundError(
        f"Keras's backend needs {needed}, which is not installed; the variable KERAS_BACKEND names another "
        f'("jax", "torch" or "tensorflow") that is, or pip install "rsref[{extra}]"',
        name=error.name,
    ) from error

from keras_bridge import cells, convert
from keras_bridge.cells import *
from keras_bridge.convert import accelerate, export, from_keras, to_keras
from keras_bridge.copying import copy_weights
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
    "copy_weights",
    "export",
    "from_keras",
    "get_engine",
    "set_engine",
    "to_keras",
    "use_engine",
]
__all__ += cells.__all__
