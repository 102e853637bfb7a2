"""Peers side by side: `python -m benchmarks [--suite forward] [--quick] [--json FILE] [--engines a,b]`.

Every engine runs each case in a process of its own, in turn, for several rounds; thread pools of one would spoil the
times of another. What is printed is the median, and its ratio to the fastest peer: above 1 is faster. With `--json`
the rows and a picture of them are kept (`--only` replaces those of some cases); `python -m benchmarks.report` makes a
page of all that are kept.
"""

from __future__ import annotations

import argparse
import contextlib
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

from benchmarks import limits, problems, report
from benchmarks.cases import ENGINES, Case, cases_of

OTHERS = {
    "compile": [("benchmarks.compile", "numpy")],
    "cuda": [("benchmarks.cuda", "torch")],
    "bridge": [("benchmarks.bridge", backend) for backend in ("jax", "tensorflow", "torch")],
}
"""Suites of another kind: modules, with the backend for each."""

THREADS = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "TF_NUM_INTRAOP_THREADS": "2"}
JAX = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads=2", "JAX_PLATFORMS": "cpu"}


def measured(engine: str, case: Case, folder: str, budget: float) -> dict[str, Any] | None:
    """Return the times of an engine on a case, from a process of its own; None, and a word, if it failed."""
    environment = {**os.environ, **THREADS, **JAX, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if engine.split()[-1] in ("jax", "tensorflow", "torch") and " " in engine:
        environment["KERAS_BACKEND"] = engine.split()[1]
    command = [sys.executable, "-m", "benchmarks.measure", engine, json.dumps(case.plain()), folder, str(budget)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    if answer.returncode:
        print(f"{engine}, {case}: {(answer.stderr.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    return found


def rows_of(case: Case, engines: list[str], folder: str, rounds: int, budget: float) -> list[Any]:
    """Return a row for each engine on a case."""
    runs: dict[str, list[Any]] = {}
    for _ in range(rounds):
        for engine in engines:
            found = measured(engine, case, folder, budget)
            if found is not None:
                runs.setdefault(engine, []).append(found)
    rows = []
    for engine, found in runs.items():
        times = [statistics.median(one["times"]) for one in found]
        rows.append(
            {
                "suite": case.suite,
                "case": str(case),
                "engine": engine,
                "seconds": statistics.median(times),
                "spread": max(times) / min(times),
                "bytes": statistics.median(one["bytes"] for one in found),
                "error_vs_rsref": found[-1]["error"],
            }
        )
    return rows


def with_limits(rows: list[Any], cases: dict[str, Case], ceilings: limits.Ceilings) -> None:
    """Add to each row how near it is to the limit: the best that anything reached, the engines among them."""
    works = {name: limits.work_of(problems.problem_of(case)) for name, case in cases.items()}
    for row in rows:
        ceilings.note(works[row["case"]], row["seconds"])
    for row in rows:
        work = works[row["case"]]
        row["gflops"] = work.flops / row["seconds"] / 1e9
        row["limit_seconds"] = ceilings.seconds(work)
        row["ratio_to_limit"] = row["limit_seconds"] / row["seconds"]


def machine() -> str:
    """Return what the figures depend on besides the code: processor and versions."""
    names = ("numpy", "numba", "torch", "onnxruntime", "jax", "tensorflow-cpu", "keras")
    versions = [f"Python {platform.python_version()}"]
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return ", ".join([processor, *versions])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="all", choices=(*ENGINES, *OTHERS, "all"))
    parser.add_argument("--quick", action="store_true", help="fewer cases, one round")
    parser.add_argument("--rounds", type=int, help="how often every engine runs every case; 3, or 1 with --quick")
    parser.add_argument("--json", type=Path, help="write the rows to a file, and a picture beside it")
    parser.add_argument("--engines", help="only these, separated by commas")
    parser.add_argument("--only", help="only cases whose names begin so; separated by semicolons")
    options = parser.parse_args()
    if options.suite in OTHERS:
        for command, backend in OTHERS[options.suite]:
            subprocess.run([sys.executable, "-m", command], env={**os.environ, "KERAS_BACKEND": backend}, check=True)
        return
    ceilings = limits.ceilings(THREADS)
    console = Console(width=160)
    rows: list[Any] = []
    rounds, budget = options.rounds or (1 if options.quick else 3), 0.5 if options.quick else 1.0
    with tempfile.TemporaryDirectory() as folder:
        for suite in ENGINES if options.suite == "all" else (options.suite,):
            chosen = [e for e in ENGINES[suite] if not options.engines or e in options.engines.split(",")]
            names = tuple(options.only.split(";")) if options.only else ("",)
            every = {str(case): case for case in cases_of(suite, options.quick)}
            found, cases = [], {name: case for name, case in every.items() if name.startswith(names)}
            for case in cases.values():
                found += rows_of(case, chosen, folder, rounds, budget)
            with_limits(found, cases, ceilings)
            console.print(f"limit: {ceilings.rate / 1e9:.0f} GFLOP/s")
            console.print(report.table(suite, found))
            rows += found
    if options.json:
        options.json.parent.mkdir(exist_ok=True)
        where = machine()
        rows = [{**row, "machine": where} for row in rows]
        if options.only and options.json.exists():
            rows = report.replaced(json.loads(options.json.read_text()), rows)
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
        report.picture(rows, options.json.with_suffix(".png"))
        console.print(f"written to {options.json}")


if __name__ == "__main__":
    main()
