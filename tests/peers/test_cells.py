"""Full cells against PyTorch's own layers, weights copied: values and gradients in float64."""

import numpy as np
import pytest
import torch

import rsref_fast
from rsref import cells, ops
from tests.tolerances import assert_close


def sample():
    return np.random.default_rng(0).standard_normal((3, 6, 5))


def from_torch(name, layer):
    """Return a PyTorch layer's weights in our layout: kernels transposed, gates in our order, biases joined."""
    order = {"rnn": [0], "lstm": [0, 1, 2, 3], "gru": [1, 0, 2]}[name]
    parts = [
        p.detach().numpy().reshape(len(order), 4, -1)[order].reshape(len(order) * 4, -1) for p in layer.parameters()
    ]
    kernel, recurrent, bias, recurrent_bias = parts
    joined = np.stack([bias[:, 0], recurrent_bias[:, 0]]) if name == "gru" else (bias + recurrent_bias)[:, 0]
    return [kernel.T, recurrent.T, joined]


TORCH = {
    "rnn": (torch.nn.RNN, cells.SimpleRNNCell),
    "gru": (torch.nn.GRU, cells.GRUCell),
    "lstm": (torch.nn.LSTM, cells.LSTMCell),
}


def pair(name):
    """Return PyTorch's layer and ours, with the same weights."""
    torch_class, cell_class = TORCH[name]
    torch.manual_seed(0)
    peer = torch_class(5, 4, batch_first=True, dtype=torch.float64)
    ours = cell_class(4).get_layer(return_sequences=True)
    ours.build((3, 6, 5))
    ours.set_weights(from_torch(name, peer))
    return peer, ours


def check(name, peer, ours):
    x = torch.tensor(sample(), requires_grad=True)
    y = peer(x)[0]
    (y**2).sum().backward()
    answer, tape = ours.forward(sample())
    gradients = ours.backward(tape, 2 * answer)
    assert_close(answer, y.detach().numpy())
    assert_close(gradients.x, x.grad.numpy())
    copied = type(peer)(5, 4, batch_first=True, dtype=torch.float64)
    for parameter, source in zip(copied.parameters(), peer.parameters()):
        parameter.data = source.grad
    kernel, recurrent, bias = from_torch(name, copied)
    assert_close(gradients.weights[0], kernel)
    assert_close(gradients.weights[1], recurrent)
    # the two biases of PyTorch that are one of ours have the same gradient each, so their sum is twice ours
    assert_close(gradients.weights[2], bias if name == "gru" else bias / 2)


@pytest.mark.parametrize("name", TORCH)
def test_cells_agree_with_torch(name):
    check(name, *pair(name))


@pytest.mark.parametrize("name", TORCH)
def test_the_check_sees_a_transposed_weight(name):
    peer, ours = pair(name)
    weights = ours.get_weights()
    weights[1][:, :4] = weights[1][:, :4].T.copy()
    ours.set_weights(weights)
    with pytest.raises(AssertionError, match="relative error"):
        check(name, peer, ours)


@pytest.mark.parametrize("name", TORCH)
def test_the_check_sees_a_wrong_gradient(name, monkeypatch):
    """The values stay right: the vector-Jacobian product of tanh alone is changed."""
    peer, ours = pair(name)
    tanh = ops.REGISTRY["tanh"]
    monkeypatch.setattr(tanh, "vjp", lambda wrt, g, y, x: g * (1 - y * y) * 0.99)
    with pytest.raises(AssertionError, match="relative error"):
        check(name, peer, ours)


@pytest.mark.parametrize("name", TORCH)
def test_time_first_agrees_with_torch(name):
    """PyTorch's own way round, and ours as a view of the same memory."""
    peer, ours = pair(name)
    peer.batch_first = False
    values = np.ascontiguousarray(sample().swapaxes(0, 1))
    x = torch.tensor(values, requires_grad=True)
    y = peer(x)[0]
    (y**2).sum().backward()
    graph = ours.recurrence.graph
    engine = rsref_fast.compile(ours.recurrence, target="interpreter")
    states = [np.zeros((3, 4)) for _ in graph.states]
    (answer,), _, tape = engine.forward([values.swapaxes(0, 1)], [], states, [p.value for p in graph.parameters])
    gradients = engine.backward(tape, [2 * answer], [None] * len(states))
    assert_close(answer.swapaxes(0, 1), y.detach().numpy())
    assert_close(gradients.sequences[0].swapaxes(0, 1), x.grad.numpy())
