"""Kernels called by XLA itself: under jit, grad, vmap, scan and shard_map, against the reference engine."""

import jax
import jax.export
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import keras_bridge as kb
import rsref_fast
from keras_bridge import fast_engine, traced_engine
from keras_bridge.gradients import jax_native
from keras_bridge.gradients.jax_masks import packed
from keras_bridge.gradients.jax_words import read
from rsref.engine import ReferenceEngine
from rsref.testing import random_arguments
from rsref_fast.cpu.masks_plain import masked_batch
from rsref_fast.cpu.splitting import Split
from tests.fast.attending import reading_integers
from tests.sparing import kernel_folder
from tests.tolerances import assert_close


@pytest.fixture(autouse=True)
def compiling(monkeypatch, tmp_path_factory):
    monkeypatch.delenv(fast_engine.TARGET, raising=False)
    monkeypatch.setenv("RSREF_FAST_CACHE", str(kernel_folder(tmp_path_factory)))


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


def test_steps_may_be_symbolic():
    layer = kb.LSTMCell(6).get_layer(engine="keras")
    layer.build((None, None, 4))
    shape = jax.export.symbolic_shape("batch, steps, 4")
    exported = jax.export.export(jax.jit(layer))(jax.ShapeDtypeStruct(shape, "float32"))
    assert_close(np.asarray(exported.call(X)), np.asarray(layer(X)), "float32")


def test_a_part_that_reads_integers_alone_is_computed_as_the_step_is():
    own = reading_integers()
    engine = rsref_fast.compile(own)
    assert engine.parted is not None
    given = random_arguments(own, batch=2, steps=3)
    ((expected,), _, _) = given.forward(ReferenceEngine(own))
    with jax.enable_x64(True):
        groups = [[jnp.asarray(a) for a in group] for group in ([], given.constants, given.states, [])]
        found = jax_native.call(engine, groups, [np.float64] * 2, 2, 3)
    assert_close(np.asarray(found[0]), expected, "float64")


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("lengths", ["batch, 5, 4", "3, steps, 4"])
def test_symbolic_lengths_are_refused_by_a_sentence(engine, lengths):
    layer = kb.LSTMCell(6).get_layer(engine=engine)
    shape = jax.export.symbolic_shape(lengths)
    with pytest.raises(NotImplementedError, match=r"engine=\"keras\", which keras_bridge.export takes by itself"):
        jax.export.export(jax.jit(layer))(jax.ShapeDtypeStruct(shape, "float32"))


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
def test_calls_alike_keep_no_more_plans():
    layer, _ = layers_of("LSTMCell")
    layer(X)
    before = len(jax_native._kept)
    layer(X)
    assert len(jax_native._kept) == before


@pytest.mark.usefixtures("no_python")
def test_no_python_is_in_the_call():
    layer, _ = layers_of("LSTMCell")
    apply, values = function_of(layer)
    y = jax.jit(jax.grad(loss_of(apply)))(jnp.asarray(X), values)
    assert np.isfinite(np.asarray(y)).all()


def test_what_depends_on_no_step_is_a_call_of_its_own():
    """A decoder's keys: two calls of XLA forward, and gradients that flow from one to the other."""
    keras.utils.set_random_seed(3)
    layers = [
        kb.cells.AttentionDecoderCell(4).get_layer(decode=True, output_length=3, engine=engine)
        for engine in ("fast", "reference")
    ]
    found, called = [], []
    for layer in layers:
        layer.build((3, 5, 4))
        layer.set_weights(layers[0].get_weights())
        apply, values = function_of(layer)
        before = len(jax_native._kept)
        make = jax.jit(jax.value_and_grad(lambda x, values, f=apply: jnp.sum(jnp.sin(f(x, values))), argnums=(0, 1)))
        found.append(jax.tree.leaves(make(jnp.asarray(X), values)))
        called.append(len(jax_native._kept) - before)
    assert called == [4, 0]
    for a, b in zip(*found, strict=True):
        assert_close(a, b, "float32")


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


MASKS = {
    "middle": [[1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]],
    "none": [[0, 0, 0, 0, 0]] * 3,
    "all": [[1, 1, 1, 1, 1]] * 3,
}
MASKED = [{}, {"zero_output_for_mask": True}, {"truncate": 2}, {"go_backwards": True}]


