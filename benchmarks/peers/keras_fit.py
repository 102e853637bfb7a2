"""Recurrent Shop's own speed test: three LSTMs, trained by `fit`, the way Keras users train."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.peers import Run
from benchmarks.peers.keras_layers import layer_of
from benchmarks.problems import Problem


class Scale(keras.layers.Layer):
    """One weight for each feature: what Keras's fit itself takes is all that it takes."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.scale = self.add_weight(shape=shape[-1:])

    def call(self, x: Any) -> Any:
        return x * self.scale


def run(problem: Problem, kind: str) -> tuple[Run, Callable[[], Any]]:
    """Return the model's prediction with what one step of a rate of 1 takes from the weights, and an epoch.

    kind: as `keras_layers.layer_of`, or "idle" for a model that only scales its input, which is compared with nothing.
    """
    case, idle = problem.case, kind == "idle"
    inputs = keras.Input(batch_shape=problem.x.shape)
    model = keras.Model(inputs, (Scale() if idle else layer_of(problem, kind))(inputs))
    x, y = (np.concatenate([a] * case.batches) for a in (problem.x, np.zeros_like(problem.x if idle else problem.dy)))

    def first() -> dict[str, Any]:
        model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
        if idle:
            return {}
        found, before = {"y": model.predict_on_batch(problem.x)}, model.get_weights()
        model.train_on_batch(problem.x, np.zeros_like(problem.dy))
        found |= {f"w{i}": old - new for i, (old, new) in enumerate(zip(before, model.get_weights()))}
        model.set_weights(before)
        model.compile(optimizer=keras.optimizers.SGD(1e-3), loss="mse")
        return found

    return first, lambda: model.fit(x, y, batch_size=case.batch, epochs=1, verbose=0, shuffle=False)
