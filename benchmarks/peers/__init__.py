"""Each engine as a function of no arguments that computes a case, at its best: compiled, warm, two threads, no copies.

It answers y and, for training, the gradients of x ("x") and of the weights ("w0", "w1", ... in rsref's order) as far as
they correspond to rsref's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.problems import Problem

Run = Callable[[], dict[str, Any]]
THREADS = 2
PLAIN = {"rsref_fast": "own", "torch": "torch_nn", "onnxruntime": "onnx_runtime", "jax scan": "jax_scan"}


def make(engine: str, problem: Problem) -> tuple[Run, Callable[[], Any]]:
    """Return what is compared with rsref, and what is timed: mostly the same."""
    if engine in PLAIN:
        module = import_module(f"benchmarks.peers.{PLAIN[engine]}")
        run = module.stream(problem) if problem.case.suite == "stream" else module.run(problem)
        return run, run
    if engine == "torch padded":
        from benchmarks.peers import torch_nn

        run = torch_nn.run(problem, padded=True)
        return run, run
    if engine in ("rsref_fast checkpoint", "rsref_fast frozen"):
        from benchmarks.peers import own

        run = own.run(problem, checkpoint=True) if engine.endswith("checkpoint") else own.frozen(problem)
        return run, run
    kind, backend = engine.split()
    if os.environ.get("KERAS_BACKEND") != backend:
        raise SystemExit(f"{engine} needs KERAS_BACKEND={backend}")
    from benchmarks.peers import keras_fit, keras_layers

    if kind in ("loop", "compiled"):
        from benchmarks.peers import torch_loop

        run = torch_loop.run(problem, kind == "compiled")
        return run, run
    if problem.case.suite == "shop":
        return keras_fit.run(problem, kind)
    run = keras_layers.run(problem, kind)
    return run, run
