"""float64 on JAX, so that gradients can be compared to the last digits; what is collected where."""

import os
from importlib.util import find_spec

import keras
import pytest

BACKEND = keras.backend.backend()
COLLECTED = {
    "test_data_parallel.py": BACKEND in ("jax", "torch"),  # keras.distribution is for JAX, PyTorch has its own
    "test_compiled.py": BACKEND != "torch",  # which does not compile
    "test_export.py": BACKEND != "torch" and find_spec("tensorflow") is not None,  # Keras exports with TensorFlow
    "test_export_onnx.py": BACKEND == "torch" and find_spec("onnx") is not None,  # elsewhere with packages of its own
    "test_jax_native.py": BACKEND == "jax" and find_spec("numba") is not None,
    "test_jax_integers.py": BACKEND == "jax" and find_spec("numba") is not None,
    "test_fast_engine.py": find_spec("numba") is not None,  # compiles
    "test_reference.py": BACKEND == "jax" and find_spec("numba") is not None,  # once, with all that the page has
    "test_direct.py": BACKEND == "torch",
    "test_torch_func.py": BACKEND == "torch",
    "test_tensorflow_gradients.py": BACKEND == "tensorflow",
    "test_numpy_backend.py": BACKEND == "jax",  # once; Keras's NumPy backend imports JAX
}
ON = {
    "test_cells_against_keras.py": "tensorflow",  # of rsref, by the one backend on which Keras is in float64 throughout
    "test_weights_against_keras.py": "tensorflow",
    "test_real_data.py": "jax",  # on PyTorch a batch takes about a second in Keras's own loop
}
"""Files that run on one backend by default, on all with --every."""
# The kernels of the bridge's tests are run by Python itself, without a compiler; test_fast_engine.py compiles them.
os.environ.setdefault("RSREF_FAST_TARGET", "interpreter")
collect_ignore = [name for name, wanted in COLLECTED.items() if not wanted]

if BACKEND == "jax":
    import jax

    from tests import quick_xla

    jax.config.update("jax_enable_x64", True)
    quick_xla.begin()

if find_spec("numba"):
    from numba.core import types
    from numba.core.typing.context import BaseContext

    from tests.sparing import spare

    spare(BaseContext, types.Dispatcher)


def pytest_ignore_collect(collection_path, config):
    elsewhere = ON.get(collection_path.name, BACKEND) != BACKEND
    return True if elsewhere and not config.getoption("--every") else None


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """What JAX has compiled for the tests of a file is of no use to others: it would become gigabytes."""
    yield
    if BACKEND == "jax":
        jax.clear_caches()


@pytest.fixture
def float64():
    """Keras in float64: the precision of new layers, and that of the zero states its recurrent layers make."""
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
