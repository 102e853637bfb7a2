"""How much the reference engine's interpreter costs: rsref's LSTM against a hand-written one in straight NumPy.

`python -m benchmarks.reference` runs both in processes of their own, in turn, several rounds, and prints medians and
the ratio; results are compared before they are timed. Goal: a ratio of at most 1.5 at batch 32, 256 units, 100 steps.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CASES = [(32, 100, 128, 256), (1, 100, 64, 64), (64, 100, 256, 512)]
ENGINES = ("hand-written", "rsref")
ROUNDS, REPEATS = 3, 5


def problem(case: tuple[int, int, int, int], dtype: str) -> list[np.ndarray]:
    """Return x, kernel, recurrent_kernel, bias and dy of a case (batch, steps, features, units)."""
    batch, steps, features, units = case
    rng = np.random.default_rng(0)
    shapes = (batch, steps, features), (features, 4 * units), (units, 4 * units), (4 * units,), (batch, steps, units)
    return [(rng.standard_normal(s) / (1 if i in (0, 4) else units**0.5)).astype(dtype) for i, s in enumerate(shapes)]


def training_step(engine: str, arrays: list[np.ndarray]) -> Callable[[], Any]:
    """Return a function that computes output and gradients with an engine."""
    if engine == "hand-written":
        from benchmarks import straight_lstm

        return lambda: straight_lstm.training_step(*arrays)
    from rsref.cells import LSTMCell

    x, *weights, dy = arrays
    layer = LSTMCell(dy.shape[-1]).get_layer(return_sequences=True, dtype=str(x.dtype))
    layer.build(x.shape)
    layer.set_weights(weights)

    def run() -> Any:
        y, tape = layer.forward(x)
        gradients = layer.backward(tape, dy)
        return y, gradients.x, *gradients.weights

    return run


def measure(engine: str, case: tuple[int, int, int, int], dtype: str) -> float:
    """Return the median seconds of a training step, after a comparison with the hand-written one."""
    arrays = problem(case, dtype)
    run = training_step(engine, arrays)
    for found, expected in zip(run(), training_step("hand-written", arrays)(), strict=True):
        error = np.abs(found - expected).max() / np.abs(expected).max()
        if not error < (1e-4 if dtype == "float32" else 1e-12):
            raise SystemExit(f"{engine} is wrong at {case}, {dtype}: relative error {error:.1e}")
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure every case in processes of their own and print a table."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    print(f"{'batch, steps, features, units':>30} {'dtype':>8} {'hand-written':>13} {'rsref':>9} {'ratio':>6}")
    for case in CASES:
        for dtype in ("float32", "float64"):
            seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
            for _ in range(ROUNDS):
                for engine in ENGINES:
                    command = [sys.executable, "-m", "benchmarks.reference", engine, json.dumps(case), dtype]
                    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                    seconds[engine].append(float(answer.stdout))
            hand, ours = (statistics.median(seconds[engine]) for engine in ENGINES)
            print(f"{case!s:>30} {dtype:>8} {hand * 1e3:10.1f} ms {ours * 1e3:6.1f} ms {ours / hand:6.2f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(measure(sys.argv[1], tuple(json.loads(sys.argv[2])), sys.argv[3]))
