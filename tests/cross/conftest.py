"""float64 on JAX, so that gradients can be compared to the last digits; kernels run without a compiler."""

import os

import keras

if keras.backend.backend() == "jax":
    import jax

    from tests import quick_xla

    jax.config.update("jax_enable_x64", True)
    quick_xla.begin()

os.environ.setdefault("RSREF_FAST_TARGET", "interpreter")
