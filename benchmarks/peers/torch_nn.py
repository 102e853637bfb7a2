"""PyTorch's own LSTM and GRU, and its LSTM cell step by step."""

from typing import Any

import numpy as np
import torch

from benchmarks.peers import THREADS, Run
from benchmarks.problems import Array, Problem, dy_of

ORDER = {"LSTM": [0, 1, 2, 3], "GRU": [1, 0, 2]}
"""PyTorch's gates, in rsref's order."""


def gates(problem: Problem, matrix: Array, back: bool = False) -> Array:
    """Return a matrix with its columns' gates in PyTorch's order; back: from there to rsref's."""
    order = ORDER[problem.case.stock]
    parts = np.split(np.asarray(matrix), len(order), -1)
    return np.concatenate([parts[i] for i in (np.argsort(order) if back else order)], -1)


def weights_of(problem: Problem) -> list[Array]:
    """Return weight_ih, weight_hh, bias_ih, bias_hh of each layer."""
    found = []
    for i in range(problem.case.layers):
        kernel, recurrent, bias = (gates(problem, w) for w in problem.weights[3 * i : 3 * i + 3])
        biases = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        found += [kernel.T, recurrent.T, *biases]
    return found


def run(problem: Problem, padded: bool = False) -> Run:
    """Return PyTorch's layer as a run. padded: whether it computes the padding of sequences that end earlier, too."""
    torch.set_num_threads(THREADS)
    case = problem.case
    layer: Any = getattr(torch.nn, case.stock)(case.features, case.units, case.layers)
    parameters = list(layer.parameters())
    with torch.no_grad():
        for parameter, value in zip(parameters, weights_of(problem)):
            parameter.copy_(torch.tensor(np.ascontiguousarray(value)))
    packing = problem.lengths is not None and not padded
    # time first, since batch_first=True copies x in every call; sequences are sorted faster as rows
    layout = (0, 1, 2) if packing else (1, 0, 2)
    x, dy = (torch.tensor(a.transpose(layout).copy()) for a in (problem.x, dy_of(problem)))
    x.requires_grad_(case.training)

    def outputs() -> Any:
        if not packing:
            return layer(x)[0]
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(problem.lengths), batch_first=True, enforce_sorted=False
        )
        return torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=case.steps)[0]

    def infer() -> dict[str, Any]:
        with torch.inference_mode():
            return {"y": outputs().numpy().transpose(layout)}

    def train() -> dict[str, Any]:
        y = outputs()
        dx, *dw = torch.autograd.grad(y, [x, *parameters], dy)
        found: dict[str, Any] = {"y": y.detach().numpy().transpose(layout), "x": dx.numpy().transpose(layout)}
        for i in range(case.layers):
            kernel, recurrent, first, second = (g.numpy().T for g in dw[4 * i : 4 * i + 4])
            biases = [np.stack([first, second])] if case.stock == "GRU" else [first]
            named = enumerate([kernel, recurrent, *biases], 3 * i)
            found |= {f"w{k}": (lambda g=g: gates(problem, g, back=True)) for k, g in named}
        return found

    return train if case.training else infer


def stream(problem: Problem) -> Run:
    torch.set_num_threads(THREADS)
    case = problem.case
    cell = torch.nn.LSTMCell(case.features, case.units)
    with torch.no_grad():
        for parameter, value in zip(cell.parameters(), weights_of(problem)):
            parameter.copy_(torch.tensor(np.ascontiguousarray(value)))
    x = torch.tensor(problem.x[:, 0])
    state = [torch.zeros(case.batch, case.units), torch.zeros(case.batch, case.units)]

    def step() -> dict[str, Any]:
        with torch.inference_mode():
            state[:] = cell(x, (state[0], state[1]))
        return {"y": state[0].numpy()}

    return step
