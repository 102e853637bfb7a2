"""One engine on one case: compared with rsref, then timed whenever standard input says so; see `benchmarks.engines`.

Each line of it is the seconds of one turn, and is answered by a line of JSON; so is the comparison, the first.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers, problems
from benchmarks.cases import Case

TOLERANCE = 2e-4
"""Of float32 sums over all samples and steps, relative to the largest value."""

COMPARED = 50
"""Steps of the sequences that are compared where memory is measured."""


def error_of(found: dict[str, Any], expected: dict[str, Any], mask: Any) -> float:
    """Return the largest difference of what both answer, relative to the largest value of each array, or NaN."""
    errors = [0.0]
    for name, value in found.items():
        own, right = np.asarray(value() if callable(value) else value), expected[name]
        own = own.reshape(right.shape)
        if mask is not None and name in "xy":
            own, right = own[mask], right[mask]
        errors.append(np.abs(own - right).max() / (np.abs(right).max() or 1.0))
    return float(np.max(errors))  # NaN if there is one: max() would not see it


def seconds_of(run: Any, budget: float) -> list[float]:
    """Return the time of a call, as often as fits the budget; short calls are timed several at once."""
    run()
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    repeat = max(1, int(5e-4 / once))
    times: list[float] = [once] if once > budget else []
    start = time.perf_counter()
    while len(times) < 2 or (time.perf_counter() - start < budget and len(times) < 200):
        before = time.perf_counter()
        for _ in range(repeat):
            run()
        times.append((time.perf_counter() - before) / repeat)
    return times


def held() -> int:
    """Return the memory that this process holds now, in bytes, and let `peak` begin anew from there (on Linux).

    What is free already is given back first: a call that takes it again would seem to need less.
    """
    with contextlib.suppress(OSError, AttributeError):  # where the C library is not GNU's
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak()
    return _status("VmRSS")


def peak() -> int:
    """Return the most memory that this process has held since `held`, in bytes."""
    try:
        return _status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def expected_of(problem: problems.Problem, folder: Path) -> dict[str, Any]:
    """Return what rsref answers, which the first engine of a case computes and keeps in a file."""
    case = problem.case
    file = folder / ("".join(c if c.isalnum() else "_" for c in str(case)) + f"_{case.training}.npz")
    if not file.exists():
        np.savez(file, **problems.expected(problem))
    with np.load(file) as stored:
        return {name: stored[name] for name in stored.files}


def main() -> None:
    engine, text, folder = sys.argv[1:]
    case = Case(**json.loads(text))
    problem = problems.problem_of(case)
    long = case.suite == "memory"  # where the reference engine's own memory must not count
    expected = {} if long else expected_of(problem, Path(folder))
    compared, timed = peers.make(engine, problem)
    before = held()
    found = compared()
    needed = peak() - before
    if long:
        short = problems.problem_of(dataclasses.replace(case, steps=COMPARED))
        found, expected = peers.make(engine, short)[0](), expected_of(short, Path(folder))
    error = error_of(found, expected, problem.mask)
    if not error < TOLERANCE:
        raise SystemExit(f"{engine} is wrong at {case}: relative error {error:.1e}")
    print(json.dumps({"error": error, "bytes": needed}), flush=True)
    del found, expected  # others need the memory while this one has no turn
    for line in sys.stdin:
        print(json.dumps({"times": seconds_of(timed, float(line))}), flush=True)


if __name__ == "__main__":
    main()
