"""The engine for device arrays, on a fake device: packing, masks, shards, types, streams."""

import numpy as np
import pytest

from rsref.testing.arguments import random_arguments
from tests.cuda import fake
from tests.cuda.on_device import ThereAndBack
from tests.cuda.test_cells import MASK, recurrence_of
from tests.fast.agreement import check


@pytest.fixture(autouse=True)
def device(monkeypatch):
    from rsref_fast.cuda import kernels

    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)
    return fake.new_device()


@pytest.mark.parametrize("options", [{}, {"truncate": 2}, {"zero_output_for_mask": True}], ids=str)
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("name", ["LSTMCell", "RWACell"])
def test_against_the_oracle(device, name, mask, options):
    own = recurrence_of(name, **options)
    check(own, random_arguments(own, batch=3, steps=5, mask=mask), dtype=np.float32, engine=ThereAndBack(own, device))
