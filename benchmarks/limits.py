"""What the machine can do at most: products, functions, and streaming the recurrent weights from where they fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.work import Work

COMMON = """
import json, threading, time
def best(run, repeat):
    run(); least = 1e9
    for _ in range(repeat):
        start = time.perf_counter(); run(); least = min(least, time.perf_counter() - start)
    return least
def both(work):  # on both cores
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
def speeds(read, total):  # of squares of float32, each core half of the rows; read(i, half of them, how often)
    found = {}
    for n in (128, 182, 256, 362, 512, 724, 1024, 1448, 2048, 2896):
        halves, often = [np.ones((n // 2, n), np.float32) for _ in range(2)], max(4, total // (4 * n * n))
        found[4 * n * n] = often * 4 * n * n / best(lambda: both(lambda i: read(i, halves[i], often)), 8)
    return found
"""
NUMPY = """
import numpy as np
a, b = (np.random.default_rng(i).standard_normal((1536, 1536)).astype(np.float32) for i in range(2))
c = np.empty_like(a)
def multiplying(i, half, often):
    v, out = half[0], np.empty(len(half), np.float32)
    for _ in range(often): np.dot(half, v, out=out)
def evaluating(function, n=2**14, repeat=64):
    xs = [np.linspace(-2, 2, n, dtype=np.float32) for _ in range(2)]
    ys = [np.empty_like(x) for x in xs]
    def work(i):
        for _ in range(repeat): function(xs[i], out=ys[i])
    return 2 * n * repeat / best(lambda: both(work), 12)
rate = 2 * 1536**3 / best(lambda: np.dot(a, b, out=c), 12)
def calling(x, often=1000):
    for _ in range(often): np.negative(x)
functions, call = max(evaluating(f) for f in (np.tanh, np.exp)), best(lambda: calling(a[0, :64]), 100) / 1000
print(json.dumps({"rate": rate, "speeds": speeds(multiplying, 2**26), "functions": functions, "call": call}))
"""
TORCH = """
import torch
torch.set_num_threads(2)
a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
c, x, y = torch.empty_like(a), torch.linspace(-2, 2, 2**17), torch.empty(2**17)
functions = [2**17 / best(lambda: f(x, out=y), 100) for f in (torch.tanh, torch.sigmoid, torch.exp)]
rate = 2 * 1536**3 / best(lambda: torch.mm(a, b, out=c), 12)
print(json.dumps({"rate": rate, "functions": max(functions)}))
"""
OWN = """
import numba, numpy as np, rsref_fast
from rsref import Input, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
a = np.random.default_rng(0).standard_normal((64, 50, 256)).astype(np.float32)
def evaluating(function, many=16):  # many for each number that is read and written
    x = Input((256,))
    step = StepGraph(sequences=[x], outputs=[sum(function(x * (1 - k / 100)) for k in range(many))])
    engine = rsref_fast.compile(Recurrence(step), threads=2)
    return many * a.size / best(lambda: engine.forward([a], [], [], [], taped=False), 12)
@numba.njit(nogil=True, fastmath=True)
def summed(numbers, often):
    total = np.float32(0)
    for _ in range(often):
        for i in range(numbers.size): total += numbers[i]
    return total
summed(np.ones(8, np.float32), 1)
reading = speeds(lambda i, half, often: summed(half.reshape(-1), often), 2**28)
from rsref_fast.cpu.meeting import seen, show, words
@numba.njit(nogil=True)
def play(address, first, turns):  # each counts up when the other has
    own, other = words(address + 512 * first), words(address + 512 * (1 - first))
    for k in range(turns):
        while seen(other) < k + 1 - first: pass
        show(own, k + 1)
def handing(turns):
    board = np.zeros(256, np.int64)
    address = (board.ctypes.data + 127) // 128 * 128
    return best(lambda: (board.fill(0), both(lambda i: play(address, i, turns))), 12)
handing(1)
handover = (handing(100_000) - handing(1_000)) / 198_000
functions = max(evaluating(f) for f in (ops.tanh, ops.sigmoid, ops.exp))
print(json.dumps({"speeds": reading, "functions": functions, "handover": handover}))
"""
"""NumPy's calls are too short to tell how fast small matrices are read: that takes a loop without the interpreter."""


def ceilings(threads: dict[str, str]) -> Ceilings:
    """Return what NumPy, PyTorch or our own kernels reach, whichever is fastest. Errors: SystemExit if one does not."""
    found = Ceilings(1.0, {}, 1.0)
    for program in (NUMPY, TORCH, OWN):
        answer = subprocess.run(
            [sys.executable, "-c", COMMON + program], capture_output=True, text=True, env={**os.environ, **threads}
        )
        if answer.returncode:
            raise SystemExit(f"a limit cannot be measured: {(answer.stderr.strip().splitlines() or ['failed'])[-1]}")
        own = json.loads(answer.stdout)
        found.rate, found.functions = max(found.rate, own.get("rate", 0.0)), max(found.functions, own["functions"])
        for size, speed in own.get("speeds", {}).items():
            found.speeds[int(size)] = max(speed, found.speeds.get(int(size), 0.0))
        found.handover, found.call = own.get("handover", found.handover), own.get("call", found.call)
    return found


@dataclass
class Ceilings:
    """What can be had in a second.

    rate: multiplications and additions. speeds: bytes, by the bytes of what is read again. functions: values of the
    cheapest of exp, sigmoid and tanh. handover: seconds until one core sees what another one has written. call: seconds
    of a call from Python that takes 64 numbers and answers as many.
    """

    rate: float
    speeds: dict[int, float]
    functions: float
    handover: float = 0.0
    call: float = 0.0

    def note(self, work: Work, seconds: float) -> None:
        """Raise the ceilings to what an engine reached."""
        self.rate = max(self.rate, work.flops / seconds)
        self.functions = max(self.functions, work.functions / seconds)
        size = self._nearest(work.weights)
        self.speeds[size] = max(self.speeds.get(size, 0.0), work.passes * work.weights / seconds)

    def parts(self, work: Work) -> dict[str, float]:
        """Return the least times of what a case consists of.

        That is all products, those among them that are computed step by step, the functions, these once more for the
        gradients (or writing and reading their values, where that takes less), reading the recurrent weights at each
        step, what two cores tell each other, if they can only share the steps of one sample, a call from Python, and
        what reading an attended memory at each step takes longer than multiplying it.
        """
        memory = self.speeds[self._nearest(sum(count for _, count in work.attended))]
        beyond = [max(0.0, count / memory - flops / self.rate) for flops, count in work.attended]
        again = [min(n / self.functions, 8 * n / self.speeds[self._nearest(4 * n)]) for n in work.again]
        return {
            "products_seconds": work.flops / self.rate,
            "stepped_seconds": work.stepped / self.rate,
            "functions_seconds": work.functions / self.functions,
            "again_seconds": sum(again),
            "reading_seconds": work.passes * work.weights / self.speeds[self._nearest(work.weights)],
            "handover_seconds": work.passes * self.handover if work.shared else 0.0,
            "call_seconds": self.call,
            "attended_seconds": work.passes * sum(beyond),
        }

    def _nearest(self, count: int) -> int:
        return min(self.speeds, key=lambda size: abs(size - count), default=count)
