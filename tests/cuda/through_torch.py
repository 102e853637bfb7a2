"""An engine for device arrays called with PyTorch's tensors, against the oracle: on a fake device, or on a GPU."""

import numpy as np
import torch

from keras_bridge.gradients import torch as torch_gradients
from rsref.engine import ReferenceEngine
from tests.tolerances import assert_close

GROUPS = ("sequences", "constants", "states", "parameters")


def groups_of(arguments, dtype=torch.float32, device="cpu"):
    def tensor(array):
        floating = array.dtype.kind == "f"
        return torch.tensor(array, dtype=dtype if floating else None, requires_grad=floating, device=device)

    return [[tensor(a) for a in getattr(arguments, name)] for name in GROUPS]


def compare(engine, arguments, device="cpu"):
    """Compare values and gradients, in float32."""
    oracle = ReferenceEngine(engine.recurrence)
    (expected,), ends, tape = arguments.forward(oracle)
    groups = groups_of(arguments, device=device)
    mask = None if arguments.mask is None else torch.tensor(arguments.mask, device=device)
    y, *finals = torch_gradients.native(engine, groups, len(expected), expected.shape[1], mask)
    for found, right in zip((y, *finals), (expected, *ends), strict=True):
        assert_close(found.numpy(force=True), right, "float32")
    weights = np.random.default_rng(0).normal(size=y.shape)
    (y * torch.tensor(weights, dtype=torch.float32, device=device)).sum().backward()
    right = oracle.backward(tape, [weights], [None] * len(finals))
    for group, tensors in zip(GROUPS, groups, strict=True):
        for tensor, d in zip(tensors, getattr(right, group), strict=True):
            if d is None:
                assert tensor.grad is None
                continue
            assert_close(tensor.grad.numpy(force=True), d, "float32")
