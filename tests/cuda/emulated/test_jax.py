"""JAX's arrays through the engine for device arrays: XLA calls it, on the fake device, with the memory of the host.

The same handler as for a GPU; the host has no streams, so that the handler asks XLA for one is tested by itself.
"""

import ctypes
import os

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp

import rsref
from keras_bridge.gradients import jax as jax_gradients
from keras_bridge.gradients import jax_device
from rsref.engine import ReferenceEngine
from rsref.recurrence import Recurrence
from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import kernels, xla
from rsref_fast.cuda.choice import Choice
from rsref_fast.cuda.engine import CudaEngine
from tests.cuda import fake
from tests.cuda.kernels import TILE
from tests.cuda.through_jax import compare, dtypes_of, groups_of
from tests.fast.attending import attending, reading_integers
from tests.fast.made import MASK, recurrence_of
from tests.fast.picking import recurrence_of as recurrence_of_samples
from tests.fast.steps import recurrence
from tests.fast.test_edges import BUSY, left_out

CHOICES = [
    None,
    Choice("persistent", "grid", 1, 2),
    Choice("persistent", "units", 1, 2),
    Choice("alternating", "grid", 1, 3),
]


@pytest.fixture(autouse=True)
def device(monkeypatch):
    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)
    jax_device.register("cpu")
    return fake.new_device()


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_values_and_gradients(device, mask):
    for options in ({}, {"truncate": 2, "zero_output_for_mask": True}):
        own = recurrence_of("LSTMCell", **options)
        engine = CudaEngine(own, device, tile=TILE, rows=8)
        for engine.choice in CHOICES:
            compare(engine, random_arguments(own, batch=3, steps=5, mask=mask), 3, 5)


@pytest.mark.parametrize("steps", BUSY, ids=str)
def test_a_sample_without_a_step_reaches_nothing(device, steps):
    own, given = left_out(steps)
    compare(CudaEngine(own, device, tile=TILE, rows=8), given, 3, 2)


def test_integers_that_come_in(device):
    x, h = rsref.Input((), dtype="int"), rsref.Input((2,))
    table = rsref.Parameter("table", np.random.default_rng(0).normal(size=(3, 2)))
    new = rsref.ops.tanh(rsref.ops.embedding(x, table.tensor) + h)
    own = rsref.RecurrentModel(x, new, h, new).recurrence
    engine = CudaEngine(own, device, tile=TILE, rows=8)
    compare(engine, random_arguments(own, batch=3, steps=4), 3, 4)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_of_all_sizes(device, dtype):
    i, h = rsref.Input((), dtype="int"), rsref.Input((2,))
    new = h + rsref.ops.expand_dims(rsref.ops.cast(i, "float"), 1)
    engine = CudaEngine(rsref.RecurrentModel(i, new, h, new).recurrence, device, tile=TILE, rows=8)
    with jax.enable_x64(True):
        numbers = jax.numpy.asarray([[1, 2, 127], [0, 5, 3]], dtype)
        groups = [[numbers], [], [jax.numpy.zeros((2, 2), "float32")], []]
        y, *_ = jax_device.call(engine, groups, ["float32"] * 2, 2, 3)
    np.testing.assert_array_equal(y[:, -1], [[130, 130], [8, 8]])


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
def test_integers_and_bools_that_go_out(device, wide, mask):
    """States and outputs are in the kernels' memory, of 64 bits and of bytes, whatever JAX has."""
    x, token, flag = rsref.Input((2,)), rsref.Input((2,), dtype="int"), rsref.Input((1,), dtype="bool")
    h, total, seen = rsref.Input((2,)), rsref.Input((2,), dtype="int"), rsref.Input((1,), dtype="bool")
    new_total, new_seen = total - token, rsref.ops.logical_xor(seen, flag)
    new = rsref.ops.tanh(x + h * rsref.ops.cast(total, "float"))
    new = rsref.ops.where(new_seen, new, h)
    own = rsref.RecurrentModel(
        [x, token, flag], [new, new_total, new_seen], [h, total, seen], [new, new_total, new_seen]
    ).recurrence
    for options in ({}, {"truncate": 2, "zero_output_for_mask": True}):
        engine = CudaEngine(Recurrence(own.graph, **options), device, tile=TILE, rows=8)
        with jax.enable_x64(wide):
            compare(engine, random_arguments(own, batch=3, steps=5, mask=mask), 3, 5)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_what_depends_on_no_step(device, mask):
    engine = CudaEngine(attending(outputs=True), device, tile=TILE, rows=8)
    compare(engine, random_arguments(engine.recurrence, batch=3, steps=5, mask=mask), 3, 5)
    assert not engine._special
    assert engine.parted.first._special


