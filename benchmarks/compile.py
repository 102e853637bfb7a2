"""How long compiling takes: `python -m benchmarks.compile`. Goals: LSTM 5 s, 50 ops 10 s, from the cache 0.4 s.

For each cell a fresh cache folder and a process of its own: forward and backward for the first time, the matrix
products included; then a second process, which finds everything in the cache. Imports are timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

CELLS = ("LSTMCell", "MLSTMCell", "SimpleRNNCell", "LayerNormLSTMCell")
"""The two that the goals name come first; a quick run takes no others."""

PROGRAM = """
import json, sys, time
start = time.perf_counter()
import numpy as np
from rsref import cells
from rsref.testing.arguments import random_arguments
import rsref_fast
imported = time.perf_counter()
layer = getattr(cells, sys.argv[1])(64).get_layer()
layer.build((None, None, 32))
arguments = random_arguments(layer.recurrence, batch=4, steps=5).cast(np.float32)
engine = rsref_fast.compile(layer)
built = time.perf_counter()
ys, _, tape = arguments.forward(engine)
engine.backward(tape, [np.ones_like(y) for y in ys], [None] * len(arguments.states))
done = time.perf_counter()
graph = engine.recurrence.graph
ops = sum(t.op is not None for t in graph.order)
print(json.dumps({"import": imported - start, "first call": done - built, "ops": ops, "numba": "numba" in sys.modules}))
"""


def run(cell: str, folder: str) -> dict[str, float]:
    """Return the seconds of a process that compiles a cell, or finds it."""
    environment = {**os.environ, "RSREF_FAST_CACHE": folder}
    command = [sys.executable, "-c", PROGRAM, cell]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(answer.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cells")
    cells = CELLS[:2] if parser.parse_args().quick else CELLS
    print(
        f"{'cell':>20} {'ops':>4} {'first, s':>9} {'products there, s':>18} {'from the cache, s':>18} {'import, s':>10}"
    )
    with tempfile.TemporaryDirectory() as shared:
        run("IndRNNCell", shared)  # the matrix products are compiled once for a machine
        for cell in cells:
            with tempfile.TemporaryDirectory() as folder:
                first = run(cell, folder)
                again = run(cell, folder)
            own = run(cell, shared)
            assert not again["numba"]
            print(
                f"{cell:>20} {first['ops']:>4} {first['first call']:>9.1f} {own['first call']:>18.1f} "
                f"{again['first call']:>18.2f} {again['import']:>10.2f}"
            )


if __name__ == "__main__":
    main()
