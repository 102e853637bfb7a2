"""Mistakes in the definition of an op are answered by exceptions that name the op and what is wrong with it."""

import numpy as np
import pytest

from rsref import Input, RecurrentModel, ops
from rsref.ops.base import Op, apply
from rsref.ops.pointwise import Pointwise
from rsref.tensor import Spec
from rsref.testing import check_gradients


class Double(Op):
    """2 x, with faults: what it infers is an axis longer, or its gradient has the shape of the batch."""

    name = "double"

    def infer(self, x, *, fault):
        return Spec((*x.shape, 1) if fault == "infer" else x.shape, x.dtype)

    def forward(self, x, *, fault):
        return 2 * x

    def vjp(self, wrt, g, y, *operands, fault):
        return 2 * ops.sum(g, 1)


def doubled(fault):
    x = Input((3,))
    return RecurrentModel(x, apply(Double(), x, fault=fault))


def of(op):
    x = Input((3,))
    return RecurrentModel(x, op(x))


MISTAKES = {
    "a name that is taken": (
        lambda: ops.pointwise("tanh", lambda x: x, (lambda g: g,)),
        ValueError,
        ["op 'tanh' is defined twice", r"del rsref.ops.REGISTRY\['tanh'\] first"],
    ),
    "an op with the name of another one": (
        lambda: of(Pointwise("tanh", lambda x: 3 * x, (lambda g: 3 * g,), "float")),
        ValueError,
        ["op 'tanh' has the name of another op, which is registered"],
    ),
    "an op that answers another shape than it infers": (
        lambda: doubled("infer")(np.zeros((2, 5, 3))),
        ValueError,
        ["op 'double'", r"forward answers float64 of shape \(2, 3\)", r"infer says float of shape \(None, 3, 1\)"],
    ),
    "a comparison that says it answers floats": (
        lambda: of(Pointwise("above", lambda x: x > 0, (), "float"))(np.zeros((2, 5, 3))),
        ValueError,
        ["op 'above'", "forward answers bool of shape", "infer says float of shape"],
    ),
    "a gradient of another shape than the operand": (
        lambda: check_gradients(doubled("vjp").recurrence),
        ValueError,
        ["op 'double'", r"operand 0 has shape \(3,\), the operand \(3, 3\)"],
    ),
    "a number as gradient": (
        lambda: check_gradients(of(Pointwise("own", lambda x: 2 * x, (lambda g: 2.0,), "float")).recurrence),
        ValueError,
        ["op 'own'", r"operand 0 has shape \(\), the operand \(3, 3\)"],
    ),
    "bools as gradient": (
        lambda: check_gradients(of(Pointwise("own", lambda x: x, (lambda g, x: x > 0,), "float")).recurrence),
        ValueError,
        ["op 'own'", "operand 0 holds bool values, not floats"],
    ),
    "an operand with the name of the gradient": (
        lambda: ops.pointwise("own", lambda x, g: x * g, (lambda g: g, lambda g, x: g * x)),
        ValueError,
        ["op 'own'", "g and y are the gradient and the result"],
    ),
    "a derivative of what is not there": (
        lambda: ops.pointwise("own", lambda x: 2 * x, (lambda g, z: g * z,)),
        ValueError,
        ["op 'own'", "reads z; there are g, y, x"],
    ),
    "too few derivatives": (
        lambda: ops.pointwise("own", lambda a, b: a + b, (lambda g: g,)),
        ValueError,
        ["op 'own'", "one derivative for each of .'a', 'b'."],
    ),
    "a derivative without its comma": (
        lambda: ops.pointwise("own", lambda x: 2 * x, (lambda g: 2 * g)),
        TypeError,
        ["op 'own'", "derivatives are a tuple"],
    ),
    "a formula with an option": (
        lambda: ops.pointwise("own", lambda x, k=2.0: k * x, (lambda g, k: g * k,)),
        TypeError,
        ["op 'own'", "no default"],
    ),
    "a function of NumPy as a formula": (
        lambda: ops.pointwise("own", np.tanh, (lambda g, y: g * (1 - y * y),)),
        TypeError,
        ["op 'own'", "by position", "ufunc 'tanh'"],
    ),
    "a function of Python that does not name its operands": (
        lambda: ops.pointwise("own", max, (lambda g, y: g, lambda g, y: g)),
        TypeError,
        ["op 'own'", "by position", "built-in function max"],
    ),
    "a kind that there is not": (
        lambda: ops.pointwise("own", lambda x: 2 * x, (), kind="flaot"),
        ValueError,
        ["op 'own'", "kind must be one of float, same", "got 'flaot'"],
    ),
    "a name that is none in Python": (
        lambda: ops.pointwise("soft clip", lambda x: 2 * x),
        ValueError,
        ["op 'soft clip'", "letters, digits and _"],
    ),
    "a word of Python's as a name": (lambda: ops.pointwise("lambda", lambda x: 2 * x), ValueError, ["op 'lambda'"]),
    "a formula of nothing": (
        lambda: ops.pointwise("own", lambda: 1.0, ()),
        TypeError,
        ["op 'own'", "by position"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered(name):
    mistake, kind, words = MISTAKES[name]
    with pytest.raises(kind, match=".*".join(words)):
        mistake()
