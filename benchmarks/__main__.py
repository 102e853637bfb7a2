"""Peers side by side: `python -m benchmarks [--suite forward] [--quick] [--json FILE] [--engines a,b]`.

Every engine runs each case in a process of its own, in turn, for several rounds; thread pools of one would spoil the
times of another. What is printed is the median, and its ratio to the fastest peer: above 1 is faster.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import limits, problems
from benchmarks.cases import ENGINES, Case, cases_of

RESULTS = Path(__file__).parent / "results"
OWN = "rsref_fast"
THREADS = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "TF_NUM_INTRAOP_THREADS": "2"}
JAX = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads=2", "JAX_PLATFORMS": "cpu"}


def measured(engine: str, case: Case, folder: str, budget: float) -> dict[str, Any] | None:
    """Return the times of an engine on a case, from a process of its own; None, and a word, if it failed."""
    environment = {**os.environ, **THREADS, **JAX, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if " " in engine and engine != "jax scan":
        environment["KERAS_BACKEND"] = engine.split()[1]
    command = [sys.executable, "-m", "benchmarks.measure", engine, json.dumps(case.plain()), folder, str(budget)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    if answer.returncode:
        print(f"{engine}, {case}: {(answer.stderr.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    return found


def rows_of(case: Case, engines: list[str], folder: str, rounds: int, budget: float, ceiling: float) -> list[Any]:
    """Return a row for each engine on a case."""
    times: dict[str, list[float]] = {}
    errors: dict[str, float] = {}
    for _ in range(rounds):
        for engine in engines:
            found = measured(engine, case, folder, budget)
            if found is not None:
                times.setdefault(engine, []).append(statistics.median(found["times"]))
                errors[engine] = found["error"]
    shapes = {p.name: p.shape for p in problems.layer_of(case).weights}
    work = limits.flops(case, shapes)
    return [
        {
            "suite": case.suite,
            "case": str(case),
            "engine": engine,
            "seconds": statistics.median(values),
            "spread": max(values) / min(values),
            "gflops": work / statistics.median(values) / 1e9,
            "limit_seconds": work / ceiling,
            "ratio_to_limit": work / ceiling / statistics.median(values),
            "error_vs_rsref": errors[engine],
        }
        for engine, values in times.items()
    ]


def table(suite: str, rows: list[Any], engines: list[str]) -> Table:
    """Return the milliseconds of each engine, and how our own compares with the fastest peer."""
    drawn = Table(title=f"{suite}: milliseconds, two threads, float32")
    for head in ("case", *engines, "times the fastest peer", "GFLOP/s", "of the limit"):
        drawn.add_column(head, justify="left" if head == "case" else "right")
    for case in dict.fromkeys(row["case"] for row in rows):
        own = {row["engine"]: row for row in rows if row["case"] == case}
        peers = [row["seconds"] for name, row in own.items() if name != OWN]
        cells = [f"{own[e]['seconds'] * 1e3:.2f}" if e in own else "-" for e in engines]
        ratio = min(peers) / own[OWN]["seconds"] if OWN in own and peers else None
        colour = "" if ratio is None else "[green]" if ratio >= 1 else "[red]"
        shown = own.get(OWN, {})
        drawn.add_row(
            case,
            *cells,
            "-" if ratio is None else f"{colour}{ratio:.2f}",
            f"{shown.get('gflops', 0):.0f}",
            f"{shown.get('ratio_to_limit', 0):.2f}",
        )
    return drawn


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    names = ("numpy", "numba", "torch", "onnxruntime", "jax", "tensorflow-cpu", "keras")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"processor": processor, "python": platform.python_version(), "threads": 2, "versions": versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="all", choices=(*ENGINES, "all"))
    parser.add_argument("--quick", action="store_true", help="fewer cases, one round")
    parser.add_argument("--json", type=Path, help="write the rows to a file")
    parser.add_argument("--engines", help="only these, separated by commas")
    options = parser.parse_args()
    ceiling = limits.flops_a_second()
    console = Console(width=150)
    console.print(f"limit: {ceiling / 1e9:.0f} GFLOP/s, a large matrix product")
    rows: list[Any] = []
    rounds, budget = (1, 0.5) if options.quick else (3, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        for suite in ENGINES if options.suite == "all" else (options.suite,):
            chosen = [e for e in ENGINES[suite] if not options.engines or e in options.engines.split(",")]
            found = []
            for case in cases_of(suite, options.quick):
                found += rows_of(case, chosen, folder, rounds, budget, ceiling)
            console.print(table(suite, found, chosen))
            rows += found
    if options.json:
        options.json.parent.mkdir(exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
        console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
