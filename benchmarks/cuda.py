"""On an NVIDIA GPU: kernels of rsref_fast against cuDNN, `torch.compile` and JAX: `python -m benchmarks --suite cuda`.

Needs PyTorch with CUDA and numba-cuda; JAX takes part if it sees the GPU. Every engine is compared with rsref before it
is timed, except where sequences are so long that rsref would take minutes. What is timed is forward, and forward and
backward, by events on the device; JAX by the clock around a call that waits. `--device cpu` runs the peers alone, to
see that they are right.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import problems
from benchmarks.cases import Case
from benchmarks.measure import TOLERANCE, error_of
from benchmarks.peers import torch_nn

RESULTS = Path(__file__).parent / "results" / "cuda.json"
SIZES = [(16, 128, 64, 64), (64, 128, 128, 128), (64, 128, 256, 256), (16, 1024, 768, 768), (128, 128, 1024, 1024)]
CUSTOM = ("RHN", "LayerNormLSTM", "PeepholeLSTM", "SLSTM")
COMPARED = 10_000_000_000
"""Additions and multiplications up to which rsref computes what is expected."""

Run = Callable[[], dict[str, Any]]


WAYS = {
    "persistent": {"strategy": "persistent"},
    "alternating, tiles": {"strategy": "alternating", "products": "tiles"},
    "alternating, cuBLAS": {"strategy": "alternating", "products": "cublas"},
    "auto": {},
}
"""Options of `rsref_fast.compile` that are measured."""


def own(problem: problems.Problem, device: str, way: str) -> Run:
    """Return a run of the engine for device arrays, in PyTorch's memory. Errors: ImportError without cuBLAS for it."""
    import rsref_fast
    from keras_bridge.gradients import torch_device

    engine = rsref_fast.compile(problem.layer.recurrence, target="cuda", **WAYS[way])
    groups = [[torch.tensor(a, device=device) for a in group] for group in problems.given(problem)]
    leaves = [t.requires_grad_() for t in (*groups[0], *groups[3])]
    dy = torch.tensor(problems.dy_of(problem), device=device)
    place = {id(p): i for i, p in enumerate(problem.layer.weights)}
    names = ["x", *(f"w{place[id(p)]}" for p in problem.layer.recurrence.graph.parameters)]

    def run() -> dict[str, Any]:
        y = torch_device.run(engine, groups, problem.case.steps, None)[0]
        if not problem.case.training:
            return {"y": y}
        return {"y": y, **dict(zip(names, torch.autograd.grad(y, leaves, dy)))}

    return run


def stock(problem: problems.Problem, device: str) -> Run:
    """Return a run of torch.nn.LSTM or GRU, which are cuDNN's on a GPU."""
    case = problem.case
    layer: Any = getattr(torch.nn, case.stock)(case.features, case.units, batch_first=True, device=device)
    parameters = list(layer.parameters())
    with torch.no_grad():
        for parameter, value in zip(parameters, torch_nn.weights_of(problem)):
            parameter.copy_(torch.tensor(np.ascontiguousarray(value)))
    x = torch.tensor(problem.x, device=device, requires_grad=case.training)
    dy = torch.tensor(problems.dy_of(problem), device=device)

    def run() -> dict[str, Any]:
        y = layer(x)[0]
        return {"y": y, "x": torch.autograd.grad(y, [x, *parameters], dy)[0]} if case.training else {"y": y}

    return run


def compiled(problem: problems.Problem, device: str) -> Run:
    """Return a run of the drawn step in a PyTorch loop, the step compiled."""
    from benchmarks.peers import torch_loop

    torch.set_default_device(device)
    return torch_loop.tensors(problem, True)


def scanned(problem: problems.Problem, device: str) -> Run:
    from benchmarks.peers import jax_scan

    return jax_scan.run(problem)


def engines_of(case: Case, device: str) -> dict[str, Callable[[problems.Problem, str], Run]]:
    """Return who takes part in a case."""
    found: dict[str, Callable[[problems.Problem, str], Run]] = {}
    if device != "cpu":
        for way in WAYS:
            found[f"rsref_fast {way}"] = lambda p, d, w=way: own(p, d, w)
    if case.stock:
        found |= {"torch": stock, "jax scan": scanned}
    else:
        found["torch.compile"] = compiled
    return found


def seconds_of(run: Run, device: str) -> float:
    """Return the median time of a call: by events on a GPU, else by the clock."""
    for _ in range(3):
        run()
    times = []
    for _ in range(20):
        if device == "cpu":
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
            continue
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        first.record()
        run()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) / 1e3)
    return statistics.median(times)


def row_of(case: Case, name: str, make: Any, device: str) -> dict[str, Any]:
    """Return what an engine takes for a case, and how far from rsref it is. Errors: SystemExit if that is too far."""
    problem = problems.problem_of(case)
    run = make(problem, device)
    error = None
    flops = 8 * case.batch * case.steps * case.units * (case.features + case.units)
    if flops < COMPARED:
        expected = problems.expected(problem)
        found = {
            key: value.numpy(force=True) if isinstance(value, torch.Tensor) else value for key, value in run().items()
        }
        error = error_of({key: value for key, value in found.items() if key in expected}, expected, None)
        if not error < TOLERANCE:
            raise SystemExit(f"{name} is wrong at {case}: relative error {error:.1e}")
    seconds = seconds_of(run, "cpu" if name == "jax scan" else device)  # JAX has a stream of its own
    return {"suite": case.suite, "case": str(case), "engine": name, "seconds": seconds, "error_vs_rsref": error}


def cases(quick: bool) -> list[Case]:
    sizes = SIZES[:2] if quick else SIZES
    found = [
        Case(suite, cell, *size) for suite in ("forward", "training") for cell in ("LSTM", "GRU") for size in sizes
    ]
    return found + [Case("training", cell, *size) for cell in CUSTOM for size in sizes[: 1 if quick else 3]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this suite needs an NVIDIA GPU that PyTorch sees; --device cpu runs the peers alone")
    rows = []
    for case in cases(options.quick):
        for name, make in engines_of(case, options.device).items():
            try:
                rows.append(row_of(case, name, make, options.device))
            except ImportError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            row = rows[-1]
            print(f"{row['suite']:9} {row['case']:34} {row['engine']:24} {1e3 * row['seconds']:9.3f} ms", flush=True)
    if options.device == "cuda":
        RESULTS.parent.mkdir(exist_ok=True)
        machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
