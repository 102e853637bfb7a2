"""PyTorch's tensors on a GPU: in its memory, on its current stream, and Keras's layers there."""

import keras
import numpy as np
import pytest
import torch

import keras_bridge as kb
from keras_bridge.gradients import torch_device
from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import driver
from rsref_fast.cuda.engine import CudaEngine
from tests.cuda.through_torch import compare, groups_of
from tests.fast.made import MASK, recurrence_of


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("strategy", ["persistent", "alternating"])
@pytest.mark.parametrize("name", ["LSTMCell", "AttentionDecoderCell"])
def test_values_and_gradients(name, strategy, mask):
    own = recurrence_of(name, 24, 7)
    engine = CudaEngine(own, driver.current(), strategy)
    arguments = random_arguments(own, batch=3, steps=5, mask=mask)
    compare(engine, arguments, "cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        compare(engine, arguments, "cuda")


def test_a_stream_of_the_callers_keeps_its_order():
    """What a slow stream writes is read only when it is there, and the answer is read in the same order."""
    own = recurrence_of("LSTMCell", 24, 7)
    engine = CudaEngine(own, driver.current())
    arguments = random_arguments(own, batch=3, steps=5)
    groups = groups_of(arguments, device="cuda")
    expected = torch_device.run(engine, groups, 5, None)[0].detach().clone()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()), torch.no_grad():
        x = torch.full_like(groups[0][0], torch.nan)
        torch.cuda._sleep(20_000_000)
        x.copy_(groups[0][0])
        y = torch_device.run(engine, [[x], *groups[1:]], 5, None)[0]
        x.fill_(torch.nan)
        torch.testing.assert_close(y, expected, rtol=0, atol=0)


def test_tensors_that_are_given_to_an_engine_itself_are_waited_for():
    """PyTorch writes them in its current stream, which is not that of the call."""
    own, other = recurrence_of("LSTMCell", 24, 7), torch.cuda.Stream()
    engine = CudaEngine(own, driver.current())
    groups = groups_of(random_arguments(own, batch=3, steps=5), device="cuda")
    groups = [[t.detach() for t in group] for group in groups]
    (y,), _, _ = engine.forward(*groups, taped=False, stream=other.cuda_stream)
    expected = torch.from_dlpack(y).clone()
    torch.cuda.synchronize()
    x = torch.full_like(groups[0][0], torch.nan)
    torch.cuda._sleep(20_000_000)
    x.copy_(groups[0][0])
    (y,), _, _ = engine.forward([x], *groups[1:], taped=False, stream=other.cuda_stream)
    torch.testing.assert_close(torch.from_dlpack(y), expected, rtol=0, atol=0)


def test_a_call_does_not_wait():
    own = recurrence_of("LSTMCell", 24, 7)
    engine = CudaEngine(own, driver.current())
    groups = groups_of(random_arguments(own, batch=3, steps=5), device="cuda")
    for _ in range(2):
        torch_device.run(engine, groups, 5, None)[0].sum().backward()
    torch.cuda.synchronize()
    torch.cuda._sleep(400_000_000)
    slept = torch.cuda.Event()
    slept.record()
    torch_device.run(engine, groups, 5, None)[0].sum().backward()
    assert not slept.query()


def test_a_tensor_that_is_elsewhere_is_refused():
    own = recurrence_of("LSTMCell", 24, 7)
    engine = CudaEngine(own, driver.current())
    groups = groups_of(random_arguments(own, batch=3, steps=5), device="cuda")
    for elsewhere in ([[groups[0][0].cpu()], *groups[1:]], [*groups[:3], [p.cpu() for p in groups[3]]]):
        with pytest.raises(RuntimeError, match="a tensor is on cpu"):
            torch_device.run(engine, elsewhere, 5, None)


def test_a_layer_takes_the_kernels():
    """With "auto", in training as well."""
    assert keras.backend.backend() == "torch"
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
    np.testing.assert_allclose(losses, trained("keras")[1], rtol=1e-5)
