"""The custom-gradient call on PyTorch for tensors on a GPU: an engine for device arrays reads and writes them in place.

Everything is done in the order of PyTorch's current stream, in memory of its own allocator; nothing is copied to the
host, and nobody waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from keras_bridge.gradients.torch import once
from keras_bridge.gradients.torch_tapes import apart
from rsref_fast.cuda.arrays import CUDA, DeviceArray
from rsref_fast.cuda.engine import CudaEngine

DTYPES: dict[Any, np.dtype[Any]] = {
    torch.float32: np.dtype("f4"), torch.float64: np.dtype("f8"), torch.int8: np.dtype("i1"),
    torch.int16: np.dtype("i2"), torch.int32: np.dtype("i4"), torch.int64: np.dtype("i8"),
    torch.uint8: np.dtype("u1"), torch.uint16: np.dtype("u2"), torch.uint32: np.dtype("u4"),
    torch.bool: np.dtype("?"),
}  # fmt: skip
KINDS = {dtype: kind for kind, dtype in DTYPES.items()}
HALVES = (torch.float16, torch.bfloat16)
OTHERS = {**dict.fromkeys(HALVES, torch.float32), torch.uint64: torch.int64}
"""As what numbers are computed with that kernels do not read."""


class _Memory:
    """Bytes of PyTorch's allocator, as an engine holds them."""

    def __init__(self, size: int, device: Any):
        self.tensor = torch.empty(size, dtype=torch.uint8, device=device)
        self.address = self.tensor.data_ptr()


class _DeviceFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, engine: Any, counts: Any, steps: Any, mask: Any, *tensors: Any) -> Any:
        outputs, states, tape = _forward(engine, counts, steps, mask, tensors, taped=True)
        kept, ctx.tape_of = apart(tape)
        ctx.save_for_backward(*kept)  # PyTorch also sees then if an argument is changed meanwhile
        ctx.engine, ctx.outputs = engine, len(outputs)
        answers = [_tensor(a) for a in (*outputs, *states)]
        ctx.mark_non_differentiable(*(a for a in answers if not a.is_floating_point()))
        return tuple(answers)

    @staticmethod
    @torch.compiler.disable  # as `direct.call` says; autograd runs it within whatever is compiled
    def backward(ctx: Any, *gradients: Any) -> Any:
        kept = ctx.saved_tensors

        def found() -> list[Any]:
            stream = _ready(ctx.engine, kept)
            given = [None if g is None or not g.is_floating_point() else _array(g, stream) for g in gradients]
            own = ctx.engine.backward(ctx.tape_of(iter(kept)), given[: ctx.outputs], given[ctx.outputs :], stream)
            leaves = (*own.sequences, *own.constants, *own.states, *own.parameters)
            return [None if d is None else _tensor(d) for d in leaves]

        return None, None, None, None, *once(found, (*kept, *gradients))


def run(engine: CudaEngine, groups: Sequence[Sequence[Any]], steps: int, mask: Any) -> list[Any]:
    """Return outputs and final states. groups: sequences, constants, states and parameters, as tensors.

    Half precision is computed in float32, and answered as it came.
    """
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError('torch.func on a GPU needs engine="keras": kernels read the tensors as they are')
    if mask is not None and mask.numel():
        groups = [groups[0], _of_stepped(groups[1], mask), *groups[2:]]
    tensors = [t for group in groups for t in group]
    half = next((t.dtype for t in tensors if t.dtype in HALVES), None)
    full = [t.to(OTHERS.get(t.dtype, t.dtype)) for t in tensors]
    call = engine, [len(group) for group in groups], steps
    if torch.is_grad_enabled() and any(t.requires_grad for t in full):
        rows = [t.contiguous() for t in full]  # as hooks on saved tensors leave them
        answers = _DeviceFunction.apply(*call, mask if mask is None else mask.contiguous(), *rows)
    else:
        outputs, states, _ = _forward(*call, mask, full, taped=False)
        answers = [_tensor(a) for a in (*outputs, *states)]
    return [a if half is None or not a.is_floating_point() else a.to(half) for a in answers]


def _of_stepped(constants: Sequence[Any], mask: Any) -> list[Any]:
    """Return constants with those of another sample for each without a step, as `rsref_fast.cpu.masks_plain` does."""
    stepped = mask.any(1)
    first = stepped.to(torch.uint8).argmax().reshape(1)

    def own(value: Any) -> Any:
        other = value.detach().index_select(0, first)
        plain = torch.full_like(other, int(value.is_floating_point()))
        return torch.where(
            stepped.reshape(-1, *[1] * (value.dim() - 1)), value, torch.where(stepped.any(), other, plain)
        )

    return [own(value) for value in constants]


def _forward(
    engine: CudaEngine, counts: Sequence[int], steps: int, mask: Any, tensors: Sequence[Any], taped: bool
) -> Any:  # fmt: skip
    """Return what an engine answers. counts: how many of the tensors are sequences, constants, states, parameters."""
    stream = _ready(engine, tensors if mask is None else (*tensors, mask))
    arrays = iter([_array(t, stream) for t in tensors])
    sequences, constants, states, parameters = ([next(arrays) for _ in range(count)] for count in counts)
    own_mask = None if mask is None else _array(mask, stream)
    return engine.forward(sequences, constants, states, parameters, own_mask, steps, taped, stream)


def _ready(engine: CudaEngine, tensors: Sequence[Any]) -> int:
    """Let an engine use PyTorch's memory; return the current stream. Errors: RuntimeError for another device."""
    device = tensors[0].device
    own = ("cuda", engine.device.number) if engine.device.dlpack_kind == CUDA else ("cpu", None)
    for tensor in tensors:
        if (tensor.device.type, tensor.device.index) != own:
            raise RuntimeError(f"the kernels are loaded on GPU {engine.device.number}; a tensor is on {tensor.device}")
    engine.allocate = lambda size, stream: _Memory(size, device)
    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else 0


def _array(tensor: Any, stream: int) -> DeviceArray:
    dtype, tensor = DTYPES[tensor.dtype], tensor.detach().resolve_neg()  # its memory may have it with the other sign
    strides = None if tensor.is_contiguous() else tuple(n * dtype.itemsize for n in tensor.stride())
    return DeviceArray(tensor.data_ptr(), tuple(tensor.shape), dtype, tensor, stream, strides)


def _tensor(array: DeviceArray) -> Any:
    """Return an engine's answer, whose memory is a tensor's, as one: no view, so that it may be changed in place."""
    whole = array.owner.tensor
    return torch.empty(0, dtype=KINDS[array.dtype], device=whole.device).set_(whole.untyped_storage(), 0, array.shape)
