"""PyTorch's tensors through the engine for device arrays, in place, on the fake device."""

import os

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")

import torch

from benchmarks import cuda_host
from keras_bridge.gradients import torch as torch_gradients
from keras_bridge.gradients import torch_device
from rsref.engine import ReferenceEngine
from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import kernels
from rsref_fast.cuda.engine import CudaEngine
from tests.cuda import fake
from tests.cuda.kernels import TILE
from tests.cuda.steps import MASK, recurrence_of
from tests.cuda.through_torch import compare, groups_of


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)
    return CudaEngine(recurrence_of("LSTMCell"), fake.new_device(), tile=TILE, rows=8)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("name", ["LSTMCell", "AttentionDecoderCell"])
def test_values_and_gradients(engine, name, mask):
    engine = CudaEngine(recurrence_of(name), engine.device, tile=TILE, rows=8)
    compare(engine, random_arguments(engine.recurrence, batch=3, steps=5, mask=mask))


def test_memory_is_pytorchs_and_no_tape_is_kept_without_need(engine):
    arguments = random_arguments(engine.recurrence, batch=3, steps=5)
    before = len(engine.device.api.memory)
    with torch.no_grad():
        torch_device.run(engine, groups_of(arguments), 5, None)
    # what is kept in the driver's own memory is what depends on the sizes alone
    first = len(engine.device.api.memory) - before
    with torch.no_grad():
        torch_device.run(engine, groups_of(arguments), 5, None)
    assert len(engine.device.api.memory) - before == first


def test_half_precision_is_answered_as_it_came(engine):
    arguments = random_arguments(engine.recurrence, batch=3, steps=5)
    (expected,), _, _ = arguments.forward(ReferenceEngine(engine.recurrence))
    y, *_ = torch_device.run(engine, groups_of(arguments, torch.bfloat16), 5, None)
    assert y.dtype == torch.bfloat16
    np.testing.assert_allclose(y.detach().float(), expected, rtol=0, atol=5e-2)


def test_other_engines_are_left_alone():
    assert torch_gradients.native(ReferenceEngine(recurrence_of("LSTMCell")), [], 3, 5, None) is None


def test_an_input_that_is_changed_before_backward_is_noticed(engine):
    groups = groups_of(random_arguments(engine.recurrence, batch=3, steps=5))
    x = groups[0][0].detach().clone()
    y, *_ = torch_device.run(engine, [[x], *groups[1:]], 5, None)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("training", [False, True])
def test_the_hosts_benchmark(training):
    """Each call asks for the same launches, as many as when it was planned."""
    driver = cuda_host.Idle()
    run = cuda_host.run_of("LSTMCell", 2, 3, 4, training, driver)
    counts = []
    for _ in range(3):
        driver.launches = 0
        with cuda_host.uncompiled():
            run()
        counts.append(driver.launches)
    assert counts[0] == counts[1] == counts[2] > 1
