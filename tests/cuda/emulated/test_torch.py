"""PyTorch's tensors through the engine for device arrays, in place, on the fake device."""

import gc
import os
import weakref

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")

import torch

import rsref
from benchmarks import cuda_host
from keras_bridge.gradients import torch as torch_gradients
from keras_bridge.gradients import torch_device
from rsref.engine import ReferenceEngine
from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import kernels
from rsref_fast.cuda.engine import CudaEngine
from tests.cuda import fake
from tests.cuda.kernels import TILE
from tests.cuda.through_torch import compare, groups_of
from tests.fast.made import MASK, recurrence_of
from tests.fast.steps import recurrence
from tests.fast.test_edges import BUSY, left_out


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)
    return CudaEngine(recurrence_of("LSTMCell"), fake.new_device(), tile=TILE, rows=8)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("name", ["LSTMCell", "AttentionDecoderCell"])
def test_values_and_gradients(engine, name, mask):
    engine = CudaEngine(recurrence_of(name), engine.device, tile=TILE, rows=8)
    compare(engine, random_arguments(engine.recurrence, batch=3, steps=5, mask=mask))


@pytest.mark.parametrize("steps", BUSY, ids=str)
def test_a_sample_without_a_step_reaches_nothing(engine, steps):
    own, given = left_out(steps)
    compare(CudaEngine(own, engine.device, tile=TILE, rows=8), given)


@pytest.fixture
def held(monkeypatch):
    """Return how many pieces of memory that the engine has asked PyTorch for are still there."""
    alive = weakref.WeakSet()

    class Bytes(np.ndarray):
        __hash__ = object.__hash__

    class Memory:
        def __init__(self, size, device):
            whole = np.empty(size, np.uint8).view(Bytes)
            alive.add(whole)
            self.tensor = torch.from_numpy(whole)
            self.address = self.tensor.data_ptr()

    monkeypatch.setattr(torch_device, "_Memory", Memory)

    def count():
        gc.collect()  # compiling leaves cycles, with frames in which arrays are
        return len(alive)

    return count


@pytest.mark.parametrize("name", ["LSTMCell", "AttentionDecoderCell"])
def test_no_tape_is_made_without_need(engine, held, name):
    """Neither where gradients are off nor where nothing asks for any: what runs is inference, with the whole step."""
    engine = CudaEngine(recurrence_of(name), engine.device, tile=TILE, rows=8)
    groups = groups_of(random_arguments(engine.recurrence, batch=3, steps=5))
    with torch.no_grad():
        answers = torch_device.run(engine, groups, 5, None)
    answers += torch_device.run(engine, [[t.detach() for t in group] for group in groups], 5, None)
    assert held() == len(answers)
    (special,) = engine._special.values()
    assert "run_inference" in vars(special)
    assert "run_forward" not in vars(special)
    assert engine.parted is None or not engine.parted.step._special


def test_memory_is_pytorchs(engine, held):
    """What is in the driver's own memory depends on the sizes alone."""
    groups = groups_of(random_arguments(engine.recurrence, batch=3, steps=5))
    torch_device.run(engine, groups, 5, None)
    first = len(engine.device.api.memory)
    answers = torch_device.run(engine, groups, 5, None)
    assert len(engine.device.api.memory) == first
    assert held() > len(answers)


STEPS = {"one": "LSTMCell", "in parts": "AttentionDecoderCell", "mixing samples": "across samples"}


@pytest.fixture(params=STEPS)
def called(engine, request):
    """An engine, arguments, and the mask of a call; what is kept for backward differs in kind."""
    own = (recurrence if request.param == "mixing samples" else recurrence_of)(STEPS[request.param])
    engine = CudaEngine(own, engine.device, tile=TILE, rows=8)
    return engine, random_arguments(own, batch=3, steps=5, mask=MASK)


def _gradients(call, retain=False):
    """Return a loss of all answers, and gradients."""
    engine, arguments = call
    groups = groups_of(arguments)
    answers = torch_device.run(engine, groups, 5, torch.tensor(arguments.mask))
    loss = sum((a * a).sum() for a in answers)
    del answers
    loss.backward(retain_graph=retain)
    return loss, [t.grad for group in groups for t in group if t.grad is not None]


def test_a_tape_goes_when_backward_has_read_it(called, held):
    """Also where the loss stays, unless the graph is to be kept; then backward may go again."""
    # whose gradients pass through what PyTorch computes of them, with a mask
    apart = sum(c.dtype.kind == "f" for c in called[1].constants)
    loss, first = _gradients(called)
    assert held() == len(first) - apart
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
    before = held()
    loss, twice = _gradients(called, retain=True)
    assert held() > before + len(twice) - apart
    once = [d.clone() for d in twice]
    loss.backward()
    for d, own in zip(twice, once, strict=True):
        torch.testing.assert_close(d, 2 * own, rtol=0, atol=0)
    assert held() == before + len(twice) - apart


