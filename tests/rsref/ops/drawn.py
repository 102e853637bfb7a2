"""A drawn graph evaluated and pulled back in a few lines, for leaves of any shape (the engines want a batch axis)."""

import numpy as np

from rsref.graph import topological_order
from rsref.ops.base import concrete_attrs, differentiable
from rsref.tensor import ConstantSource, Input, kind_of_dtype


def leaf(array, shape=None):
    """Return a leaf of an array's kind, and of its shape or a less definite one."""
    shape = np.shape(array) if shape is None else shape
    return Input(batch_shape=shape, dtype=kind_of_dtype(np.asarray(array).dtype))


def evaluate(outputs, feed):
    """Return the value of every tensor that the outputs depend on, given the values of the leaves."""
    dtype = np.result_type(
        np.float32, *(np.asarray(a).dtype for a in feed.values() if np.asarray(a).dtype.kind in "fc")
    )
    values = dict(feed)
    for tensor in topological_order(outputs):
        if isinstance(tensor.source, ConstantSource):
            fixed = tensor.source.value
            values[tensor] = fixed.astype(dtype) if fixed.dtype.kind == "f" else fixed
        elif tensor not in values:
            operands = [values[operand] for operand in tensor.inputs]
            values[tensor] = tensor.op.forward(*operands, **concrete_attrs(tensor.attrs, dtype))
    return values


def pull_back(output, g, feed):
    """Return the gradient of each float leaf, given that of one output; a leaf without influence gets zeros."""
    values = evaluate([output], feed)
    gradients = {output: g}
    moving = set(feed)
    for tensor in topological_order([output]):
        if not moving.isdisjoint(tensor.inputs):
            moving.add(tensor)
    for tensor in reversed(topological_order([output])):
        if tensor.op is None or tensor not in gradients:
            continue
        operands = [values[operand] for operand in tensor.inputs]
        attrs = concrete_attrs(tensor.attrs, np.asarray(g).dtype)
        for k, operand in enumerate(tensor.inputs):
            if operand in moving and differentiable(tensor.op, k, operand):
                d = tensor.op.vjp(k, gradients[tensor], values[tensor], *operands, **attrs)
                gradients[operand] = gradients[operand] + d if operand in gradients else d
    return {t: gradients.get(t, np.zeros_like(a)) for t, a in feed.items() if t.dtype == "float"}
