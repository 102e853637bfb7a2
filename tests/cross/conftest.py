"""float64 on JAX, so that gradients can be compared to the last digits; kernels run without a compiler."""

import os

import keras
import pytest

if keras.backend.backend() == "jax":
    import jax

    from tests import quick_xla

    jax.config.update("jax_enable_x64", True)
    quick_xla.begin()

os.environ.setdefault("RSREF_FAST_TARGET", "interpreter")


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """What JAX has compiled for the tests of a file is of no use to others: it would become gigabytes."""
    yield
    if keras.backend.backend() == "jax":
        jax.clear_caches()
