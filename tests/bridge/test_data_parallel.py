"""Data-parallel training gives the losses of one device: two virtual JAX devices, two PyTorch processes."""

import json
import os
import subprocess
import sys

from tests.bridge.autodiff import BACKEND
from tests.tolerances import assert_close


def losses(parts):
    """Return what each engine's model loses, epoch by epoch."""
    environment = {name: value for name, value in os.environ.items() if name != "RSREF_FAST_TARGET"}
    environment |= {"KERAS_BACKEND": BACKEND, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "tests.bridge.data_parallel", str(parts)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("losses"))
    return json.loads(line.removeprefix("losses"))


def test_two_devices_train_like_one():
    one, two = losses(1), losses(2)
    assert len(one) == 3
    for engine, found in one.items():
        assert found[-1] < found[0]
        assert_close(two[engine], found, "float32")
