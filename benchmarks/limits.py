"""What the machine can do at most: the rate of a large dense matrix product, with two threads."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.cases import Case

PROGRAM = """
import time, numpy as np
a, b = (np.random.default_rng(i).standard_normal((1536, 1536)).astype(np.float32) for i in range(2))
c = np.empty_like(a)
best = 1e9
for _ in range(8):
    start = time.perf_counter(); np.dot(a, b, out=c); best = min(best, time.perf_counter() - start)
print(2 * 1536**3 / best)
"""


def flops_a_second() -> float:
    """Return the rate of a large matrix product in float32, the best of NumPy's library."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return float(answer.stdout)


def flops(case: Case, weights: dict[str, tuple[int, ...]]) -> int:
    """Return additions and multiplications of the matrix products; three times as many with gradients."""
    products = sum(s[0] * s[1] for s in weights.values() if len(s) == 2 and min(s) > 1)
    return (3 if case.training else 1) * 2 * case.batch * case.steps * products
