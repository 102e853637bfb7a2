"""On an NVIDIA GPU: kernels of rsref_fast against cuDNN, PyTorch's loops and JAX: `python -m benchmarks --suite cuda`.

Needs PyTorch with CUDA and numba-cuda; JAX takes part if it sees the GPU. Each engine has a process of its own, and is
compared before it is timed: with rsref, or, where rsref would take minutes, with PyTorch's LSTM and GRU in float64. All
compute in float32, without TF32, but for the engines whose names say otherwise, which are there to be seen. What is
timed is a call until the GPU has done it: forward, or forward and backward. `--device cpu` runs the peers alone, to see
that they are right.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import problems
from benchmarks.cases import Case
from benchmarks.measure import error_of

RESULTS = Path(__file__).parent / "results" / "cuda.json"
SIZES = [(16, 128, 64, 64), (64, 128, 128, 128), (64, 128, 256, 256), (16, 1024, 768, 768), (128, 128, 1024, 1024)]
CUSTOM = ("RHN", "LayerNormLSTM", "PeepholeLSTM", "SLSTM")
COMPARED = 10_000_000_000
"""Multiplications up to which rsref computes what is expected."""

TOLERANCES = {"TF32": 1e-2, "bfloat16": 1e-1}
"""Of engines of less precision; of all others `benchmarks.measure.TOLERANCE`."""

Run = Callable[[], dict[str, Any]]

WAYS = {
    "": {},
    " persistent": {"strategy": "persistent"},
    " tiles": {"strategy": "alternating", "products": "tiles"},
    " cuBLAS": {"strategy": "alternating", "products": "cublas"},
}
"""Options of `rsref_fast.compile` that are measured, by what follows the engine's name."""

STOCK = ("torch", "torch TF32", "torch bfloat16", "jax scan")
DRAWN = ("loop torch", "compiled torch", "drawn jax")
ENGINES = (*(f"rsref_fast{way}" for way in WAYS), *STOCK, *DRAWN)


def own(problem: problems.Problem, device: str, way: str) -> Run:
    """Return a run of the engine for device arrays, in PyTorch's memory. Errors: ImportError without cuBLAS for it."""
    import torch

    import rsref_fast
    from keras_bridge.gradients import torch_device

    engine = rsref_fast.compile(problem.layer.recurrence, target="cuda", **WAYS[way])
    groups = [[torch.tensor(a, device=device) for a in group] for group in problems.given(problem)]
    leaves = [t.requires_grad_(problem.case.training) for t in (*groups[0], *groups[3])]
    dy = torch.tensor(problems.dy_of(problem), device=device)
    place = {id(p): i for i, p in enumerate(problem.layer.weights)}
    names = ["x", *(f"w{place[id(p)]}" for p in problem.layer.recurrence.graph.parameters)]

    def run() -> dict[str, Any]:
        y = torch_device.run(engine, groups, problem.case.steps, None)[0]
        if not problem.case.training:
            return {"y": y}
        return {"y": y, **dict(zip(names, torch.autograd.grad(y, leaves, dy)))}

    return run


def stock(problem: problems.Problem, device: str, precision: str = "float32") -> Run:
    """Return a run of torch.nn.LSTM or GRU, which are cuDNN's on a GPU. precision: a dtype of PyTorch, or "TF32"."""
    import torch

    from benchmarks.peers import torch_nn

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "TF32"
    dtype = torch.float32 if precision == "TF32" else getattr(torch, precision)
    case = problem.case
    layer: Any = getattr(torch.nn, case.stock)(
        case.features, case.units, batch_first=True, device=device, dtype=dtype
    )  # fmt: skip
    parameters = list(layer.parameters())
    with torch.no_grad():
        for parameter, value in zip(parameters, torch_nn.weights_of(problem)):
            parameter.copy_(torch.tensor(np.ascontiguousarray(value)))
    x = torch.tensor(problem.x, device=device, dtype=dtype, requires_grad=case.training)
    dy = torch.tensor(problems.dy_of(problem), device=device, dtype=dtype)

    def run() -> dict[str, Any]:
        if not case.training:
            with torch.inference_mode():
                return {"y": layer(x)[0]}
        y = layer(x)[0]
        return {"y": y, "x": torch.autograd.grad(y, [x, *parameters], dy)[0]}

    return run


