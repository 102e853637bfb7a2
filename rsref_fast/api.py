"""What users call: `compile`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from rsref.cells.base import RNNCell
from rsref.loop import RecurrentLayer
from rsref.recurrence import Recurrence

if TYPE_CHECKING:
    from rsref_fast.cpu.engine import FastEngine
    from rsref_fast.cuda.engine import CudaEngine

TARGETS = ("cpu", "cuda", "interpreter")


@overload
def compile(rnn: Any, *, target: Literal["cuda"], strategy: str = "auto", products: str = "auto") -> CudaEngine: ...


@overload
def compile(
    rnn: Any, *, threads: int | None = None, target: str = "cpu", checkpoint: bool = False, strategy: str = "auto",
    products: str = "auto",
) -> FastEngine: ...  # fmt: skip


def compile(
    rnn: Any, *, threads: int | None = None, target: str = "cpu", checkpoint: bool = False, strategy: str = "auto",
    products: str = "auto",
) -> FastEngine | CudaEngine:  # fmt: skip
    """Return an engine that runs a recurrence with kernels generated and compiled for it.

    rnn: a `Recurrence`, a recurrent layer of rsref that is built, or a built cell. As `engine=rsref_fast.compile` it
        makes a layer run on such an engine.
    threads: among how many threads a batch is split; None for `get_num_threads()` at each call.
    target: "cpu"; "cuda" for arrays on an NVIDIA GPU (see `rsref_fast.cuda.engine.CudaEngine`); "interpreter" to run
        the CPU's generated source in Python itself: slow, every index checked.
    checkpoint: whether forward keeps little, and backward runs it again in stretches: memory for training grows with
        the square root of the steps, at about 1.4 times the time.
    strategy: on CUDA, whether the whole sequence is one launch ("persistent") or each unit of each step one
        ("alternating"); "auto" for what suits the sizes.
    products: on CUDA, who computes matrix products that are launches of their own: "cublas", our own "tiles", or "auto"
        for cuBLAS, if it is installed, where it is reckoned to take less.
    The engine's forward and backward are those of `rsref.engine.Engine`, for float32 and float64. Code is compiled at
    the first call for each precision and each set of inner shapes, backward's at its first call, and kept on disk.
    Errors: TypeError for anything else than a recurrence; ValueError for a target that there is not, or a layer that
        is not built, or an option that the target does not have; ImportError on Windows, without Numba, or for "cuda"
        numba-cuda, a GPU or its driver, or cuBLAS if that is asked for; NotImplementedError, at the first call, naming
        it, for a step that cannot be compiled.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(map(repr, TARGETS))}; got {target!r}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1):
        raise ValueError(f"threads must be a positive integer or None; got {threads!r}")
    recurrence = recurrence_of(rnn)
    if target == "cuda":
        if threads is not None or checkpoint:
            raise ValueError('threads and checkpoint are options of target="cpu"; target="cuda" has neither')
        return _on_gpu(recurrence, strategy, products)
    for name, value in (("strategy", strategy), ("products", products)):
        if value != "auto":
            raise ValueError(f'{name} is an option of target="cuda"; got {value!r} for target={target!r}')
    from rsref_fast.cpu.checkpoint import CheckpointedEngine
    from rsref_fast.cpu.engine import FastEngine
    from rsref_fast.cpu.kernels import Interpreted

    made = CheckpointedEngine if checkpoint else FastEngine
    if target == "interpreter":
        return made(recurrence, Interpreted, threads)
    if not hasattr(os, "register_at_fork"):
        raise ImportError("rsref_fast's kernels need POSIX threads, which Linux and macOS have")
    try:
        from rsref_fast.cpu.compiled import Compiled
    except ImportError as error:
        raise ImportError('rsref_fast compiles with Numba: pip install "rsref[fast]"') from error
    return made(recurrence, Compiled, threads)


def _on_gpu(recurrence: Recurrence, strategy: str, products: str) -> CudaEngine:
    if find_spec("numba_cuda") is None:
        raise ImportError('target="cuda" needs numba-cuda: pip install "rsref[fast,cuda]"')
    from rsref_fast.cuda import driver
    from rsref_fast.cuda.engine import CudaEngine

    return CudaEngine(recurrence, driver.current(), strategy, products=products)


def recurrence_of(rnn: Any) -> Recurrence:
    """Return the recurrence of a recurrent layer or cell, or one that is one. Errors: as `compile`."""
    if isinstance(rnn, Recurrence):
        return rnn
    if isinstance(rnn, RNNCell):
        if not rnn.built:
            raise ValueError(
                f"the cell {rnn.name!r} is not built: its input's shape is not known yet; call build(shape)"
            )
        shape = rnn.model.inputs[0].shape
        rnn = rnn.get_layer()
        rnn.build((None, None, *shape[1:]))
    if isinstance(rnn, RecurrentLayer):
        recurrence = getattr(rnn, "recurrence", None)
        if recurrence is None:
            raise ValueError(f"the layer {rnn.name!r} is not built: call it once, or build(shape)")
        return recurrence
    kind = f"{type(rnn).__module__}.{type(rnn).__name__}"
    from_keras = any(base.__module__.startswith("keras") for base in type(rnn).__mro__)
    hint = "; draw the step with rsref's names and set_weights(layer.get_weights())" if from_keras else ""
    raise TypeError(f"compile takes a Recurrence, or a recurrent layer or cell of rsref; got {kind}{hint}")
