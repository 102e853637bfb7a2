"""Steps that pick samples by their number, on a fake device: sequences are turned there, and nobody waits."""

import numpy as np
import pytest

from rsref import Input, Parameter, RecurrentModel, ops
from rsref.recurrence import Recurrence
from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import inspection, kernels
from tests.cuda import fake
from tests.cuda.on_device import ThereAndBack
from tests.fast.agreement import check
from tests.fast.picking import PICKED, integers_and_bools, recurrence_of

MASK = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 0]], bool)


@pytest.fixture(autouse=True)
def device(monkeypatch):
    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)
    return fake.new_device()


@pytest.mark.parametrize("name", PICKED)
def test_against_the_oracle(device, name):
    """In both precisions, which have programs of their own, and so have two sizes of a batch."""
    own = recurrence_of(name)
    engine = ThereAndBack(own, device)
    for engine.engine.strategy, batch, dtype in (
        ("persistent", 3, np.float32), ("alternating", 3, np.float64), ("persistent", 2, np.float64),
    ):  # fmt: skip
        check(own, random_arguments(own, batch=batch, steps=4), dtype=dtype, engine=engine)
    assert len(engine.engine._special) == (3 if engine.engine.picks else 2)


@pytest.mark.parametrize("options", [{}, {"truncate": 2}, {"zero_output_for_mask": True}], ids=str)
def test_masks_and_truncation(device, options):
    """A masked sample takes no part in a step: then another one has its number."""
    graph = recurrence_of("rolled").graph
    own = Recurrence(graph, options.get("zero_output_for_mask", False), options.get("truncate"))
    engine = ThereAndBack(own, device)
    for mask in (None, MASK):
        check(own, random_arguments(own, batch=3, steps=4, mask=mask), dtype=np.float64, engine=engine)


def test_integers_and_bools(device):
    own = integers_and_bools()
    check(own, random_arguments(own, batch=4, steps=3), dtype=np.float32, engine=ThereAndBack(own, device))


def test_products_that_leave_the_loop(device):
    """More steps than a block of them has, and weights, of which each step's samples are rows of one product."""
    x, h = Input((2,)), Input((3,))
    rng = np.random.default_rng(0)
    first, second = (Parameter(n, rng.normal(size=(k, 3))) for n, k in (("first", 2), ("second", 3)))
    new = ops.tanh(x[::-1] @ first.tensor + h @ second.tensor)
    own = RecurrentModel(x, new * h[:1], h, new).recurrence
    check(own, random_arguments(own, batch=3, steps=11), dtype=np.float64, engine=ThereAndBack(own, device))


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 1), (2, 0), (0, 3)])
def test_sizes(device, batch, steps):
    own = recurrence_of("reversed")
    check(own, random_arguments(own, batch=batch, steps=steps), dtype=np.float32, engine=ThereAndBack(own, device))


def test_nobody_waits(device):
    own = recurrence_of("rolled")
    arguments = random_arguments(own, batch=3, steps=4).cast(np.float32)
    engine = ThereAndBack(own, device, strategy="persistent")
    assert engine.uploads(arguments) == 2  # the words of a call, forward and backward


def test_what_is_said_of_it(device):
    own = recurrence_of("rolled")
    engine = ThereAndBack(own, device)
    for ask in (engine.engine.explain, lambda: inspection.inspect(own)):
        with pytest.raises(ValueError, match="picks samples by their number"):
            ask()
    engine.engine.check()
    random_arguments(own, batch=3, steps=2).cast(np.float32).forward(engine)
    assert "a batch of 3: alternating" in engine.engine.explain()
