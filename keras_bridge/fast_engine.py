"""The engine that runs a step with the kernels that rsref_fast compiles for it."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import keras

from keras_bridge import traced_engine
from keras_bridge.backend import place
from keras_bridge.step import KerasRecurrence
from rsref.engine import Engine
from rsref.recurrence import Recurrence

TARGET = "RSREF_FAST_TARGET"
"""Environment variable: "interpreter" runs the generated source without a compiler, to look into it."""


def interpreting() -> bool:
    """Whether kernels are run without a compiler: then they are the slowest engine, and used only when asked for."""
    return os.environ.get(TARGET) == "interpreter"


def make_engine(recurrence: Recurrence) -> Engine:
    import rsref_fast
    from rsref_fast.api import TARGETS

    asked = os.environ.get(TARGET)
    if asked and asked not in TARGETS:
        raise ValueError(f"the variable {TARGET} must be one of {', '.join(map(repr, TARGETS))}; got {asked!r}")
    on_gpu = place() == "cuda"
    if on_gpu and keras.backend.backend() == "jax":
        from keras_bridge.gradients import jax_device

        jax_device.register()
    engine: Any = rsref_fast.compile(recurrence, target=asked or ("cuda" if on_gpu else "cpu"))
    engine.check()
    return engine


def _distributed() -> bool:
    """Whether Keras has arrays of JAX's elsewhere than on the first GPU."""
    found = keras.distribution.distribution()
    return found is not None and [str(d) for d in found.device_mesh.devices.flat] not in (["gpu:0"], ["cuda:0"])


def _missing_on_gpu() -> str:
    """Return what keeps the kernels for CUDA from running; nothing if they can."""
    if keras.backend.backend() == "jax" and _distributed():
        return "JAX distributes arrays, and the kernels for CUDA are loaded on one GPU, the first"
    if find_spec("numba_cuda") is None:
        return 'numba-cuda is not installed: pip install "rsref[fast,cuda]"'
    from rsref_fast.cuda import driver

    try:
        driver.current()
    except ImportError as error:
        return str(error)
    return ""


@cache
def _installed() -> bool:
    return all(find_spec(name) for name in ("numba", "llvmlite", "platformdirs"))


def missing() -> str:
    """Return what keeps the kernels from running at all; nothing if they can."""
    if not interpreting() and not _installed():
        return 'Numba is not installed: pip install "rsref[fast]"'
    if not interpreting() and not hasattr(os, "register_at_fork"):
        return "the kernels need POSIX threads, which Linux and macOS have"
    where = place()
    if where == "cuda":
        return _missing_on_gpu()
    return "" if where == "cpu" else f"the tensors are on {where!r}, and the kernels are for the CPU and for CUDA"


def prepare(recurrence: KerasRecurrence, training: bool = False) -> traced_engine.TracedRecurrence:
    """Return the traced step, with its engine.

    Errors: NotImplementedError, naming it, for what has no counterpart in rsref or no kernel; ImportError if Numba is
    missing.
    """
    reason = missing()
    if reason:
        raise ImportError(f'engine="fast": {reason}')
    return traced_engine.prepare(recurrence, make_engine, f"fast on {place()}", training)


def run(recurrence: KerasRecurrence, *arguments: Any, training: bool, **options: Any) -> tuple[list[Any], list[Any]]:
    """Run a step over sequences; arguments and answer as `keras_bridge.keras_engine.run`."""
    return traced_engine.run(prepare(recurrence, training), *arguments, training=training, **options)