def looped(problem: problems.Problem, device: str, compiled: bool) -> Run:
    """Return a run of the drawn step in a PyTorch loop. compiled: whether the step is."""
    import torch

    from benchmarks.peers import torch_loop

    torch.set_default_device(device)
    return torch_loop.tensors(problem, compiled)


def on_jax(problem: problems.Problem, kind: str) -> Run:
    """Return a run of JAX's scan, or of the drawn step in it."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    if kind == "jax scan":
        from benchmarks.peers import jax_scan

        return jax_scan.run(problem)
    from benchmarks.peers import keras_layers

    return keras_layers.run(problem, "drawn")


def run_of(engine: str, problem: problems.Problem, device: str) -> Run:
    """Return an engine as a function of no arguments that computes a case."""
    if engine.startswith("rsref_fast"):
        return own(problem, device, engine.removeprefix("rsref_fast"))
    if "jax" in engine:
        return on_jax(problem, engine)
    if engine in DRAWN:
        return looped(problem, device, engine.startswith("compiled"))
    return stock(problem, device, engine.removeprefix("torch").strip() or "float32")


def on_host(values: dict[str, Any]) -> dict[str, np.ndarray]:
    return {k: np.asarray(v.double().numpy(force=True) if hasattr(v, "numpy") else v) for k, v in values.items()}


def expected_of(problem: problems.Problem, device: str, folder: str) -> dict[str, np.ndarray]:
    """Return what every engine is to answer, computed once for all."""
    case = problem.case
    file = Path(folder) / ("".join(c if c.isalnum() else "_" for c in f"{case.suite} {case}") + ".npz")
    if not file.exists():
        small = 8 * case.batch * case.steps * case.units * (case.features + case.units) < COMPARED
        np.savez(
            file, **(problems.expected(problem) if small else on_host(stock(problem, device, "float64")()))
        )  # fmt: skip
    with np.load(file) as stored:
        return {name: stored[name] for name in stored.files}


def seconds_of(run: Run, engine: str, device: str) -> list[float]:
    """Return the times of some calls, each until the device has done it."""

    def wait() -> None:
        if device != "cpu" and "jax" not in engine:  # whose runs wait themselves
            import torch

            torch.cuda.synchronize()

    for _ in range(3):
        run()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or (len(times) < 30 and time.perf_counter() - begin < 0.5):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return times


def child(engine: str, cases: list[Case], device: str, folder: str) -> None:
    """Print a row for each case. Errors: SystemExit if the engine is wrong at one."""
    from benchmarks.measure import TOLERANCE

    for case in cases:
        problem = problems.problem_of(case)
        expected = expected_of(problem, device, folder)
        try:
            run = run_of(engine, problem, device)
        except ImportError as error:
            raise SystemExit(f"{engine}: {error}") from error
        found = on_host(run())
        error = error_of({k: v for k, v in found.items() if k in expected}, expected, None)
        if not error < TOLERANCES.get(engine.split()[-1], TOLERANCE):
            raise SystemExit(f"{engine} is wrong at {case}: relative error {error:.1e}")
        times = seconds_of(run, engine, device)
        row = {
            "suite": case.suite, "case": str(case), "engine": engine, "seconds": statistics.median(times),
            "spread": max(times) / min(times), "error_vs_rsref": error,
        }  # fmt: skip
        print(json.dumps(row), flush=True)


def cases_of(engine: str, quick: bool) -> list[Case]:
    """Return the cases in which an engine takes part."""
    sizes = SIZES[:2] if quick else SIZES
    found: list[Case] = []
    if engine not in DRAWN:
        found += [Case(s, cell, *size) for s in ("forward", "training") for cell in ("LSTM", "GRU") for size in sizes]
    if engine not in STOCK:
        found += [Case("custom", cell, *size) for cell in CUSTOM for size in sizes[: 1 if quick else 3]]
    return found


def rows_of(engine: str, cases: list[Case], device: str, folder: str, seconds: float) -> list[dict[str, Any]]:
    """Return what a process of an engine's own prints; what went wrong is told, and its rows until then count."""
    backend = "jax" if "jax" in engine else "torch"
    environment = {
        **os.environ, "KERAS_BACKEND": backend, "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **({"KERAS_TORCH_DEVICE": device} if backend == "torch" else {}),
    }  # fmt: skip
    given = json.dumps([case.plain() for case in cases])
    command = [sys.executable, "-m", "benchmarks.cuda", "--child", engine, given, folder, "--device", device]
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        out, err = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        err += f"\n{engine} took longer than {seconds:.0f} seconds"
    if child.returncode:
        words = [f"{engine} failed with exit status {child.returncode}", *err.strip().splitlines()[-12:]]
        print("\n".join(words), file=sys.stderr, flush=True)
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    for row in rows:
        print(f"{row['suite']:9} {row['case']:34} {row['engine']:24} {1e3 * row['seconds']:9.3f} ms", flush=True)
    return rows


