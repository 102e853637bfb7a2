"""keras_bridge: Keras 3 layers from a step drawn with Keras's functional API, computed by Keras or by rsref."""

from keras_bridge.recurrent import RecurrentModel

__all__ = ["RecurrentModel"]
