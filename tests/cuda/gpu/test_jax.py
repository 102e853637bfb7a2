"""JAX's arrays on a GPU: XLA calls the engine in its own stream, with its own memory."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import keras_bridge as kb
from keras_bridge.gradients import jax as jax_gradients
from keras_bridge.gradients import jax_device
from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import driver
from rsref_fast.cuda.engine import CudaEngine
from tests.cuda.through_jax import compare, dtypes_of, groups_of
from tests.fast.made import MASK, recurrence_of


@pytest.fixture(autouse=True)
def registered():
    jnp.zeros(1).block_until_ready()  # JAX's context is the current one from here on
    jax_device.register()


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("strategy", ["persistent", "alternating"])
@pytest.mark.parametrize("name", ["LSTMCell", "AttentionDecoderCell"])
def test_values_and_gradients(name, strategy, mask):
    own = recurrence_of(name, 24, 7)
    compare(CudaEngine(own, driver.current(), strategy), random_arguments(own, batch=3, steps=5, mask=mask), 3, 5)


def test_a_call_between_others_of_a_program():
    """What XLA computes before and after a call is in the same stream."""
    own = recurrence_of("LSTMCell", 24, 7)
    engine = CudaEngine(own, driver.current())
    groups = groups_of(random_arguments(own, batch=3, steps=5))

    def answer(groups):
        return jax_gradients.native(engine, groups, 3, 5, None, dtypes_of(engine))[0]

    expected = np.asarray(jax.jit(answer)(groups))

    @jax.jit
    def between(groups, large):
        zero = jnp.sum(jnp.linalg.matrix_power(large, 32)) * 0
        return answer([[x + zero for x in groups[0]], *groups[1:]]) * 2

    for _ in range(3):
        np.testing.assert_array_equal(between(groups, jnp.eye(2048)), 2 * expected)


def test_a_layer_takes_the_kernels():
    """With "auto", in training as well."""
    assert keras.backend.backend() == "jax"
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)

    def trained(engine):
        keras.utils.set_random_seed(1)
        layer = kb.LSTMCell(3).get_layer(engine=engine)
        model = keras.Sequential([layer])
        model.compile("sgd", "mse")
        losses = model.fit(x, np.ones((3, 3), np.float32), epochs=3, batch_size=3, verbose=0).history["loss"]
        return layer, losses

    layer, losses = trained("auto")
    assert 'engine "fast", the fastest that can run this step' in layer.explain()
    np.testing.assert_allclose(losses, trained("keras")[1], rtol=1e-4)
