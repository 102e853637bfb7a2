"""Print the gradient matrix of all backends: `python -m tests.cross.matrix [--write docs/gradient_matrix.md]`.

Each entry is the largest error of a case, over answers and the gradients of inputs, given states and every weight,
relative to the largest value of each array, against rsref in float64. A backend runs in a process of its
own; backends that are not installed are left out, and said so.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")
COLUMNS = [(dtype, engine) for dtype in ("float64", "float32") for engine in ("reference", "fast", "keras")]
HEAD = """# The gradient matrix

Every cell but `LayerCell`, and every feature of the Keras layers, on all engines and all three backends, against rsref
in float64. Each entry is the largest error over the answers and the gradients of inputs, given states and every
weight, relative to the largest value of each array. Written by
`python -m tests.cross.matrix --write docs/gradient_matrix.md`.

- The fast engine's generated source is run by Python here; `tests/fast/cpu` compiles it for every cell.
- float64: the reference and fast engines, and the keras engine on TensorFlow, must stay below 1e-10. Keras 3.15
  computes tanh on JAX, and matrix products and some others on PyTorch, in float32 even for float64 tensors: there the
  keras engine is held to the float32 limit.
- float32: below 1e-5.
"""


def of_backend():
    """Return the errors of the backend at hand: {case: [error, ...]} in the order of COLUMNS."""
    import tests.cross.conftest  # noqa: F401  (float64 on JAX)
    from tests.cross.cases import CASES
    from tests.cross.compared import compared, largest_error

    return {
        name: [largest_error(compared(case, engine, dtype)) for dtype, engine in COLUMNS]
        for name, case in CASES.items()
    }


def run(backend):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.cross.matrix", "--of-this-backend"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{backend} is left out: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(found):
    """Return the matrix as Markdown."""
    backends = [b for b in BACKENDS if found.get(b)]
    heads = [f"{b} {dtype} {engine}" for b in backends for dtype, engine in COLUMNS]
    lines = ["| case | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for name in found[backends[0]]:
        errors = [error for b in backends for error in found[b][name]]
        lines.append(f"| {name} | " + " | ".join(f"{error:.0e}" for error in errors) + " |")
    worst = [max(errors[i] for errors in found[b].values()) for b in backends for i in range(len(COLUMNS))]
    lines.append("| **largest** | " + " | ".join(f"**{error:.0e}**" for error in worst) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="a file for the page")
    parser.add_argument("--of-this-backend", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of_this_backend:
        print(json.dumps(of_backend()))
        return
    text = table({backend: run(backend) for backend in BACKENDS})
    print(text)
    if arguments.write:
        arguments.write.write_text(HEAD + "\n" + text + "\n")


if __name__ == "__main__":
    main()
