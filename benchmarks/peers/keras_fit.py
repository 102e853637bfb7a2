"""Recurrent Shop's own speed test: three LSTMs, trained by `fit`, the way Keras users train."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.peers import Run
from benchmarks.peers.keras_layers import layer_of
from benchmarks.problems import Problem


def run(problem: Problem, kind: str) -> tuple[Run, Callable[[], Any]]:
    """Return the model's prediction with what one step of a rate of 1 takes from the weights, and an epoch."""
    case = problem.case
    inputs = keras.Input(batch_shape=problem.x.shape)
    model = keras.Model(inputs, layer_of(problem, kind)(inputs))
    x, y = (np.concatenate([a] * case.batches) for a in (problem.x, np.zeros_like(problem.dy)))

    def first() -> dict[str, Any]:
        model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
        found, before = {"y": model.predict_on_batch(problem.x)}, model.get_weights()
        model.train_on_batch(problem.x, np.zeros_like(problem.dy))
        found |= {f"w{i}": old - new for i, (old, new) in enumerate(zip(before, model.get_weights()))}
        model.set_weights(before)
        model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse")
        return found

    return first, lambda: model.fit(x, y, batch_size=case.batch, epochs=1, verbose=0, shuffle=False)
