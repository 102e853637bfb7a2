"""What the machine can do at most: a large matrix product, and streaming the recurrent weights from where they fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.problems import Problem

NUMPY = """
import json, threading, time, numpy as np
def best(run, repeat):
    run(); least = 1e9
    for _ in range(repeat):
        start = time.perf_counter(); run(); least = min(least, time.perf_counter() - start)
    return least
a, b = (np.random.default_rng(i).standard_normal((1536, 1536)).astype(np.float32) for i in range(2))
c = np.empty_like(a)
rate = 2 * 1536**3 / best(lambda: np.dot(a, b, out=c), 12)
def streaming(n, read):  # both cores, each half of the rows
    halves, v = [np.ones((n // 2, n), np.float32) for _ in range(2)], np.ones(n, np.float32)
    outs, repeat = [np.empty(n // 2, np.float32) for _ in range(2)], max(4, 2**26 // (4 * n * n))
    def work(half, out):
        for _ in range(repeat):
            read(half, v, out)
    def run():
        threads = [threading.Thread(target=work, args=pair) for pair in zip(halves, outs)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    return repeat * 4 * n * n / best(run, 8)
ways = (lambda m, v, out: np.dot(m, v, out=out), lambda m, v, out: m.max(), lambda m, v, out: m.any())
speeds = {4 * n * n: max(streaming(n, way) for way in ways) for n in (128, 256, 512, 1024, 2048, 4096)}
print(json.dumps([rate, speeds]))
"""
TORCH = """
import json, time, torch
torch.set_num_threads(2)
a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
c = torch.empty_like(a); least = 1e9
for _ in range(12):
    start = time.perf_counter(); torch.mm(a, b, out=c); least = min(least, time.perf_counter() - start)
print(json.dumps([2 * 1536**3 / least, {}]))
"""


def ceilings(threads: dict[str, str]) -> Ceilings:
    """Return what NumPy or PyTorch reach, whichever is faster."""
    rate, speeds = 1.0, {}
    for program in (NUMPY, TORCH):
        answer = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **threads}
        )
        if answer.returncode == 0:
            own, found = json.loads(answer.stdout)
            rate = max(rate, own)
            speeds |= {int(size): speed for size, speed in found.items()}
    return Ceilings(rate, speeds)


@dataclass(frozen=True)
class Work:
    """What a case takes at least: additions and multiplications, and how often weights of how many bytes are read."""

    flops: int
    weights: int
    passes: int


def work_of(problem: Problem) -> Work:
    """Return the matrix products' part of a case: three times as much with gradients; masked steps do not count."""
    case, shapes = problem.case, [p.shape for p in problem.layer.weights]
    matrices = [s for s in shapes if len(s) == 2 and min(s) > 2]
    rows = case.batch * case.steps if problem.lengths is None else int(problem.lengths.sum())
    products = sum(s[0] * s[1] for s in matrices)
    recurrent = sum(s[0] * s[1] for s in matrices if s[0] == case.units)
    return Work((3 if case.training else 1) * 2 * rows * products, 4 * recurrent, case.steps * (1 + case.training))


@dataclass
class Ceilings:
    """rate: additions and multiplications a second. speeds: bytes a second, by the bytes of what is read again."""

    rate: float
    speeds: dict[int, float]

    def note(self, work: Work, seconds: float) -> None:
        """Raise the ceilings to what an engine reached."""
        self.rate = max(self.rate, work.flops / seconds)
        size = self._nearest(work)
        self.speeds[size] = max(self.speeds.get(size, 0.0), work.passes * work.weights / seconds)

    def seconds(self, work: Work) -> float:
        """Return the least time: of the arithmetic, or of reading the recurrent weights at every step."""
        return max(work.flops / self.rate, work.passes * work.weights / self.speeds[self._nearest(work)])

    def _nearest(self, work: Work) -> int:
        return min(self.speeds, key=lambda size: abs(size - work.weights), default=work.weights)
