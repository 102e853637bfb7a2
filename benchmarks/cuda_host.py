"""What the host takes for a call of the kernels for CUDA: `python -m benchmarks.cuda_host`, with no GPU.

The driver does nothing here and kernels are never compiled, so what is left is ours and PyTorch's: planning, memory,
words, autograd. On a GPU the driver's own time comes on top, a few microseconds a launch. Needs numba-cuda, torch,
keras.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np

import rsref
from rsref import cells
from rsref.testing.arguments import random_arguments

H100 = {
    "MULTIPROCESSOR_COUNT": 132, "MAX_THREADS_PER_MULTIPROCESSOR": 2048, "MAX_REGISTERS_PER_MULTIPROCESSOR": 65536,
    "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 233472, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448,
    "COMPUTE_CAPABILITY_MAJOR": 9, "COMPUTE_CAPABILITY_MINOR": 0,
}  # fmt: skip

CASES = [("LSTMCell", 16, 128, 64), ("LSTMCell", 64, 128, 128), ("GRUCell", 64, 128, 128), ("RHNCell", 16, 128, 64)]
"""Cell, samples, steps, features and units: small ones, where the host may take longest."""

CALLS, SOMEWHERE = 300, 4096


class Idle:
    """A driver of an H100 that answers, and does nothing. launches: how many kernels it was asked to run."""

    CUdevice_attribute = SimpleNamespace(**{f"CU_DEVICE_ATTRIBUTE_{name}": name for name in H100})
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __init__(self) -> None:
        self.launches = 0

    def cuDeviceGetAttribute(self, attribute: str, device: int) -> tuple[int, int]:
        return 0, H100[attribute]

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, *given: Any) -> tuple[int, int]:
        return 0, 1

    def cuCtxGetDevice(self) -> tuple[int, int]:
        return 0, 0

    def __getattr__(self, name: str) -> Callable[..., tuple[int, int]]:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def answer(*given: Any) -> tuple[int, int]:
            self.launches += name in ("cuLaunchKernel", "cuLaunchCooperativeKernel")
            return 0, SOMEWHERE

        setattr(self, name, answer)
        return answer


def without_library() -> Any:
    raise ImportError("no cuBLAS: its products would be the driver's time")


def uncompiled() -> Any:
    """Return a context in which kernels are never compiled."""
    from rsref_fast.cuda import images

    return patch.object(images, "image_of", lambda text, entry, *rest: images.Image(b"", entry, True))


def run_of(name: str, batch: int, steps: int, units: int, training: bool, driver: Idle) -> Callable[[], object]:
    """Return a call of a cell's engine from PyTorch, whose tensors lie on the host: nobody reads them."""
    import torch

    from keras_bridge.gradients import torch_device
    from rsref_fast.cuda.driver import Device
    from rsref_fast.cuda.engine import CudaEngine

    rsref.set_random_seed(0)
    layer = getattr(cells, name)(units).get_layer()
    layer.build((None, None, units))
    device = Device(driver, without_library)
    device.dlpack_kind = 1  # the host's, to PyTorch
    engine = CudaEngine(layer.recurrence, device)
    given = random_arguments(layer.recurrence, batch=batch, steps=steps).cast(np.float32)
    groups = [[*map(torch.tensor, g)] for g in (given.sequences, given.constants, given.states, given.parameters)]
    leaves = [t.requires_grad_(training) for t in (*groups[0], *groups[3])]
    dy = torch.ones(batch, steps, units)

    def run() -> object:
        y = torch_device.run(engine, groups, steps, None)[0]
        return torch.autograd.grad(y, leaves, dy) if training else y

    return run


def main() -> None:
    import torch
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(1)
    table = Table(title="What the host takes for a call: microseconds")
    for head in ("cell", "batch, steps, units", "what", "launches", "least", "median"):
        table.add_column(head, justify="left" if head in ("cell", "what") else "right")
    with uncompiled():
        for name, *sizes in CASES:
            for training in (False, True):
                driver = Idle()
                run = run_of(name, *sizes, training, driver)
                for _ in range(20):
                    run()
                driver.launches, times = 0, []
                for _ in range(CALLS):
                    start = time.perf_counter()
                    run()
                    times.append(1e6 * (time.perf_counter() - start))
                what = "training" if training else "forward"
                figures = f"{driver.launches / CALLS:.0f}", f"{min(times):.0f}", f"{statistics.median(times):.0f}"
                table.add_row(name, ", ".join(map(str, sizes)), what, *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
