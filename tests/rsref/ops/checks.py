"""What every op must keep: one function for each promise, all of an op's name, its case and one sample."""

import numpy as np

from rsref import ops
from rsref.ops.base import compatible, concrete_attrs, differentiable
from rsref.ops.base import draw as draw_op
from rsref.tensor import Spec, kind_of_dtype
from rsref.testing import directional_derivative, relative_error
from tests.rsref.ops.drawn import evaluate, leaf, pull_back
from tests.tolerances import TOLERANCES, assert_close

TOLERANCE_OF = {"complex": "complex step", "difference": "differences"}


def spec_of(array):
    return Spec(np.shape(array), kind_of_dtype(np.asarray(array).dtype))


def float_operands(op, operands):
    """Return the places of the operands that have a gradient."""
    return [k for k, operand in enumerate(operands) if differentiable(op, k, spec_of(operand))]


def forward(op, sample, dtype=np.float64):
    with np.errstate(all="ignore"):
        return np.asarray(op.forward(*sample.operands, **concrete_attrs(sample.attrs, dtype)))


def cotangent(y):
    return np.cos(1.7 * np.arange(y.size) + 0.3).reshape(y.shape).astype(y.dtype)


def in_float32(sample):
    single = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in map(np.asarray, sample.operands)]
    return type(sample)(tuple(single), sample.attrs)


def check_forward(op, case, sample):
    """The op answers what an independent function says."""
    expected = np.asarray(case.expected(*sample.operands, **sample.attrs))
    y = forward(op, sample)
    assert_close(y.astype(np.float64), expected.astype(np.float64))
    assert not y.size or y.dtype.kind == expected.dtype.kind, f"{y.dtype} against {expected.dtype}"


def check_gradient(op, case, sample):
    """The vjp of every operand is the derivative: by complex steps where the op is analytic, else by differences."""
    y = forward(op, sample)
    g = cotangent(y)
    method = "complex" if case.analytic else "difference"
    attrs = concrete_attrs(sample.attrs, np.float64)
    for k in float_operands(op, sample.operands):
        gradient = np.asarray(op.vjp(k, g, y, *sample.operands, **attrs))
        assert gradient.shape == np.shape(sample.operands[k]), f"operand {k}: gradient of shape {gradient.shape}"
        directions = [cotangent(a[..., None])[..., 0] if i == k else None for i, a in enumerate(sample.operands)]
        (moved,) = directional_derivative(
            lambda *operands: op.forward(*operands, **attrs), sample.operands, directions, method
        )
        error = relative_error([gradient], [directions[k]], float(np.sum(g * moved)), float(np.linalg.norm(g)))
        assert error < TOLERANCES[TOLERANCE_OF[method]], f"operand {k}: relative error {error:.1e}"


def check_inference(op, case, sample, unknown):
    """Shape and dtype that the rule answers are those of the array, also when some axes are unknown."""
    y = forward(op, sample)
    spec = op.infer(*map(spec_of, sample.operands), **sample.attrs)
    assert (tuple(spec.shape), spec.dtype) == (y.shape, kind_of_dtype(y.dtype))
    vague = [Spec(tuple(None if next(unknown) else n for n in np.shape(a)), spec_of(a).dtype) for a in sample.operands]
    spec = op.infer(*vague, **sample.attrs)
    assert spec.dtype == kind_of_dtype(y.dtype)
    assert compatible(spec.shape, y.shape), f"{spec.shape} against {y.shape} for {vague}"


def drawn_vjp(op, sample, k, unknown_batch=False):
    """Return the vjp of an operand as a drawn tensor, and the values of its leaves."""
    y = forward(op, sample)
    operands = [leaf(a, vague_shape(a, y, sample) if unknown_batch else None) for a in sample.operands]
    drawn = draw_op(op, operands, sample.attrs)
    g = leaf(cotangent(y), drawn.shape)
    feed = {g: cotangent(y), **dict(zip(operands, sample.operands))}
    return ops.base.as_tensor(op.vjp(k, g, drawn, *operands, **sample.attrs)), feed


def vague_shape(operand, y, sample):
    """Return the operand's shape with its first axis unknown, if that may be a batch axis: the result has it too."""
    shape = np.shape(operand)
    is_batch = shape and len(shape) == max(map(np.ndim, sample.operands)) and y.shape[:1] == shape[:1]
    is_batch = is_batch and sample.attrs.get("axis") != 0
    return (None, *shape[1:]) if is_batch else shape


def check_drawn_gradient(op, case, sample, unknown_batch=False):
    """The vjp drawn with symbols, then evaluated, is the vjp run on arrays."""
    y = forward(op, sample)
    attrs = concrete_attrs(sample.attrs, np.float64)
    for k in float_operands(op, sample.operands):
        drawn, feed = drawn_vjp(op, sample, k, unknown_batch)
        expected = np.asarray(op.vjp(k, cotangent(y), y, *sample.operands, **attrs))
        assert_close(evaluate([drawn], feed)[drawn], expected)
        assert compatible(drawn.shape, expected.shape), f"operand {k}: drawn with shape {drawn.shape}"


def check_second_order(op, case, sample):
    """The vjp's own vjp, pulled back through the drawn backward graph, is the derivative of the vjp."""
    for k in float_operands(op, sample.operands):
        check_pull_back(*drawn_vjp(op, sample, k), "complex" if case.analytic else "difference")


def check_pull_back(drawn, feed, method="complex"):
    """The gradients of a drawn tensor, pulled back to all leaves, are its derivative."""
    g = cotangent(np.asarray(evaluate([drawn], feed)[drawn]))
    gradients = pull_back(drawn, g, feed)
    leaves = list(feed)
    directions = [
        0.1 * i + cotangent(np.asarray(feed[t])) if t.dtype == "float" else None for i, t in enumerate(leaves)
    ]

    def value(*arrays):
        return evaluate([drawn], dict(zip(leaves, arrays)))[drawn]

    (moved,) = directional_derivative(value, list(feed.values()), directions, method)
    error = relative_error(
        [gradients.get(t) for t in leaves], directions, float(np.sum(g * moved)), float(np.linalg.norm(g))
    )
    assert error < TOLERANCES[TOLERANCE_OF[method]], f"{drawn}: relative error {error:.1e}"


def check_float32(op, case, sample):
    """float32 operands give float32 results and gradients, near those in float64."""
    single = in_float32(sample)
    y, y32 = forward(op, sample), forward(op, single, np.float32)
    if y.dtype.kind == "f":
        assert y32.dtype == np.float32
        assert_close(y32, y, "float32", least=1.0)
    for k in float_operands(op, sample.operands):
        gradient = np.asarray(
            op.vjp(k, cotangent(y32), y32, *single.operands, **concrete_attrs(sample.attrs, np.float32))
        )
        expected = op.vjp(k, cotangent(y), y, *sample.operands, **concrete_attrs(sample.attrs, np.float64))
        assert gradient.dtype == np.float32, f"operand {k}: gradient in {gradient.dtype}"
        assert_close(gradient, expected, "float32", least=1.0)
