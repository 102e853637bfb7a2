"""One case on both sides: a Keras layer on some engine, and rsref's layer with the same weights."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_bridge.checks import as_list
from tests.bridge.autodiff import BACKEND, gradients_of_layer
from tests.cross.kits import KERAS, RSREF, parameter_key

ENGINES = ("keras", "reference", "fast")
# Keras 3.15 keeps float64 throughout on TensorFlow alone: on JAX its tanh, on PyTorch its matmul compute in float32.
LIMITS = {"float64": 1e-10, "float32": 1e-5}


def tolerance(engine, dtype):
    """Return the largest error, relative to the largest value of an array, that is accepted."""
    exact = dtype == "float64" and (engine != "keras" or BACKEND == "tensorflow")
    return LIMITS["float64" if exact else "float32"]


@contextlib.contextmanager
def precision(dtype):
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


def factor(shape):
    """Fixed numbers by which answers are weighed in the loss, so that no gradient is like another."""
    return np.cos(1.0 + np.arange(np.prod(shape, dtype=int))).reshape(shape)


def weigh(answers):
    return sum(ops.sum(ops.cast(factor(tuple(v.shape)), v.dtype) * v) for v in answers)


def rounded(value, dtype):
    """Return floating arrays rounded to a dtype, so that both sides read the same numbers."""
    if isinstance(value, list):
        return [rounded(v, dtype) for v in value]
    floating = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(dtype) if floating else value


def compared(case, engine, dtype, spoil=False):
    """Return pairs (name, found, expected) of answers and gradients; spoil: change one weight of the Keras layer."""
    with precision(dtype):
        keras.utils.set_random_seed(0)
        layer = case.draw(KERAS, engine=engine, **case.options)
        x, call = rounded(case.x, dtype), {name: rounded(value, dtype) for name, value in case.call.items()}
        shapes = [a.shape for a in as_list(x)]
        layer.build(shapes if isinstance(x, list) else shapes[0])
        ours = case.draw(RSREF, **case.options)
        ours.build(*shapes)
        place = {parameter_key(variable.path): variable for variable in layer.weights}
        assert len(place) == len(layer.weights) == len(ours.weights)
        variables = [place[parameter_key(parameter.name)] for parameter in ours.weights]
        rng = np.random.default_rng(7)
        for variable, parameter in zip(variables, ours.weights, strict=True):
            value = rng.standard_normal(parameter.shape).astype(dtype)
            parameter.assign(value)
            variable.assign(value)
        if spoil:
            variables[0].assign(variables[0] + 0.05)
        given = dict(call)
        leaves = [*as_list(x), *as_list(given.pop("initial_state", None))]
        answers, gradients = gradients_of_layer(layer, leaves, len(as_list(x)), given, variables, weigh)
    expected, tape = ours.forward(x, **call)
    found = ours.backward(
        tape, [factor(y.shape) for y in expected] if isinstance(expected, list) else factor(expected.shape)
    )
    names = [f"answer {i}" for i in range(len(answers))] + [f"d leaf {i}" for i in range(len(leaves))]
    names += [f"d {parameter.name}" for parameter in ours.weights]
    states = found.initial_state if len(leaves) > len(as_list(x)) else []
    right = [*as_list(expected), *as_list(found.x), *states, *found.weights]
    return list(zip(names, [*answers, *gradients], right, strict=True))


def largest_error(pairs, least=0.0):
    """Return the largest difference, relative to the largest expected value of an array. least: see `assert_close`."""
    errors = [0.0]
    for name, found, expected in pairs:
        assert found.shape == expected.shape, f"{name}: {found.shape} against {expected.shape}"
        if expected.size:
            errors.append(float(np.abs(found - expected).max()) / (max(least, float(np.abs(expected).max())) or 1.0))
    assert not np.isnan(errors).any(), "NaN"
    return max(errors)