def test_hooks_may_move_what_is_saved(called):
    """As `torch.autograd.graph.save_on_cpu` does; the memory where it was is then another's."""

    def moved(tensor):
        found = tensor.clone()
        if tensor.dtype == torch.uint8:  # the engine's own
            tensor.numpy()[...] = 255
        return found

    _, expected = _gradients(called)
    with torch.autograd.graph.saved_tensors_hooks(moved, lambda tensor: tensor):
        _, found = _gradients(called)
    for d, own in zip(found, expected, strict=True):
        torch.testing.assert_close(d, own, rtol=0, atol=0)


def test_arguments_that_are_not_row_after_row(engine):
    """Nor are they that when a hook has moved them."""
    groups = groups_of(random_arguments(engine.recurrence, batch=3, steps=5))
    x = groups[0][0].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    y, *_ = torch_device.run(engine, groups, 5, None)
    with torch.autograd.graph.saved_tensors_hooks(torch.Tensor.contiguous, lambda tensor: tensor):
        other, *_ = torch_device.run(engine, [[x], *groups[1:]], 5, None)
    for answer in (y, other):
        (answer * answer).sum().backward()
    torch.testing.assert_close(x.grad, groups[0][0].grad, rtol=0, atol=0)


def test_numbers_whose_memory_has_the_other_sign(engine):
    """As the imaginary part of a conjugate is, and the gradient of what becomes one."""
    groups = groups_of(random_arguments(engine.recurrence, batch=3, steps=5))
    x = groups[0][0].detach()
    negative = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert negative.is_neg()
    for own in (negative, torch._neg_view(-x)):
        with torch.no_grad():
            found = [torch_device.run(engine, [[x], *groups[1:]], 5, None)[0] for x in (own, x)]
        torch.testing.assert_close(*found, rtol=0, atol=0)
    found, kinds = [], []
    for conjugate in (True, False):
        y, *_ = torch_device.run(engine, groups, 5, None)
        y.register_hook(lambda d: kinds.append(d.is_neg()))
        z = torch.complex(torch.zeros_like(y), y)
        answer = torch.view_as_real(z.conj().resolve_conj())[..., 1] if conjugate else -y
        found.append(torch.autograd.grad(answer.sum(), groups[0][0])[0])
    assert kinds == [True, False]
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_answers_may_be_changed_in_place(engine):
    groups = groups_of(random_arguments(engine.recurrence, batch=3, steps=5))
    y, *_ = torch_device.run(engine, groups, 5, None)
    expected = torch.relu(y.detach() + 1)
    y.add_(1)
    torch.testing.assert_close(torch.nn.functional.relu(y, inplace=True), expected, rtol=0, atol=0)
    y.sum().backward()
    other = groups_of(random_arguments(engine.recurrence, batch=3, steps=5))
    torch.relu(torch_device.run(engine, other, 5, None)[0] + 1).sum().backward()
    torch.testing.assert_close(groups[0][0].grad, other[0][0].grad, rtol=0, atol=0)


def test_half_precision_is_answered_as_it_came(engine):
    arguments = random_arguments(engine.recurrence, batch=3, steps=5)
    (expected,), _, _ = arguments.forward(ReferenceEngine(engine.recurrence))
    y, *_ = torch_device.run(engine, groups_of(arguments, torch.bfloat16), 5, None)
    assert y.dtype == torch.bfloat16
    np.testing.assert_allclose(y.detach().float(), expected, rtol=0, atol=5e-2)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_of_all_sizes(engine, dtype):
    i, h = rsref.Input((), dtype="int"), rsref.Input((2,))
    new = h + rsref.ops.expand_dims(rsref.ops.cast(i, "float"), 1)
    engine = CudaEngine(rsref.RecurrentModel(i, new, h, new).recurrence, engine.device, tile=TILE, rows=8)
    numbers = torch.tensor([[1, 2, 127], [0, 5, 3]]).to(getattr(torch, dtype))
    y, *_ = torch_device.run(engine, [[numbers], [], [torch.zeros(2, 2)], []], 3, None)
    np.testing.assert_array_equal(y[:, -1], [[130, 130], [8, 8]])


def test_torch_func_is_refused(engine):
    with pytest.raises(NotImplementedError, match=r'torch.func on a GPU needs engine="keras"'):
        torch.func.vmap(lambda x: torch_device.run(engine, [[x]], 1, None)[0])(torch.ones(2, 1, 1, 3))


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