def _rounded(ratio: float) -> str:
    """Two digits, but no powers of ten."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def shown(rows: list[dict[str, Any]]) -> str:
    """Return tables of rows: milliseconds, and in brackets how many times as long a peer takes as we do."""
    lines = []
    for title, peers in (("forward", STOCK), ("training", STOCK), ("custom", DRAWN)):
        cases: dict[str, dict[str, float]] = {}
        for row in rows:
            if row["suite"] == title:
                cases.setdefault(row["case"], {})[row["engine"]] = 1e3 * row["seconds"]
        present = [peer for peer in peers if any(peer in times for times in cases.values())]
        lines += [f"| {title}, ms | rsref_fast | {' | '.join(present)} |", "| --- " * (len(present) + 2) + "|"]
        for case, times in cases.items():
            own = times.get("rsref_fast")
            ratios = {p: f" ({_rounded(times[p] / own)})" if own else "" for p in present if p in times}
            others = (f"{times[p]:.2f}{ratios[p]}" if p in times else "" for p in present)
            lines.append(f"| {case} | {f'{own:.2f}' if own else ''} | {' | '.join(others)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--engines", help=f"some of: {', '.join(ENGINES)}; all if left out")
    parser.add_argument("--only", default="", help="cases whose suite and name contain this")
    parser.add_argument("--seconds", type=float, default=1200, help="the most that an engine may take")
    parser.add_argument("--json", default=str(RESULTS), help="where rows are kept; those of the same GPU are replaced")
    parser.add_argument("--show", action="store_true", help="print what is kept as docs/cuda.md has it")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.show:
        print(shown(json.loads(Path(options.json).read_text())["rows"]))
        return
    if options.child:
        engine, given, folder = options.child
        child(engine, [Case(**case) for case in json.loads(given)], options.device, folder)
        return
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this suite needs an NVIDIA GPU that PyTorch sees; --device cpu runs the peers alone")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for engine in options.engines.split(",") if options.engines else ENGINES:
            if options.device == "cpu" and engine.startswith("rsref_fast"):
                continue
            cases = [c for c in cases_of(engine, options.quick) if options.only in f"{c.suite} {c}"]
            rows += rows_of(engine, cases, options.device, folder, options.seconds) if cases else []
    if options.device == "cuda":
        from benchmarks.__main__ import commit

        own = commit()
        rows = [{**row, "commit": own} for row in rows]
        machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
        file = Path(options.json)
        kept = json.loads(file.read_text()) if file.exists() else {}
        if kept.get("machine") == machine:
            named = {(row["suite"], row["case"], row["engine"]): row for row in (*kept["rows"], *rows)}
            rows = list(named.values())
        file.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