def test_what_depends_on_no_step_is_computed_as_the_rest_is(device):
    own = reading_integers()
    given = random_arguments(own, batch=2, steps=3)
    ((expected,), _, _) = given.forward(ReferenceEngine(own))
    with jax.enable_x64(True):
        groups = [[jnp.asarray(a) for a in group] for group in ([], given.constants, given.states, [])]
        y, _ = jax_device.call(CudaEngine(own, device, tile=TILE, rows=8), groups, ["float64"] * 2, 2, 3)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("own", [recurrence("across samples"), recurrence_of_samples("rolled")], ids=["mean", "rolled"])
def test_samples_that_mix(device, own):
    for engine in (CudaEngine(own, device, strategy, TILE, rows=8) for strategy in ("persistent", "alternating")):
        compare(engine, random_arguments(own, batch=3, steps=4), 3, 4)


@pytest.mark.parametrize("own", [recurrence("across samples"), recurrence_of_samples("rolled")], ids=["mean", "rolled"])
def test_samples_that_mix_with_a_mask(device, own):
    mask = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
    for options in ({}, {"truncate": 2, "zero_output_for_mask": True}):
        engine = CudaEngine(Recurrence(own.graph, **options), device, tile=TILE, rows=8)
        compare(engine, random_arguments(own, batch=3, steps=4, mask=mask), 3, 4)


def test_nobody_waits(device):
    own = recurrence_of("LSTMCell")
    engine = CudaEngine(own, device, tile=TILE, rows=8)
    groups = groups_of(random_arguments(own, batch=3, steps=5))

    def value(groups):
        return jnp.sum(jax_gradients.native(engine, groups, 3, 5, None, dtypes_of(engine))[0])

    gradients = jax.jit(jax.grad(value))
    jax.block_until_ready(gradients(groups))
    before = dict(device.api.used)
    jax.block_until_ready(gradients(groups))
    used = {name: count - before.get(name, 0) for name, count in device.api.used.items()}
    for name in ("cuStreamSynchronize", "cuMemcpyDtoHAsync", "cuModuleLoadData"):
        assert used.get(name, 0) == 0
    assert used["cuMemAllocAsync"] == used["cuMemFreeAsync"] > 0


def test_what_is_called_again_is_neither_compiled_nor_planned_again(device):
    """Without jit: JAX finds what it has compiled for a call if that is the same one."""
    own = recurrence_of("SimpleRNNCell")
    engine = CudaEngine(own, device, tile=TILE, rows=8)
    groups, compiled = groups_of(random_arguments(own, batch=3, steps=5)), []

    def value(groups):
        return jnp.sum(jax_gradients.native(engine, groups, 3, 5, None, dtypes_of(engine))[0])

    def note(event, seconds, **more):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    counts = []
    for _ in range(2):
        value(groups)
        jax.grad(value)(groups)
        counts.append((len(compiled), len(xla._runs)))
    assert counts[0] == counts[1]
    assert compiled
    (special,) = engine._special.values()
    engine.choice = engine.chosen(special, 3)  # the same, but said to be
    value(groups)
    assert len(xla._runs) == counts[1][1] + 1


def test_half_precision_is_answered_as_it_came(device):
    own = recurrence_of("LSTMCell")
    engine = CudaEngine(own, device, tile=TILE, rows=8)
    arguments = random_arguments(own, batch=3, steps=5)
    (expected,), _, _ = arguments.forward(ReferenceEngine(own))
    halves = [[a.astype(jnp.bfloat16) for a in group] for group in groups_of(arguments)]
    y = jax_gradients.native(engine, halves, 3, 5, None, dtypes_of(engine, jnp.bfloat16))[0]
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, rtol=0, atol=5e-2)