def masked_function_of(layer):
    variables = layer.trainable_variables

    def apply(x, states, mask, values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            return layer(x, initial_state=states, mask=mask)

    return apply, [v.value for v in variables]


@pytest.mark.covering("values")
@pytest.mark.parametrize("split", [Split(1, 1), Split(3, 1), Split(3, 1, 2)], ids=str)
@pytest.mark.parametrize("options", MASKED, ids=str)
def test_masks_need_no_python(request, options, split):
    """One compiled function serves every mask; values and all gradients are the reference engine's."""
    states = [jnp.asarray(np.random.default_rng(i).normal(size=(3, 6)), jnp.float32) for i in range(2)]
    fast, slow = layers_of("LSTMCell", **options)
    fast_engine.prepare(fast.recurrence).engine.split = split
    found = []
    for layer in (slow, fast):
        if layer is fast:
            request.getfixturevalue("no_python")
        apply, values = masked_function_of(layer)

        def loss(x, states, values, mask, apply=apply):
            return sum(jnp.sum(jnp.cos(1.0 + y) * y) for y in apply(x, states, mask, values))

        run, gradient = jax.jit(apply), jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
        for mask in (jnp.asarray(m, bool) for m in MASKS.values()):
            answers = run(jnp.asarray(X), states, mask, values), gradient(jnp.asarray(X), states, values, mask)
            found.append(jax.tree.leaves(answers))
    for i in range(len(MASKS)):
        for a, b in zip(found[len(MASKS) + i], found[i], strict=True):
            assert_close(a, b, "float32")


@pytest.mark.parametrize(("shards", "truncate"), [(1, 2), (3, 3), (2, None)])
def test_tables_are_those_that_numpy_makes_of_a_mask(shards, truncate):
    chance = np.random.default_rng(3)
    tables = jax.jit(lambda mask: tuple(vars(packed(mask, shards, truncate)).values()))
    for samples in (0, 4):
        mask = chance.random((5, 6)) < chance.random((5, 1))
        mask[samples:] = False
        expected, order = masked_batch(mask, shards, truncate)
        found, words, cuts, cut_end = tables(mask)
        assert np.asarray(found).tolist() == order.tolist()
        words, cuts = np.asarray(read(words, "int", "int32")).tolist(), np.asarray(cuts).tolist()
        for shard in expected:
            room, rows = 6 * shard.count, shard.off[-1]
            off, pos, rid = words[:7], words[7:][:rows], words[7 + room :][:rows]
            assert off == [*shard.off, *[rows] * (6 - shard.steps)]
            assert (pos, rid, cuts[:rows]) == (shard.pos.tolist(), shard.rid.tolist(), shard.cut.tolist())
            words, cuts = words[7 + 2 * room :], cuts[room:]
        assert words == cuts == []
        assert np.asarray(cut_end).tolist() == np.concatenate([shard.cut_end for shard in expected]).tolist()


def test_steps_that_mix_samples_are_left_to_the_callback_if_masked():
    x, h = keras.Input((4,)), keras.Input((4,))
    new = h + x - keras.ops.mean(x, axis=0, keepdims=True)
    before = len(jax_native._kept)
    layers = [kb.RecurrentModel(x, new, h, new, engine=engine) for engine in ("fast", "reference")]
    fast, slow = (np.asarray(layer(X, mask=np.array(MASKS["middle"], bool))) for layer in layers)
    assert_close(fast, slow, "float32")
    assert len(jax_native._kept) == before


@pytest.mark.parametrize(("devices", "ours"), [(["gpu:0"], True), (["gpu:1"], False), (["gpu:0", "gpu:1"], False)])
def test_a_batch_that_is_distributed_over_gpus_is_left_to_keras(monkeypatch, devices, ours):
    """One that is on the first GPU alone is not: scripts for many GPUs are tried on one."""
    mesh = keras.distribution.DeviceMesh((len(devices),), ["batch"], devices)
    monkeypatch.setattr(fast_engine, "place", lambda: "cuda")
    monkeypatch.setattr(keras.distribution, "distribution", lambda: keras.distribution.DataParallel(device_mesh=mesh))
    assert ("loaded on one GPU" not in fast_engine.missing()) is ours
