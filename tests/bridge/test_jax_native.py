"""Kernels called by XLA itself: under jit, grad, vmap, scan and shard_map, against the reference engine."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import keras_bridge as kb
from keras_bridge import fast_engine, traced_engine
from keras_bridge.gradients import jax_native
from tests.tolerances import assert_close


@pytest.fixture(autouse=True)
def compiling(monkeypatch, tmp_path_factory):
    monkeypatch.delenv(fast_engine.TARGET, raising=False)
    monkeypatch.setenv("RSREF_FAST_CACHE", str(tmp_path_factory.getbasetemp() / "kernels"))


@pytest.fixture
def no_python(monkeypatch):
    """The engine's own run, which a callback would use, is not there."""

    def refused(*_):
        raise AssertionError("a callback ran")

    monkeypatch.setattr(traced_engine.TracedRecurrence, "_run", refused)


def layers_of(cell, **options):
    keras.utils.set_random_seed(2)
    made = [
        getattr(kb.cells, cell)(6).get_layer(return_sequences=True, return_state=True, engine=engine, **options)
        for engine in ("fast", "reference")
    ]
    for layer in made:
        layer.build((3, 5, 4))
    made[1].set_weights(made[0].get_weights())
    return made


def function_of(layer):
    variables = layer.trainable_variables

    def apply(x, values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            return layer(x)

    return apply, [v.value for v in variables]


def loss_of(apply):
    return lambda x, values: sum(jnp.sum(jnp.cos(1.0 + y) * y) for y in apply(x, values))


CASES = [("LSTMCell", {"truncate": 2}), ("GRUCell", {"go_backwards": True}), ("LayerNormLSTMCell", {}), ("RWACell", {})]
X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")


def both(cell, make, **options):
    """Return what a transformed function answers with the kernels, and with the reference engine."""
    found = []
    for layer in layers_of(cell, **options):
        apply, values = function_of(layer)
        found.append(jax.tree.leaves(make(apply)(jnp.asarray(X), values)))
    return found


@pytest.mark.parametrize(("cell", "options"), CASES)
def test_values_and_gradients_under_jit(cell, options):
    before = len(jax_native._kept)
    for make in (jax.jit, lambda f: jax.jit(jax.grad(loss_of(f), argnums=(0, 1)))):
        for a, b in zip(*both(cell, make, **options), strict=True):
            assert_close(a, b, "float32")
    assert len(jax_native._kept) >= before + 3


@pytest.mark.usefixtures("no_python")
def test_no_python_is_in_the_call():
    layer, _ = layers_of("LSTMCell")
    apply, values = function_of(layer)
    y = jax.jit(jax.grad(loss_of(apply)))(jnp.asarray(X), values)
    assert np.isfinite(np.asarray(y)).all()


def test_vmap_and_scan():
    def vmapped(apply):
        return jax.jit(jax.vmap(lambda x, values: apply(x, values)[0], (0, None)))

    def scanned(apply):
        return jax.jit(lambda x, values: jax.lax.scan(lambda c, x: (c, apply(x, values)[0]), 0, x)[1])

    for make in (vmapped, scanned):
        found = []
        for layer in layers_of("GRUCell"):
            apply, values = function_of(layer)
            found.append(np.asarray(make(apply)(jnp.stack([X, 2 * X]), values)))
        assert_close(found[0], found[1], "float32")


def test_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    spec, same = jax.sharding.PartitionSpec("batch"), jax.sharding.PartitionSpec()

    def sharded(apply):
        return jax.jit(
            jax.shard_map(
                lambda x, values: apply(x, values)[0], mesh=mesh, in_specs=(spec, same), out_specs=spec, check_vma=False
            )
        )

    for a, b in zip(*both("LSTMCell", sharded), strict=True):
        assert_close(a, b, "float32")


def test_a_mask_is_left_to_the_callback():
    mask = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    before = len(jax_native._kept)
    fast, slow = ([np.asarray(y) for y in layer(X, mask=mask)] for layer in layers_of("LSTMCell"))
    for a, b in zip(fast, slow, strict=True):
        assert_close(a, b, "float32")
    assert len(jax_native._kept) == before
