"""Peers side by side: `python -m benchmarks [--suite forward] [--quick] [--json FILE] [--engines a,b]`.

Every engine runs each case in a process of its own, since thread pools of one would spoil the times of another, and
they take many short turns (`benchmarks.engines`), so that what slows the machine down for a while slows down all. Turns
after the first leave out peers that are far slower than the fastest. What is printed is the median of an engine's best
turn, and its ratio to the fastest peer: above 1 is faster. With `--json` the rows are kept after every case, and a
picture of them in the end (with `--only` those of other cases stay, with `--engines` those of other engines). An engine
that fails or is wrong has no row, and the exit status is 1. `python -m benchmarks.report` makes a page of all that are
kept, `python -m benchmarks.goals` says which goals they reach.
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
from benchmarks.cases import ENGINES, Case, beside, cases_of
from benchmarks.engines import THREADS, Engine, EngineError, in_turn
from benchmarks.goals import AGAINST
from benchmarks.rows import is_own, limit_of, replaced
from benchmarks.work import Work, work_of

OTHERS = {
    "compile": [("benchmarks.compile", "numpy")],
    "cuda": [("benchmarks.cuda", "torch")],
    "bridge": [("benchmarks.bridge", backend) for backend in ("jax", "tensorflow", "torch")],
}
"""Suites of another kind: modules, with the backend for each."""

SLOW = 1.5
"""How many times as long as the fastest a peer takes that later turns leave out."""


def rows_of(case: Case, names: list[str], folder: str, turns: int, seconds: float) -> list[Any]:
    """Return a row for each engine on a case; turns after the first leave out peers that decide nothing."""
    engines: dict[str, Engine] = {}
    others = beside(case) if any(map(is_own, names)) else {}
    with contextlib.ExitStack() as stack:
        for name, (engine, its_case) in ({name: (name, case) for name in names} | others).items():
            try:
                engines[name] = stack.enter_context(Engine(engine, its_case, folder))
            except EngineError as error:
                print(error, file=sys.stderr)
        found = in_turn(engines, turns, seconds, lambda name, least: decisive(case.suite, name, least))
    compared = compared_with(others, {name: found.pop(name) for name in others if name in found})
    return [row_of(case, name, engines[name], found[name]) | compared for name in found]


def compared_with(others: dict[str, tuple[str, Case]], found: dict[str, list[list[float]]]) -> dict[str, float]:
    """Return what rows say of those that had turns beside their engines (`beside`). found: the times of their turns."""
    if not found:
        return {}
    seconds, case = min(((best(turns), others[name][1]) for name, turns in found.items()), key=lambda pair: pair[0])
    if case.suite == "shop":
        return {"fit_seconds": seconds}
    return {"lstm_gflops": work_of(problems.problem_of(case)).flops / seconds / 1e9}


def best(turns: list[list[float]]) -> float:
    """Return the median of the best turn: who shares the machine only ever slows it down."""
    return min(map(statistics.median, turns))


def row_of(case: Case, name: str, engine: Engine, found: list[list[float]]) -> dict[str, Any]:
    """Return what an engine needed. found: the times of its turns."""
    return {
        "suite": case.suite,
        "case": str(case),
        "engine": name,
        "seconds": best(found),
        "spread": max(map(statistics.median, found)) / best(found),
        "bytes": engine.bytes,
        "error_vs_rsref": engine.error,
    }


def decisive(suite: str, engine: str, least: dict[str, float]) -> bool:
    """Whether an engine is no peer, or may turn out the fastest of those that a goal names, or no goal names any.

    least: the least time of every engine in the first turn.
    """
    groups = [goal.peers for goal in AGAINST if goal.suite == suite]
    if is_own(engine) or engine not in least or engine not in ENGINES[suite] or not groups:
        return True
    return any(
        least[engine] <= SLOW * min(least[peer] for peer in group if peer in least)
        for group in groups
        if engine in group
    )


def with_limits(rows: list[Any], works: dict[tuple[str, str], Work], ceilings: limits.Ceilings) -> None:
    """Add to each row how near it is to the limit: the best that anything reached, the engines among them."""
    for row in rows:
        ceilings.note(works[row["suite"], row["case"]], row["seconds"])
    for row in rows:
        work = works[row["suite"], row["case"]]
        row["gflops"] = work.flops / row["seconds"] / 1e9
        row |= ceilings.parts(work)
        row["limit_seconds"] = limit_of(row)
        row["ratio_to_limit"] = row["limit_seconds"] / row["seconds"]


def commit() -> str:
    """Return which code was measured, "-dirty" if it differs from the commit; results of other suites are no code."""

    def git(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True)
        return found.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


def machine() -> str:
    """Return what the figures depend on besides the code: processor and versions."""
    names = ("numpy", "numba", "torch", "onnxruntime", "jax", "tensorflow-cpu", "keras")
    versions = [f"Python {platform.python_version()}"]
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, KeyError):
        pairs = (line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        known = {name.strip(): value.strip() for name, value in pairs}
        processor = known["model name"]
        processor += f" (family {known['cpu family']}, model {known['model']})"
    return ", ".join([processor, *versions])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="all", choices=(*ENGINES, *OTHERS, "all"))
    parser.add_argument("--quick", action="store_true", help="fewer cases and turns")
    parser.add_argument("--turns", type=int, help="how many each engine has at each case; 12, or 2 with --quick")
    parser.add_argument("--json", type=Path, help="write the rows to a file, and a picture beside it")
    parser.add_argument("--engines", help="only these, separated by commas; rows of others are kept")
    parser.add_argument("--only", help="only cases whose names begin so, separated by semicolons; others are kept")
    options = parser.parse_args()
    if options.suite in OTHERS:
        if options.turns or options.json or options.engines or options.only:
            parser.error(f"--suite {options.suite} takes --quick alone; python -m benchmarks.{options.suite} has more")
        for module, backend in OTHERS[options.suite]:
            command = [sys.executable, "-m", module, *(["--quick"] if options.quick else [])]
            code = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}).returncode
            if code:
                raise SystemExit(code)  # it has said why
        return
    suites = list(ENGINES) if options.suite == "all" else [options.suite]
    known = list(dict.fromkeys(engine for suite in suites for engine in ENGINES[suite]))
    asked = options.engines.split(",") if options.engines else known
    if unknown := [engine for engine in asked if engine not in known]:
        parser.error(f"--engines: {', '.join(unknown)} unknown here; there are {', '.join(known)}")
    names = tuple(options.only.split(";")) if options.only else ("",)
    if not any(str(case).startswith(names) for suite in suites for case in cases_of(suite, options.quick)):
        parser.error(f"--only: no case begins with {options.only!r}; they are as in docs/performance.md")
    if options.turns is not None and options.turns < 1:
        parser.error(f"--turns must be positive; got {options.turns}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    ceilings, works = limits.ceilings(THREADS), {}
    console = Console(width=160)
    rows: list[Any] = []
    turns, seconds = options.turns or (2 if options.quick else 12), 0.25
    kept = options.json is not None and bool(options.only or options.engines) and options.json.exists()
    old, about = json.loads(options.json.read_text()) if kept else [], {"machine": machine(), "commit": commit()}
    others, failed = bool(options.engines), []
    with tempfile.TemporaryDirectory() as folder:
        for suite in suites:
            chosen = [engine for engine in ENGINES[suite] if engine in asked]
            for case in cases_of(suite, options.quick):
                if not str(case).startswith(names):
                    continue
                works[suite, str(case)] = work_of(problems.problem_of(case))
                found = [{**row, **about} for row in rows_of(case, chosen, folder, turns, seconds)]
                failed += [f"{name}, {case}" for name in chosen if name not in [row["engine"] for row in found]]
                rows += found
                with_limits(rows, works, ceilings)  # of all: an engine may just have reached more than any before
                if found:
                    console.print(report.line(found), highlight=False, soft_wrap=True)
                if options.json:
                    options.json.write_text(json.dumps(replaced(old, rows, others), indent=1) + "\n")
            console.print(f"limit: {ceilings.rate / 1e9:.0f} GFLOP/s, {ceilings.functions / 1e9:.1f} functions a ns")
            console.print(report.table(suite, [row for row in rows if row["suite"] == suite]))
    if options.json:
        report.picture(replaced(old, rows, others), options.json.with_suffix(".png"))
        console.print(f"written to {options.json}")
    if failed:
        raise SystemExit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
