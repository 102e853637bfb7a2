"""The custom-gradient call on PyTorch within `torch.func`: vmap runs an engine once for each sample, as on JAX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from keras_bridge.gradients.torch import Backward, Forward, arrays_of, gradients_of, once, tensors_of
from keras_bridge.gradients.words import FIRST_ONLY


def call(forward: Forward, backward: Backward, tensors: list[Any]) -> list[Any]:
    """Return forward(tensors), with backward as its gradient; see `keras_bridge.gradients`."""
    return list(_Forward.apply(forward, backward, *tensors)[:-1])


def many_back(backward: Backward, tensors: Sequence[Any], gradients: Sequence[Any], ticket: int) -> list[Any]:
    """Return gradients for many given at once, as `is_grads_batched` does, in the tensors that PyTorch has for that."""
    level = torch._C._vmapmode_increment_nesting() - 1  # there is no other way to learn it
    torch._C._vmapmode_decrement_nesting()
    every = [
        torch._remove_batch_dim(g, level, 1, 0) if torch._C._functorch.is_legacy_batchedtensor(g) else g[None]
        for g in gradients
    ]
    count = max(len(g) for g in every)

    def found() -> list[Any]:
        runs = [gradients_of(backward, tensors, [g[i % len(g)] for g in every], ticket) for i in range(count)]
        return [None if many[0] is None else torch.stack(many) for many in zip(*runs)]

    return [None if d is None else torch._add_batch_dim(d, 0, level) for d in once(found, (*tensors, *every))]


class _Forward(torch.autograd.Function):
    """Answers of an engine and, as the last one, the ticket: a tensor, so that `torch.func` may have many at once."""

    @staticmethod
    def forward(forward: Any, backward: Any, *tensors: Any) -> Any:
        answers, ticket = forward(arrays_of(tensors), True)
        return *tensors_of(answers, tensors[0].device), torch.tensor(ticket)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.host_backward, *tensors = inputs
        ctx.save_for_backward(output[-1], *tensors)
        ctx.mark_non_differentiable(*(y for y in output if not y.is_floating_point()))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ticket, *tensors = ctx.saved_tensors
        return None, None, *_Backward.apply(ctx.host_backward, len(tensors), ticket, *tensors, *gradients[:-1])

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return _one_by_one(_Forward, info, in_dims, inputs)


class _Backward(torch.autograd.Function):
    """The gradients of all tensors, None of those that have none."""

    @staticmethod
    def forward(backward: Any, count: int, ticket: Any, *tensors: Any) -> Any:
        given, gradients = tensors[:count], tensors[count:]
        return tuple(gradients_of(backward, given, gradients, int(ticket)))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError(FIRST_ONLY)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return _one_by_one(_Backward, info, in_dims, inputs)


def _one_by_one(function: Any, info: Any, in_dims: Any, inputs: Any) -> Any:
    """Return what a function answers for each of many inputs, and along which axis: kernels have no other batch."""

    def one(i: int) -> Any:
        return [value if d is None else value.select(d, i) for value, d in zip(inputs, in_dims)]

    runs = [function.apply(*one(i)) for i in range(info.batch_size)]
    answers = tuple(None if many[0] is None else torch.stack(many) for many in zip(*runs))
    return answers, tuple(None if y is None else 0 for y in answers)
