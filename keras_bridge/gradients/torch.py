"""The custom-gradient call on PyTorch: an `autograd.Function` that runs on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from keras_bridge.gradients.words import FIRST_ONLY

Arrays = list[np.ndarray]
Forward = Callable[[Arrays, bool], tuple[Arrays, int]]
Backward = Callable[[Arrays, Arrays, int], Arrays]


class _HostFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, forward: Any, backward: Any, *tensors: Any) -> Any:
        ctx.host_backward = backward
        ctx.save_for_backward(*tensors)
        answers, ctx.ticket = forward(arrays_of(tensors), True)
        return tuple(tensors_of(answers, tensors[0].device))

    @staticmethod
    @torch.compiler.disable  # as `direct.call` says; autograd runs it within whatever is compiled
    def backward(ctx: Any, *gradients: Any) -> Any:
        tensors = ctx.saved_tensors

        def found() -> list[Any]:
            return gradients_of(ctx.host_backward, tensors, gradients, ctx.ticket)

        if any(torch._C._functorch.is_legacy_batchedtensor(g) for g in gradients):
            from keras_bridge.gradients import torch_func

            return None, None, *torch_func.many_back(ctx.host_backward, tensors, gradients, ctx.ticket)
        return None, None, *once(found, (*tensors, *gradients))


class _Once(torch.autograd.Function):
    """What a function computes, whose own gradient is an error where it is computed, and is not just missing.

    PyTorch's once_differentiable says nothing where the gradients that backward is given are constants.
    """

    @staticmethod
    def forward(ctx: Any, compute: Any, *tensors: Any) -> Any:
        return tuple(compute())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError(FIRST_ONLY)


def once(compute: Callable[[], Sequence[Any]], tensors: Sequence[Any]) -> Sequence[Any]:
    """Return gradients, computed of tensors; where they are recorded to be differentiated again, as `_Once`."""
    return _Once.apply(compute, *tensors) if torch.is_grad_enabled() else compute()


def gradients_of(backward: Backward, tensors: Sequence[Any], gradients: Sequence[Any], ticket: int) -> list[Any]:
    """Return the gradients of all tensors, None of those that are no floats or have none."""
    found = tensors_of(backward(arrays_of(tensors), arrays_of(gradients), ticket), gradients[0].device)
    padded = [*found, *[None] * (len(tensors) - len(found))]
    return [g if t.is_floating_point() else None for t, g in zip(tensors, padded)]


def call(forward: Forward, backward: Backward, tensors: list[Any], specs: Any, training: bool) -> list[Any]:
    """Return forward(tensors), with backward as its gradient; see `keras_bridge.gradients`."""
    if torch._C._are_functorch_transforms_active():
        from keras_bridge.gradients import torch_func

        return torch_func.call(forward, backward, tensors)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return tensors_of(
            forward(arrays_of(tensors), False)[0], tensors[0].device
        )  # nobody asks for gradients: no node is made
    return list(_HostFunction.apply(forward, backward, *tensors))


def native(engine: Any, groups: Any, rows: int, steps: int, mask: Any, dtypes: Sequence[Any] = ()) -> list[Any] | None:
    """Run an engine for arrays on a GPU on the tensors as they are; None for an engine of the host's."""
    if not getattr(engine, "on_device", False):
        return None
    from keras_bridge.gradients import torch_device

    return torch_device.run(engine, groups, steps, mask)


def arrays_of(tensors: Any) -> Arrays:
    return [tensor.numpy(force=True) for tensor in tensors]


def tensors_of(arrays: Arrays, device: Any) -> list[Any]:
    found = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    return found if device.type == "cpu" else [tensor.to(device) for tensor in found]