def test_what_goes_wrong_is_xlas_error(device, monkeypatch):
    own = recurrence_of("SimpleRNNCell")
    engine = CudaEngine(own, device, tile=TILE, rows=8)
    monkeypatch.setattr(fake.Driver, "cuLaunchKernel", lambda *arguments: (719,))
    groups = groups_of(random_arguments(own, batch=2, steps=2))
    with pytest.raises(Exception, match="DeviceError: cuLaunchKernel: 719"):
        jax.block_until_ready(jax_device.call(engine, groups, dtypes_of(engine), 2, 2))


def test_a_handler_asks_for_the_stream():
    """With a call frame made here, as XLA's header says."""
    asked, ran = [], []

    @xla._GET
    def get(arguments):
        arguments[0].stream = 4242
        asked.append(arguments[0].context)

    number = (ctypes.c_int64 * 1)(xla.number_of(lambda *call: ran.append(call)))
    scalar = (ctypes.c_uint64 * 2)(0, ctypes.addressof(number))
    attributes = (ctypes.c_uint64 * 1)(ctypes.addressof(scalar))
    api = (ctypes.c_uint64 * 11)(*[0] * 10, ctypes.cast(get, ctypes.c_void_p).value)
    buffers = [(ctypes.c_uint64 * 6)(48, 0, 11, data) for data in (64, 128, 192)]
    given, answers = ((ctypes.c_uint64 * len(own))(*map(ctypes.addressof, own)) for own in (buffers[:2], buffers[2:]))
    frame = (ctypes.c_uint64 * 22)()
    frame[2], frame[3], frame[7], frame[9] = ctypes.addressof(api), 99, 2, ctypes.addressof(given)
    frame[12], frame[14], frame[17], frame[20] = 1, ctypes.addressof(answers), 1, ctypes.addressof(attributes)
    assert xla.handler(1)(ctypes.addressof(frame)) is None
    assert (asked, ran) == ([99], [([64, 128], [192], 4242)])


def test_a_layer_takes_the_kernels_where_jax_is_on_a_gpu(device, monkeypatch):
    """With "auto", in training as well; the host is said to be a GPU."""
    import keras

    import keras_bridge as kb
    from keras_bridge import engines, fast_engine
    from rsref_fast.cuda import driver

    assert keras.backend.backend() == "jax"
    for module in (engines, fast_engine):
        monkeypatch.setattr(module, "place", lambda: "cuda")
    monkeypatch.setattr(driver, "current", lambda: device)
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)

    def trained(engine):
        keras.utils.set_random_seed(1)
        layer = kb.SimpleRNNCell(3).get_layer(engine=engine)
        model = keras.Sequential([layer])
        model.compile("sgd", "mse")
        losses = model.fit(x, np.ones((3, 3), np.float32), epochs=2, batch_size=3, verbose=0).history["loss"]
        return layer, losses

    layer, losses = trained("auto")
    assert 'engine "fast", the fastest that can run this step' in layer.explain()
    launched = len(device.api.launches)
    assert launched > 0
    np.testing.assert_allclose(losses, trained("keras")[1], rtol=1e-5)
    assert len(device.api.launches) == launched


def test_a_layer_of_samples_that_mix_and_an_integer_state(device, monkeypatch):
    """With "auto", without a mask; the host is said to be a GPU."""
    import keras
    from keras import ops

    import keras_bridge as kb
    from keras_bridge import engines, fast_engine
    from rsref_fast.cuda import driver

    for module in (engines, fast_engine):
        monkeypatch.setattr(module, "place", lambda: "cuda")
    monkeypatch.setattr(driver, "current", lambda: device)
    values = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)

    def answers(engine):
        x, h, n = keras.Input((2,)), keras.Input((2,)), keras.Input((), dtype="int32")
        new = ops.tanh(ops.flip(x, axis=0) + h - ops.mean(x, axis=0, keepdims=True))
        layer = kb.RecurrentModel(x, new, [h, n], [new, n + 1], return_state=True, engine=engine)
        found = jax.jit(layer)(values, initial_state=[jnp.ones((3, 2)), jnp.arange(3, dtype="int32")])
        return layer, found

    layer, found = answers("auto")
    assert 'engine "fast", the fastest that can run this step' in layer.explain()
    assert device.api.launches
    for own, expected in zip(found, answers("keras")[1], strict=True):
        assert own.dtype == expected.dtype
        np.testing.assert_allclose(own, expected, rtol=0, atol=2e-5)
