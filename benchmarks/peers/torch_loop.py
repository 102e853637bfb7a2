"""A drawn step in a plain PyTorch loop: its operations alone, recorded from Keras's step, eagerly or compiled.

Only the step is compiled: a loop of a hundred steps takes minutes, since `torch.compile` unrolls it.
"""

from typing import Any

import keras
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.peers import THREADS, Run, attention
from benchmarks.peers.keras_layers import layer_of
from benchmarks.problems import Problem, dy_of


def run(problem: Problem, compiled: bool) -> Run:
    torch.set_num_threads(THREADS)
    train = tensors(problem, compiled)
    return lambda: {name: value.numpy() for name, value in train().items()}


def tensors(problem: Problem, compiled: bool) -> Run:
    """Return a function of no arguments that answers tensors, on PyTorch's default device."""
    case, layer = problem.case, layer_of(problem, "drawn")
    values = [v.value for v in layer.trainable_variables]
    x, dy = torch.tensor(problem.x, requires_grad=True), torch.tensor(dy_of(problem))
    decode = case.cell == "AttentionDecoder"
    if decode:
        zeros = [torch.zeros(case.batch, case.units)]
    else:
        recurrence = layer.recurrence
        zeros = [torch.zeros(case.batch, *s.shape[1:]) for s in recurrence.model.inputs[-recurrence.states :]]

    def step(weights: list[Any], inputs: list[Any]) -> list[Any]:
        if decode:
            new = attention.step(inputs[:-1], inputs[-1], weights)
            return [new, new]
        with keras.StatelessScope(state_mapping=list(zip(layer.trainable_variables, weights))):
            return list(recurrence.model(inputs))

    def read() -> list[list[Any]]:
        """Return what each step reads besides states."""
        return [attention.before(x, values)] * case.steps if decode else [[x_t] for x_t in x.unbind(1)]

    example = [t.detach() for t in values], [t.detach() for t in (*read()[0], *zeros)]
    bare: Any = make_fx(step)(*example)
    if compiled:
        bare = torch.compile(bare)

    def train() -> dict[str, Any]:
        states, outputs = zeros, []
        for inputs in read():
            y, *states = bare(values, [*inputs, *states])
            outputs.append(y)
        y = torch.stack(outputs, 1)
        dx, *dw = torch.autograd.grad(y, [x, *values], dy)
        return {"y": y.detach(), "x": dx, **{f"w{i}": g for i, g in enumerate(dw)}}

    return train
