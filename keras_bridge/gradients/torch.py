"""The custom-gradient call on PyTorch: an `autograd.Function` that runs on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

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
    @torch.autograd.function.once_differentiable
    @torch.compiler.disable  # as `direct.call` says; autograd runs it within whatever is compiled
    def backward(ctx: Any, *gradients: Any) -> Any:
        tensors = ctx.saved_tensors
        found = tensors_of(ctx.host_backward(arrays_of(tensors), arrays_of(gradients), ctx.ticket), gradients[0].device)
        wanted = [t.is_floating_point() for t in tensors]
        padded = [*found, *[None] * (len(tensors) - len(found))]
        return None, None, *(g if f else None for g, f in zip(padded, wanted))


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
