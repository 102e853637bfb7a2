"""What a call through Keras costs over the bare engine: `KERAS_BACKEND=... python -m benchmarks.bridge`.

A small LSTM layer (`--engine`: "fast" or "reference") is called 1 and 21 times in a row inside one compiled function (a
plain function on PyTorch); the difference, less the time of the bare calls of the engine on arrays, is the overhead of
one call. On JAX, XLA calls the kernels itself, which costs less than a call from Python: there it is below zero.
Forward alone, and forward with the gradient of the input and of all weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

import keras_bridge as kb
from keras_bridge.engines import module_of

BATCH, STEPS, UNITS = 4, 1, 8
GOALS = {"tensorflow": 150, "torch": 50, "jax": 350}
MORE = 21


def seconds(function: Callable[[], Any], rounds: int, repeat: int = 20) -> float:
    """Return the median time of a call, over rounds of calls."""
    for _ in range(3):
        function()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeat):
            function()
        found.append((time.perf_counter() - start) / repeat)
    return statistics.median(found)


def compiled(layer: Any, x: np.ndarray, calls: int, gradient: bool) -> Callable[[], Any]:
    """Return a function of no arguments that calls the layer so many times in a row, compiled where that exists."""
    backend = keras.backend.backend()

    def chain(y: Any) -> Any:
        for _ in range(calls):
            y = layer(y)
        return y

    if backend == "tensorflow":
        import tensorflow as tf

        given = tf.constant(x)
        weights = [v.value for v in layer.trainable_variables]

        @tf.function
        def run(given: Any) -> Any:
            if not gradient:
                return chain(given)
            with tf.GradientTape() as tape:
                tape.watch(given)
                loss = tf.reduce_sum(chain(given))
            return tape.gradient(loss, [given, *weights])

        return lambda: run(given)
    if backend == "jax":
        import jax

        variables = layer.trainable_variables

        def loss(given: Any, values: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return ops.sum(chain(given))

        values = [v.value for v in variables]
        function = jax.jit(jax.grad(loss, argnums=(0, 1)) if gradient else loss)
        array = jax.numpy.asarray(x)
        return lambda: jax.block_until_ready(function(array, values))
    import torch

    given = torch.tensor(x, requires_grad=gradient)

    def eager() -> Any:
        if not gradient:
            with torch.no_grad():
                return chain(given)
        return chain(given).sum().backward()

    return eager


def bare(layer: Any, name: str, x: np.ndarray, gradient: bool) -> Callable[[], Any]:
    """Return a function that runs the engine on arrays, as the call through Keras does."""
    traced = module_of(name).prepare(layer.recurrence, gradient)
    states = [np.zeros((BATCH, UNITS), "float32")] * 2
    arrays = [x, *states, *(np.asarray(ops.convert_to_numpy(v.value)) for v in traced.variables)]
    ones = [np.ones((BATCH, STEPS, UNITS), "float32"), *(np.zeros_like(s) for s in states)]
    if not gradient:
        return lambda: traced.forward(arrays, STEPS, False)
    return lambda: traced.backward(arrays, ones, STEPS, traced.forward(arrays, STEPS, True)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="fast", choices=("fast", "reference"))
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    arguments = parser.parse_args()
    backend = keras.backend.backend()
    layer = kb.LSTMCell(UNITS).get_layer(return_sequences=True, engine=arguments.engine)
    x = np.random.default_rng(0).standard_normal((BATCH, STEPS, UNITS)).astype("float32")
    layer(x)
    rows = []
    rounds = 5 if arguments.quick else 15
    for gradient in (False, True):
        one, many = (seconds(compiled(layer, x, calls, gradient), rounds) for calls in (1, MORE))
        engine = seconds(bare(layer, arguments.engine, x, gradient), rounds)
        call = (many - one) / (MORE - 1)
        rows.append(
            {
                "backend": backend,
                "name": arguments.engine,
                "gradient": gradient,
                "call": call,
                "engine": engine,
                "overhead": call - engine,
            }
        )
        print(
            f"{backend} {'forward and gradient' if gradient else 'forward'}: {call * 1e6:.1f} us a call, engine "
            f"{engine * 1e6:.0f} us, overhead {(call - engine) * 1e6:.0f} us (goal for forward {GOALS[backend]})"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
