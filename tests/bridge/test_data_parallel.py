"""Data-parallel training gives the losses of one device: two virtual JAX devices, two PyTorch processes."""

import json
import os
import subprocess
import sys

import pytest

from tests.bridge.autodiff import BACKEND
from tests.tolerances import assert_close


def losses(engine, parts):
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "tests.bridge.data_parallel", engine, str(parts)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("losses"))
    return json.loads(line.removeprefix("losses"))


@pytest.mark.parametrize("engine", ["keras", "reference"])
def test_two_devices_train_like_one(engine):
    one, two = losses(engine, 1), losses(engine, 2)
    assert one[-1] < one[0]
    assert_close(two, one, "float32")
