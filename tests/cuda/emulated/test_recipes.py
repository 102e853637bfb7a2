"""Calls that differ in nothing but where their memory is, and what is in it, are planned once, and right each time."""

import numpy as np
import pytest

from rsref.engine import ReferenceEngine
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import specialised
from rsref_fast.cuda import engine as cuda_engine
from rsref_fast.cuda import kernels, recipes
from rsref_fast.cuda.choice import Choice
from rsref_fast.cuda.engine import CudaEngine
from tests.cuda import fake
from tests.cuda.fake_blas import Blas
from tests.cuda.on_device import ThereAndBack
from tests.fast.made import MASK, recurrence_of

GROUPS = ("sequences", "constants", "states", "parameters")
WAYS = [
    Choice("persistent", "grid", 1, 2), Choice("persistent", "units", 1, 2), Choice("persistent", "block", 3, 2),
    Choice("alternating", "grid", 1, 3), Choice("alternating", "grid", 1, 3, products="cublas"),
    Choice("persistent", "grid", 1, 2, products="cublas"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def images(monkeypatch):
    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)


@pytest.fixture
def planned(monkeypatch):
    """What was planned, forward and backward runs."""
    found = []
    for module, name in ((recipes, "planned_back"), (CudaEngine, "_planned")):
        original = getattr(module, name)

        def noting(*given, name=name, original=original):
            found.append(name)
            return original(*given)

        monkeypatch.setattr(module, name, noting)
    return found


def expected_of(own, arguments, dys):
    ys, finals, tape = arguments.forward(ReferenceEngine(own))
    return ys, finals, ReferenceEngine(own).backward(tape, dys, [None] * len(finals))


def assert_close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is not None:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * (np.abs(theirs).max(initial=0) or 1))


MASKS = {"whole": (None, None), "masked": (MASK, np.roll(MASK, 1, 0))}
EVERY = [(way, masks) for way in WAYS for masks in MASKS.values() if masks[0] is None or way.products == "tiles"]


@pytest.mark.parametrize(("way", "masks"), EVERY)
def test_two_calls_at_once(planned, way, masks):
    """Both are forward before either goes back, the first one last."""
    own = recurrence_of("LSTMCell", truncate=3)
    device = fake.new_device(Blas)
    engine = ThereAndBack(own, device)
    engine.engine.choice = way
    rng = np.random.default_rng(0)
    calls = [random_arguments(own, batch=3, steps=5, mask=mask, seed=seed) for seed, mask in enumerate(masks)]
    runs = [call.forward(engine) for call in calls]
    dys = [rng.normal(size=run[0][0].shape) for run in runs]
    found = [engine.backward(runs[i][2], [dys[i]], [None, None]) for i in (1, 0)][::-1]
    for call, (ys, finals, _), dy, gradients in zip(calls, runs, dys, found):
        expected = expected_of(own, call, [dy])
        assert_close([*ys, *finals], [*expected[0], *expected[1]])
        for group in GROUPS:
            assert_close(getattr(gradients, group), getattr(expected[2], group))
    assert planned == ["_planned", "planned_back"]


def test_each_kind_of_gradient_is_a_kind_of_call(planned):
    """None for zero, some values, and values that are not row after row."""
    own = recurrence_of("GRUCell")
    device = fake.new_device()
    engine, arguments = ThereAndBack(own, device), random_arguments(own, batch=3, steps=4)
    ys, finals, tape = arguments.forward(engine)
    dy, dh = (np.random.default_rng(i).normal(size=a.shape) for i, a in enumerate((ys[0], finals[0])))
    strided = fake.OnDevice(device, dy.swapaxes(0, 1))
    strided.__cuda_array_interface__ |= {"shape": dy.shape, "strides": dy.swapaxes(0, 1).copy().swapaxes(0, 1).strides}
    reference = ReferenceEngine(own)
    expected = arguments.forward(reference)[2]
    for flows in ([None, None], [dy, None], [None, dh], [dy, dh], [dy, None], [None, None]):
        found = engine.backward(tape, flows[:1], flows[1:])
        for group in GROUPS:
            assert_close(getattr(found, group), getattr(reference.backward(expected, flows[:1], flows[1:]), group))
    assert planned == ["_planned", *["planned_back"] * 4]
    with device.bound():
        found = engine.engine.backward(tape, [strided], [None])
        assert_close(
            [fake.back(device, d) for d in found.parameters], reference.backward(expected, [dy], [None]).parameters
        )
    assert len(planned) == 6


def test_so_many_kinds_are_remembered(planned, monkeypatch):
    monkeypatch.setattr(cuda_engine, "KEPT", 2)
    own = recurrence_of("SimpleRNNCell")
    engine = ThereAndBack(own, fake.new_device())
    for steps in (1, 2, 3, 3, 2, 1):
        arguments = random_arguments(own, batch=2, steps=steps)
        assert_close(arguments.forward(engine)[0], arguments.forward(ReferenceEngine(own))[0])
        assert len(engine.engine._recipes) <= 2
    assert planned == ["_planned"] * 4


def test_a_kind_that_is_remembered_outlives_its_plan(planned, monkeypatch):
    """The tables of a plan, which kernels read, are there as long as any call that names them."""
    monkeypatch.setattr(specialised, "REMEMBERED", 1)
    own = recurrence_of("SimpleRNNCell")
    engine = ThereAndBack(own, fake.new_device())
    engine.engine.choice = WAYS[0]
    for steps in (1, 2, 1):
        arguments = random_arguments(own, batch=2, steps=steps)
        ys, finals, tape = arguments.forward(engine)
        expected = expected_of(own, arguments, ys)
        assert_close([*ys, *finals], [*expected[0], *expected[1]])
        assert_close(engine.backward(tape, ys, [None]).parameters, expected[2].parameters)
    assert planned == ["_planned", "planned_back"] * 2


def test_what_a_run_needs_alone_is_given_back():
    """Scratch memory is gone when forward has run; what backward reads is there until the tape goes."""
    own = recurrence_of("LSTMCell")
    device = fake.new_device()
    engine, arguments = ThereAndBack(own, device), random_arguments(own, batch=3, steps=4, mask=MASK[:, :4])
    _, _, tape = arguments.forward(engine)
    (recipe,) = engine.engine._recipes.values()
    script = recipe.script
    assert script.brief
    assert [memory is None for memory in tape.memory[1:]] == [i in script.brief for i in range(len(script.sizes))]
    held = len(device.api.memory)
    del tape
    assert len(device.api.memory) < held
