"""What the machine can do at most: a large matrix product, and streaming the recurrent weights from where they fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks.cases import Case

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


def ceilings(threads: dict[str, str]) -> tuple[float, dict[int, float]]:
    """Return additions and multiplications a second, and bytes a second for weights of some sizes, of any library."""
    rate, speeds = 0.0, {}
    for program in (NUMPY, TORCH):
        answer = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **threads}
        )
        if answer.returncode == 0:
            own, found = json.loads(answer.stdout)
            rate = max(rate, own)
            speeds |= {int(size): speed for size, speed in found.items()}
    return rate, speeds


def work(case: Case, shapes: list[tuple[int, ...]]) -> tuple[int, int]:
    """Return additions and multiplications of the matrix products, and the bytes of weights that a step reads.

    Three times as many with gradients.
    """
    products = sum(s[0] * s[1] for s in shapes if len(s) == 2 and min(s) > 2)
    recurrent = sum(s[0] * s[1] for s in shapes if len(s) == 2 and s[0] == case.units and min(s) > 2)
    return (3 if case.training else 1) * 2 * case.batch * case.steps * products, 4 * recurrent


def seconds(case: Case, shapes: list[tuple[int, ...]], rate: float, speeds: dict[int, float]) -> float:
    """Return the least time of a case: its arithmetic, or reading the recurrent weights at every step."""
    flops, weights = work(case, shapes)
    size = nearest(speeds, weights)
    return max(flops / rate, passes(case) * weights / speeds[size] if size else 0.0)


def note_speed(speeds: dict[int, float], case: Case, shapes: list[tuple[int, ...]], took: float) -> None:
    """Raise the speed of reading weights of a size to what an engine reached."""
    _, weights = work(case, shapes)
    size = nearest(speeds, weights)
    if size and weights:
        speeds[size] = max(speeds[size], passes(case) * weights / took)


def passes(case: Case) -> int:
    """Return how often all recurrent weights are read."""
    return case.steps * (2 if case.training else 1)


def nearest(speeds: dict[int, float], weights: int) -> int:
    return min(speeds, key=lambda n: abs(n - weights), default=0)
