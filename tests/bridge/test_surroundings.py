"""What is answered where a variable, a package or the threads of the system are not as they should be."""

import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
import rsref
import rsref_fast

X = np.zeros((2, 5, 3), "float32")


def drawn(**options):
    x, h = keras.Input((3,)), keras.Input((4,))
    new = ops.tanh(layers.Dense(4)(x) + h)
    return kb.RecurrentModel(x, new, h, new, **options)


@pytest.mark.parametrize("variable", ["KERAS_BRIDGE_ENGINE", "RSREF_FAST_TARGET"])
def test_a_variable_with_an_unknown_word_is_named(variable, monkeypatch):
    monkeypatch.setenv(variable, "gpu")
    with pytest.raises(ValueError, match=f"the variable {variable} must be one of.*'gpu'"):
        drawn(engine="auto" if "ENGINE" in variable else "fast")(X)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("keras", r"needs Keras 3: pip install \"rsref\[keras\]\""),
        ("tensorflow", r"KERAS_BACKEND names another.*pip install \"rsref\[tensorflow\]\""),
        ("torch", r"KERAS_BACKEND names another.*pip install \"rsref\[torch\]\""),
    ],
)
def test_what_is_not_installed_is_named(missing, words):
    """In a process in which a package is not there."""
    program = f"import sys; sys.modules[{missing!r}] = None; import keras_bridge"
    environment = {**os.environ, "KERAS_BACKEND": missing.replace("keras", "tensorflow")}
    answer = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert re.search(words, answer.stderr.splitlines()[-1])


def test_without_posix_threads(monkeypatch):
    """Elsewhere than on Linux and macOS "auto" takes Keras's ops, and who asks for kernels reads why not."""
    monkeypatch.delenv("RSREF_FAST_TARGET")
    monkeypatch.delattr("os.register_at_fork")
    layer = drawn(engine="auto")
    assert layer(X).shape == (2, 4)
    assert "the kernels need POSIX threads" in layer.explain()
    with pytest.raises(ImportError, match="need POSIX threads, which Linux and macOS have"):
        rsref_fast.compile(rsref.Recurrence(rsref.graph.StepGraph(sequences=[x := rsref.Input((3,))], outputs=[x])))
