"""One engine on one case, in a process of its own: compared with rsref, then timed; see `python -m benchmarks`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers, problems
from benchmarks.cases import Case

TOLERANCE = 2e-4
"""Of float32 sums over all samples and steps, relative to the largest value."""


def error_of(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Return the largest difference of what both answer, relative to the largest value of each array."""
    shared = [name for name in found if name in expected]
    return max(
        float(np.abs(np.asarray(found[n]).reshape(expected[n].shape) - expected[n]).max() / np.abs(expected[n]).max())
        for n in shared
    )


def seconds_of(run: Any, budget: float) -> list[float]:
    """Return the time of each call, of as many as fit the budget."""
    run(), run()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - start < budget and len(times) < 200):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return times


def main() -> None:
    engine, text, folder, budget = sys.argv[1:]
    case = Case(**json.loads(text))
    layer = problems.layer_of(case)
    arrays = problems.arrays_of(case, layer)
    file = Path(folder) / ("".join(c if c.isalnum() else "_" for c in str(case)) + f"_{case.training}.npz")
    if not file.exists():
        np.savez(file, **{k.replace("/", "|"): v for k, v in problems.expected(case, layer, *arrays).items()})
    with np.load(file) as stored:
        expected = {name.replace("|", "/"): stored[name] for name in stored.files}
    run = peers.make(engine, case, layer, *arrays)
    error = error_of(run(), expected)
    if not error < TOLERANCE:
        raise SystemExit(f"{engine} is wrong at {case}: relative error {error:.1e}")
    print(json.dumps({"times": seconds_of(run, float(budget)), "error": error}))


if __name__ == "__main__":
    main()
