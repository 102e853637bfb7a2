"""Steps of which a part depends on no step, on a fake device: it is gone back through once a call."""

import numpy as np
import pytest

from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import kernels
from rsref_fast.cuda.choice import Choice
from tests.cuda import fake
from tests.cuda.on_device import ThereAndBack
from tests.fast.agreement import check
from tests.fast.attending import attending

MASK = np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
ALTERNATING = Choice("alternating", "grid", 1, 3)


@pytest.fixture(autouse=True)
def device(monkeypatch):
    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)
    return fake.new_device()


@pytest.mark.covering("values")
@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_the_oracle(device, dtype, mask, outputs):
    own = attending(outputs)
    engine = ThereAndBack(own, device)
    for engine.engine.choice in (None, ALTERNATING, Choice("persistent", "block", 2, 2)):
        check(own, random_arguments(own, batch=3, steps=4, mask=mask), dtype=dtype, engine=engine)


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (2, 0), (0, 3)])
def test_sizes(device, batch, steps):
    own = attending()
    check(own, random_arguments(own, batch=batch, steps=steps), dtype=np.float32, engine=ThereAndBack(own, device))


def test_a_single_precision_memory_beside_double_precision_weights(device):
    own = attending()
    given = random_arguments(own, batch=2, steps=3)
    given.constants[0] = given.constants[0].astype(np.float32)
    engine = ThereAndBack(own, device)
    (y,), _, _ = engine.forward(given.sequences, given.constants, given.states, given.parameters)
    given.constants[0] = given.constants[0].astype(np.float64)
    (expected,), _, _ = given.forward(engine.engine.reference)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def launched(device, engine, arguments):
    """Return how many kernels are launched by a forward and a backward run."""
    before = len(device.api.launches)
    ys, ends, tape = arguments.forward(engine)
    engine.backward(tape, [np.ones_like(y) for y in ys], [np.ones_like(s) for s in ends])
    return len(device.api.launches) - before


def test_it_is_no_part_of_the_steps(device):
    """A launch for each part of a step shows it: there are fewer a step than without."""
    own = attending()
    counts = {}
    for parted in (True, False):
        engine = ThereAndBack(own, device)
        if not parted:
            engine.engine._parts = None
        engine.engine.choice = ALTERNATING
        few, many = (launched(device, engine, random_arguments(own, batch=2, steps=n).cast(np.float32)) for n in (2, 4))
        counts[parted] = (many - few) // 2
        if parted:
            assert "in two parts, what depends on no step" in engine.engine.explain()
    assert counts[True] < counts[False]


def test_what_is_wrong_is_said_of_the_whole_step(device):
    own = attending()
    given = random_arguments(own, batch=2, steps=3).cast(np.float32)
    engine = ThereAndBack(own, device)
    with pytest.raises(ValueError, match="2 constant arrays are needed; got 1"):
        engine.forward(given.sequences, given.constants[:1], given.states, given.parameters)


def test_nobody_waits(device):
    own = attending()
    arguments = random_arguments(own, batch=3, steps=4, mask=MASK).cast(np.float32)
    # the words of both parts, forward and backward, and of the sums
    assert ThereAndBack(own, device).uploads(arguments) == 5
