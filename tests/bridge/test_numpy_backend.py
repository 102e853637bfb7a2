"""Inference on Keras's NumPy backend, in a process of its own."""

import os
import subprocess
import sys


def test_every_case_on_the_numpy_backend():
    environment = {**os.environ, "KERAS_BACKEND": "numpy", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "tests.bridge.numpy_backend"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agree" in done.stdout
