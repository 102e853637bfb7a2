"""Kernels called by XLA itself with integers and bools: values, gradients, masks, and indices that are out of range."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
from keras_bridge import fast_engine
from keras_bridge.gradients import jax_words
from rsref_fast.cpu.splitting import Split
from tests.sparing import kernel_folder
from tests.tolerances import assert_close

BATCH, STEPS, ENTRIES = 4, 5, 7


@pytest.fixture(autouse=True)
def compiling(monkeypatch, tmp_path_factory):
    monkeypatch.delenv(fast_engine.TARGET, raising=False)
    monkeypatch.setenv("RSREF_FAST_CACHE", str(kernel_folder(tmp_path_factory)))


@pytest.fixture(params=["float64", "float32", "float32 without x64"])
def kind(request):
    """The precision of layers; integers of JAX have 64 bits or 32."""
    name = request.param.split()[0]
    keras.utils.set_random_seed(0)
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)
    with jax.enable_x64("without" not in request.param):
        yield name
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def drawn(engine, **options):
    """A step with integers and bools wherever there may be any: sequences, constants, states and outputs."""
    x, token, flag = keras.Input((4,)), keras.Input((), dtype="int32"), keras.Input((3,), dtype="bool")
    shift, allowed = keras.Input((), dtype="int32"), keras.Input((3,), dtype="bool")
    h, total, seen = keras.Input((3,)), keras.Input((), dtype="int32"), keras.Input((3,), dtype="bool")
    read = layers.concatenate([x, layers.Embedding(ENTRIES, 3)(token), h])
    new = ops.where(flag, ops.tanh(layers.Dense(3)(read)), 0.5 * h)
    new_total, new_seen = total + token - shift, ops.logical_or(seen, flag)
    return kb.RecurrentModel(
        [x, token, flag],
        [new * ops.cast(ops.logical_and(new_seen, allowed), new.dtype), new_total, new_seen],
        [h, total, seen],
        [new, new_total, new_seen],
        constants=[shift, allowed],
        return_sequences=True,
        return_state=True,
        engine=engine,
        **options,
    )


def both(**options):
    """Return the layer with kernels and the one with the reference engine, of the same weights."""
    made = [drawn(engine, **options) for engine in ("fast", "reference")]
    for layer in made:
        layer.build([(BATCH, STEPS, 4), (BATCH, STEPS), (BATCH, STEPS, 3)], constants_shape=[(BATCH,), (BATCH, 3)])
    made[1].set_weights(made[0].get_weights())
    return made


def given(kind, batch=BATCH, steps=STEPS):
    """Return sequences, constants and states; tokens count from the end where they are negative."""
    rng = np.random.default_rng(0)
    return (
        [
            rng.normal(size=(batch, steps, 4)).astype(kind),
            rng.integers(-ENTRIES, ENTRIES, (batch, steps)).astype("int32"),
            rng.random((batch, steps, 3)) < 0.6,
        ],
        [rng.integers(-5, 5, batch).astype("int32"), rng.random((batch, 3)) < 0.7],
        [
            rng.normal(size=(batch, 3)).astype(kind),
            rng.integers(-9, 9, batch).astype("int32"),
            np.zeros((batch, 3), bool),
        ],
    )


def functions_of(layer):
    """Return a layer as a function of its arguments, and the gradients of a loss by all that is floating."""
    variables = layer.trainable_variables

    def apply(sequences, constants, states, values, mask=None):
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            return layer(list(sequences), constants=list(constants), initial_state=list(states), mask=mask)

    def gradients(sequences, constants, states, values, mask=None):
        def loss(x, h, values):
            answers = apply([x, *sequences[1:]], constants, [h, *states[1:]], values, mask)
            return sum(jnp.sum(jnp.cos(1.0 + y) * y) for y in answers if y.dtype.kind == "f")

        return jax.grad(loss, (0, 1, 2))(sequences[0], states[0], values)

    return apply, gradients, [v.value for v in variables]


def assert_same(found, expected, kind):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if b.dtype.kind == "f":
            assert_close(a, b, kind)
        else:
            np.testing.assert_array_equal(a, b)


def text_of(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments))


@pytest.mark.covering("values")
@pytest.mark.parametrize("shards", [1, 3])
def test_values_and_gradients(kind, shards):
    fast, slow = both()
    fast_engine.prepare(fast.recurrence).engine.split = Split(shards, 1)
    arguments = given(kind)
    found = []
    for layer in (fast, slow):
        apply, gradients, values = functions_of(layer)
        for function in (apply, gradients):
            assert ("callback" in text_of(function, *arguments, values)) == (layer is slow)
            found.append(jax.jit(function)(*arguments, values))
    for a, b in zip(found[:2], found[2:]):
        assert_same(a, b, kind)
    (_, tokens, flags), (shift, _), (_, total, _) = arguments
    np.testing.assert_array_equal(found[0][1], total[:, None] + np.cumsum(tokens - shift[:, None], axis=1))
    np.testing.assert_array_equal(found[0][2], np.logical_or.accumulate(flags, axis=1))


MASK = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 1]], bool)


@pytest.mark.covering("values")
@pytest.mark.parametrize(
    "options", [{}, {"zero_output_for_mask": True}, {"truncate": 2}, {"go_backwards": True}], ids=str
)
def test_masks(kind, options):
    """Of a masked step nothing is read: there an index may be anything."""
    fast, slow = both(**options)
    fast_engine.prepare(fast.recurrence).engine.split = Split(2, 1)
    arguments = given(kind)
    arguments[0][1][~MASK] = 1000
    found = []
    for layer in (fast, slow):
        apply, gradients, values = functions_of(layer)
        for function in (apply, gradients):
            assert ("callback" in text_of(function, *arguments, values, MASK)) == (layer is slow)
            found.append(jax.jit(function)(*arguments, values, MASK))
    for a, b in zip(found[:2], found[2:]):
        assert_same(a, b, kind)


@pytest.mark.covering("values")
@pytest.mark.parametrize("index", [ENTRIES, -ENTRIES - 1, 2**31 - 1])
@pytest.mark.parametrize("split", [Split(1, 1), Split(1, 2), Split(3, 1)], ids=str)
def test_an_index_out_of_range_is_an_error_of_xla(kind, index, split):
    fast, _ = both()
    fast_engine.prepare(fast.recurrence).engine.split = split
    apply, gradients, values = functions_of(fast)
    right, wrong = given(kind), given(kind)
    wrong[0][1][2, 3] = index
    for function in (jax.jit(apply), jax.jit(gradients)):
        expected = function(*right, values)
        with pytest.raises(
            (ValueError, jax.errors.JaxRuntimeError), match=f"index {index} is out of range for an axis of size 7"
        ):
            jax.block_until_ready(function(*wrong, values))
        assert_same(function(*right, values), expected, kind)  # the next call is as if nothing had been


def test_a_plain_call_says_what_is_out_of_range():
    sequences, constants, states = given("float32")
    sequences[1][0, 0] = ENTRIES
    for layer in both():
        with pytest.raises(Exception, match="take: index 7 is out of range for an axis of size 7"):
            layer(sequences, constants=constants, initial_state=states)


def vmapped(apply, sequences, constants, states, values):
    return jax.vmap(lambda *a: apply(*a, values), (0, None, 0))(_twice(sequences), constants, _twice(states))


def scanned(apply, sequences, constants, states, values):
    def body(carried, x):
        answers = apply(x, constants, carried, values)
        return answers[3:], answers[:3]

    return jax.lax.scan(body, tuple(states), _twice(sequences))


def sharded(apply, sequences, constants, states, values):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    parts, whole = jax.sharding.PartitionSpec("batch"), jax.sharding.PartitionSpec()
    return jax.shard_map(apply, mesh=mesh, in_specs=(parts, parts, parts, whole), out_specs=parts, check_vma=False)(
        sequences, constants, states, values
    )


def _twice(arrays):
    return [jnp.stack([a, a[::-1]]) for a in arrays]


@pytest.mark.covering("values")
@pytest.mark.parametrize("transformed", [vmapped, scanned, sharded])
def test_transformations(kind, transformed):
    """Values, and gradients by the weights through the transformation."""
    arguments, found = given(kind), []
    for layer in both():
        apply, _, values = functions_of(layer)

        def loss(values, apply=apply):
            answers = jax.tree.leaves(transformed(apply, *arguments, values))
            return sum(jnp.sum(jnp.cos(1.0 + y) * y) for y in answers if y.dtype.kind == "f"), answers

        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
        assert ("callback" in text_of(run, values)) == (layer.engine == "reference")
        found.append(run(values))
    assert_same(*found, kind)


@pytest.mark.covering("values")
@pytest.mark.parametrize(("batch", "steps"), [(0, STEPS), (BATCH, 0)])
@pytest.mark.parametrize("masked", [False, True])
def test_nothing_to_do_needs_no_python_either(kind, batch, steps, masked):
    arguments, found = given(kind, batch, steps), []
    mask = np.ones((batch, steps), bool) if masked else None
    for layer in both():
        apply, gradients, values = functions_of(layer)
        for function in (apply, gradients):
            assert ("callback" in text_of(function, *arguments, values, mask)) == (layer.engine == "reference")
            found.append(function(*arguments, values, mask))
    assert_same(found[:2], found[2:], kind)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_integers_become_64_bits_and_come_back(wide, dtype):
    ends = np.iinfo(dtype)
    numbers = np.array([[ends.min, ends.min // 2, 0], [1, ends.max // 2, ends.max]], dtype)
    with jax.enable_x64(wide):
        found = jax.jit(lambda v: jax_words.written(v, "int", None))(numbers)
        expected = jax_words.memory(numbers.shape, "int", None)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert np.asarray(found).tobytes() == numbers.astype(np.int64).tobytes()
        np.testing.assert_array_equal(jax_words.read(found, "int", dtype), numbers, strict=True)


def test_what_mixes_samples_under_a_mask_is_called_with_python():
    x, h = keras.Input((4,)), keras.Input((4,))
    new = h + x - ops.mean(x, axis=0, keepdims=True)
    layer = kb.RecurrentModel(x, new, h, new, engine="fast")
    values = jnp.ones((2, 3, 4))
    assert "callback" in text_of(lambda x: layer(x, mask=np.ones((2, 3), bool)), values)
    assert "callback" not in text_of(layer, values)


def test_integers_of_64_bits_without_x64():
    x, h = keras.Input((3,)), keras.Input((3,))
    new = ops.tanh(layers.Dense(3, use_bias=False, kernel_initializer="identity")(x) + h)
    largest = ops.cast(ops.argmax(new, -1), "int64")
    given = np.random.default_rng(0).standard_normal((2, 4, 3)).astype("float32")
    found = []
    with jax.enable_x64(False):
        for engine in ("keras", "reference"):
            layer = kb.RecurrentModel(x, [new, largest], h, new, return_sequences=True, engine=engine)
            gradient = jax.grad(lambda x, layer=layer: layer(x)[0].sum())(jnp.asarray(given))
            found.append([*layer(given), gradient])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype
        assert_close(np.asarray(b), np.asarray(a), "float32")
