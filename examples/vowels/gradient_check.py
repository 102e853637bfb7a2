"""The trained layer's gradients three ways: Keras's autodiff, rsref inside Keras, and rsref alone, all in float64."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import jax
import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import rsref
from keras_bridge import RecurrentModel

# Keras computes tanh of a float64 tensor in float32 on JAX, so its autodiff agrees to float32 only.
TOLERANCES = {"autodiff": 1e-5, "inside Keras": 1e-10}


def check_gradients(model: Any, draw_step: Callable[..., Any], units: int, x: np.ndarray, console: Console) -> bool:
    """Print a table of the gradients' differences for the first trained layer of a model; True if all agree.

    x: a batch of padded utterances; the loss is a fixed random weighing of the outputs of all valid steps.
    """
    wrapper = next(layer for layer in model.layers if isinstance(layer, keras.layers.Bidirectional))
    weights = [np.asarray(w, np.float64) for w in wrapper.forward_layer.get_weights()]
    names = ["/".join(w.path.split("/")[-2:]) for w in wrapper.forward_layer.trainable_weights]
    mask, x = np.abs(x).max(axis=-1) > 0, x.astype(np.float64)
    rng = np.random.default_rng(0)
    state, dy = rng.standard_normal((len(x), units)), rng.standard_normal((*x.shape[:2], units))
    ways = {
        "oracle": oracle_gradients(draw_step, weights, x, state, mask, dy),
        "autodiff": keras_gradients(draw_step, "keras", weights, x, state, mask, dy),
        "inside Keras": keras_gradients(draw_step, "reference", weights, x, state, mask, dy),
    }
    table = Table("gradient of", "shape", "largest", "Keras's autodiff", "rsref inside Keras")
    table.title = "Gradients against the rsref oracle (float64): largest difference, relative to the largest value"
    agree = True
    for i, name in enumerate(["x", "initial state", *names]):
        expected = ways["oracle"][i]
        scale = float(np.abs(expected).max())
        errors = {way: float(np.abs(ways[way][i] - expected).max()) / scale for way in TOLERANCES}
        agree = agree and all(error < TOLERANCES[way] for way, error in errors.items())
        table.add_row(name, str(expected.shape), f"{scale:.3g}", *(f"{error:.1e}" for error in errors.values()))
    console.print(table)
    limits = ", ".join(f"{limit:.0e} ({way})" for way, limit in TOLERANCES.items())
    console.print(f"gradients {'agree' if agree else 'DISAGREE'}; accepted differences: {limits}")
    return agree


def oracle_gradients(draw_step: Any, weights: Any, x: Any, state: Any, mask: Any, dy: Any) -> list[np.ndarray]:
    """The same drawing function, run with rsref's names instead of Keras's, and rsref's own backward pass."""
    draw = FunctionType(draw_step.__code__, vars(rsref))
    x_t, h_tm1, h_t = draw(x.shape[-1], state.shape[-1])
    rnn = rsref.RecurrentModel(x_t, h_t, h_tm1, h_t, return_sequences=True, zero_output_for_mask=True)
    rnn.set_weights(weights)
    _, tape = rnn.forward(x, initial_state=state, mask=mask)
    gradients = rnn.backward(tape, dy)
    return [gradients.x, gradients.initial_state[0], *gradients.weights]


def keras_gradients(
    draw_step: Any, engine: str, weights: Any, x: Any, state: Any, mask: Any, dy: Any
) -> list[np.ndarray]:
    """jax.grad through the Keras layer on one of its engines."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        with jax.enable_x64(True):
            x_t, h_tm1, h_t = draw_step(x.shape[-1], state.shape[-1])
            options = {"return_sequences": True, "zero_output_for_mask": True, "engine": engine}
            layer = RecurrentModel(x_t, h_t, h_tm1, h_t, **options)
            layer.build(x.shape)
            layer.set_weights(weights)
            fixed = [v.value for v in layer.non_trainable_variables]

            def loss(x: Any, state: Any, weights: Any) -> Any:
                y, _ = layer.stateless_call(weights, fixed, x, initial_state=[state], mask=mask)
                return (y * dy).sum()

            trainable = [v.value for v in layer.trainable_variables]
            d_x, d_state, d_weights = jax.grad(loss, argnums=(0, 1, 2))(*map(jax.numpy.asarray, (x, state)), trainable)
            return [np.asarray(d) for d in (d_x, d_state, *d_weights)]
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
