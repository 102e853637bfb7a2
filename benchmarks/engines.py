"""Engines on one case, each in a process of its own, which take turns of some tenths of a second.

Whatever slows the machine down for a while so slows all of them down. A process that has no turn waits for a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from benchmarks.cases import Case
from benchmarks.processors import when_there_are

THREADS = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "TF_NUM_INTRAOP_THREADS": "2"}
JAX = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads=2", "JAX_PLATFORMS": "cpu"}

PAUSE = 0.25
"""Seconds after a turn, in which the threads of a pool that look for work fall asleep."""


class EngineError(Exception):
    """An engine that failed, or is wrong; the last line of what it said."""


class Engine:
    """An engine on a case, in a process of its own, which compares what it computes with rsref's and then waits.

    error: the largest relative difference to rsref. bytes: what the comparison needed. folder: for rsref's answers.
    Errors: `EngineError`, here and in a turn.
    """

    def __init__(self, name: str, case: Case, folder: str):
        self.name = f"{name}, {case}"
        environment = {**os.environ, **THREADS, **JAX, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # what is found here is found there
        if name.split()[-1] in ("jax", "tensorflow", "torch") and " " in name:
            environment["KERAS_BACKEND"] = name.split()[1]
        command = [sys.executable, "-m", "benchmarks.measure", name, json.dumps(case.plain()), folder]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        compared = self._answer()
        self.error, self.bytes = compared["error"], compared["bytes"]

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.stop()

    def turn(self, seconds: float) -> list[float]:
        """Return the times of the calls of one turn."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # of one that is gone, whose last words follow
            self.process.stdin.write(f"{seconds}\n")
            self.process.stdin.flush()
        return list(self._answer()["times"])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answer(self) -> Any:
        """Return the next line that is JSON: libraries print, too."""
        assert self.process.stdout
        words = ""
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
            words = line.strip() or words
        self.stop()
        raise EngineError(f"{self.name}: {words or f'failed with exit status {self.process.returncode}'}")


def in_turn(
    engines: dict[str, Engine], turns: int, seconds: float, goes_on: Callable[[str, dict[str, float]], bool]
) -> dict[str, list[list[float]]]:
    """Return the times of each engine's turns; one that fails is left out, and that is said.

    Each begins when two threads have a core each, and another engine is the first one in each round.
    goes_on: whether an engine has further turns, given its name and the least time of every engine in the first one.
    """
    running = dict(engines)
    found: dict[str, list[list[float]]] = {name: [] for name in engines}
    for number in range(turns):
        if number == 1:
            least = {name: min(times[0]) for name, times in found.items()}
            for name in [name for name in running if not goes_on(name, least)]:
                running.pop(name).stop()
        every = [*running.items()]
        first = number % max(1, len(every))
        for name, engine in every[first:] + every[:first]:
            when_there_are()
            try:
                found[name].append(engine.turn(seconds))
            except EngineError as error:
                print(error, file=sys.stderr)
                del running[name], found[name]
            time.sleep(PAUSE)
    return found
