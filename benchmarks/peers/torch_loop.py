"""A drawn step in a plain PyTorch loop: its operations alone, recorded from Keras's step, eagerly or compiled.

Only the step is compiled: a loop of a hundred steps takes minutes, since `torch.compile` unrolls it.
"""

from typing import Any

import keras
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.peers import THREADS, Run
from benchmarks.peers.keras_layers import layer_of
from benchmarks.problems import Problem, dy_of


def run(problem: Problem, compiled: bool) -> Run:
    torch.set_num_threads(THREADS)
    train = tensors(problem, compiled)
    return lambda: {name: value.numpy() for name, value in train().items()}


def tensors(problem: Problem, compiled: bool) -> Run:
    """Return a function of no arguments that answers tensors, on PyTorch's default device."""
    case, layer = problem.case, layer_of(problem, "drawn")
    recurrence = layer.recurrence
    values = [v.value for v in layer.trainable_variables]
    x, dy = torch.tensor(problem.x, requires_grad=True), torch.tensor(dy_of(problem))
    constants = [x] if layer.decode else []
    if layer.leaves.mask_input is not None:
        constants.append(torch.ones(x.shape[:2], dtype=torch.bool))
    zeros = [torch.zeros(case.batch, *s.shape[1:]) for s in recurrence.model.inputs[-recurrence.states :]]

    def step(weights: list[Any], inputs: list[Any]) -> list[Any]:
        with keras.StatelessScope(state_mapping=list(zip(layer.trainable_variables, weights))):
            return list(recurrence.model(inputs))

    first = [] if layer.decode else [x[:, 0]]
    example = [t.detach() for t in values], [t.detach() for t in (*first, *constants, *zeros)]
    bare: Any = make_fx(step)(*example)
    if compiled:
        bare = torch.compile(bare)

    def train() -> dict[str, Any]:
        states, outputs = zeros, []
        slices = [] if layer.decode else x.unbind(1)
        for t in range(case.steps):
            y, *states = bare(values, [*([] if layer.decode else [slices[t]]), *constants, *states])
            outputs.append(y)
        y = torch.stack(outputs, 1)
        dx, *dw = torch.autograd.grad(y, [x, *values], dy)
        return {"y": y.detach(), "x": dx, **{f"w{i}": g for i, g in enumerate(dw)}}

    return train
