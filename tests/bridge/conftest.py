"""float64 on JAX, so that gradients can be compared to the last digits."""

import keras
import pytest

if keras.backend.backend() == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)


@pytest.fixture
def float64():
    """Keras in float64: the precision of new layers, and that of the zero states its recurrent layers make."""
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
