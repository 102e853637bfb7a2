"""How often teacher forcing reads the truth: a number, a variable or a callable; checked, asked, saved and restored."""

from __future__ import annotations

from typing import Any

import keras

from keras_bridge.backend import answered_for_ever, array_now, is_compiling
from keras_bridge.checks import plain
from rsref.options import is_drawn


def check_probability(value: Any) -> Any:
    """Return False, or a probability: a number in [0, 1], a tensor, a variable, or a callable that answers one.

    Errors: TypeError or ValueError that name teacher_force; for that of a variable or a tensor, if it is known.
    """
    value = plain(value)
    if value is None or value is False:
        return False
    if value is True:
        return 1.0
    if isinstance(value, int | float):
        if not 0 <= value <= 1:
            raise ValueError(f"teacher_force must be a probability in [0, 1]; got {value!r}")
        return float(value)
    if isinstance(value, keras.Variable) or keras.ops.is_tensor(value):
        found = array_now(value)
        if found is not None and not ((found >= 0) & (found <= 1)).all():
            raise ValueError(f"teacher_force must be a probability in [0, 1]; the value of {value!r} is {found}")
        return value
    if callable(value):
        return value
    raise TypeError(f"teacher_force must be a bool, a probability, a keras.Variable or a callable; got {value!r}")


def keep(layer: Any, value: Any) -> None:
    """Set a recurrent layer's teacher_force, past Keras, for which a variable is a weight.

    Errors: those of `check_probability`; AttributeError if the layer's step was drawn without teacher forcing.
    """
    value = check_probability(value)
    if is_drawn(layer) and value is not False and layer.forced_recurrence is None:
        raise AttributeError(
            f"{layer.name}: the step was drawn with teacher_force=False, and cannot be forced any more: make a new "
            "layer with a teacher_force, which may be 0.0 at first"
        )
    if isinstance(value, keras.Variable):
        value.trainable = False
    object.__setattr__(layer, "teacher_force", value)


def probability_now(value: Any, like: Any) -> Any:
    """Return the probability of a call as a number, a tensor or a variable; a callable is called.

    like: a tensor of the call, which tells whether code is being compiled.
    Errors: ValueError for a callable whose answer compiled code would keep.
    """
    if not callable(value) or isinstance(value, keras.Variable):
        return check_probability(value)
    if not is_compiling(like):
        return _answered(value)
    answer, kept = answered_for_ever(lambda: keras.ops.convert_to_tensor(_answered(value), "float32"))
    if kept:
        raise ValueError(
            "teacher_force is a callable, and compiled code would keep what it answers now for ever: give a "
            "keras.Variable instead of the callable, or compile the model with run_eagerly=True"
        )
    return answer


def _answered(value: Any) -> Any:
    """Return what a callable answers."""
    answer = check_probability(value())
    if callable(answer) and not isinstance(answer, keras.Variable):
        raise TypeError(f"teacher_force must answer a probability or a keras.Variable; got {answer!r}")
    return answer


def saved(value: Any) -> Any:
    """Return a checked teacher_force argument as plain data: a variable as its value now."""
    if isinstance(value, keras.Variable):
        return {"variable": float(keras.ops.convert_to_numpy(value))}
    if keras.ops.is_tensor(value):
        return float(keras.ops.convert_to_numpy(value))
    return value if isinstance(value, bool | float) else keras.saving.serialize_keras_object(value)


def restored(value: Any) -> Any:
    """Return a teacher_force argument from plain data."""
    if isinstance(value, dict) and "variable" in value:
        return keras.Variable(value["variable"], trainable=False, name="teacher_force")
    return keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
