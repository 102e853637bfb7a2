"""What an op is: a name, a shape-and-dtype rule, a NumPy forward and a hand-written vjp, registered once.

An op has one output. Its function in `rsref.ops` works on arrays, where it computes, and on Tensors, where it draws.
A vjp is written with ops too: run on arrays it is the oracle's backward step, on Tensors it draws the backward graph.
"""

from __future__ import annotations

import abc
import keyword
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rsref.tensor import Shape, Spec, Tensor, constant, kind_of_dtype

REGISTRY: dict[str, Op] = {}


class NoGradientError(TypeError):
    """Backward needs a gradient that an op does not say how to compute."""


class Op(abc.ABC):
    """One primitive operation.

    Subclass, set `name`, write the three methods and `register` an instance: the oracle, its gradient and the
    parametrised tests then know the op.
    """

    name: str
    constant_operands: tuple[int, ...] = ()
    """Positions of operands through which no gradient flows, whatever their dtype (shape references, indices)."""

    @abc.abstractmethod
    def infer(self, *operands: Any, **attrs: Any) -> Spec:
        """Return shape and dtype of the result; ValueError or TypeError, naming op and shapes, if it has none."""

    @abc.abstractmethod
    def forward(self, *operands: Any, **attrs: Any) -> Any:
        """Compute the result from NumPy arrays."""

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        """Return the gradient with respect to operand `wrt`, in its shape, given `g`, that of the result `y`."""
        raise NoGradientError(
            f"op {self.name!r} has no gradient with respect to operand {wrt}; where none shall flow, "
            "write stop_gradient(...) around it"
        )

    def __repr__(self) -> str:
        return f"<Op {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _registered, (self.name,)  # pickles hold an op's name


def _registered(name: str) -> Op:
    return REGISTRY[name]


def register(op: Op) -> Op:
    """List an op under its name and return it; ValueError if the name is taken, or none that Python could have."""
    if not op.name.isidentifier() or keyword.iskeyword(op.name):
        raise ValueError(f"op {op.name!r}: a name is made of letters, digits and _, and begins with none of the digits")
    if op.name in REGISTRY:
        raise ValueError(
            f"op {op.name!r} is defined twice; to define your own anew, del rsref.ops.REGISTRY[{op.name!r}] first"
        )
    REGISTRY[op.name] = op
    return op


def apply(op: Op, *operands: Any, **attrs: Any) -> Any:
    """Compute the op if every operand is an array or number; draw it if one of them is a Tensor."""
    for operand in operands:
        if isinstance(operand, Tensor):
            return draw(op, operands, attrs)
    return op.forward(*operands, **attrs)


def draw(op: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Tensor:
    """Draw the op; ValueError if its name is another one's, by which engines, pickles and Keras would know it."""
    if REGISTRY.get(op.name, op) is not op:
        raise ValueError(f"op {op.name!r} has the name of another op, which is registered: give it one of its own")
    tensors = [as_tensor(operand) for operand in operands]
    return Tensor(op.infer(*(tensor.spec for tensor in tensors), **attrs), op=op, inputs=tensors, attrs=attrs)


def as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else constant(value)


def kind_of_value(value: Any) -> str:
    """Return "float", "int" or "bool" for a Tensor, an array or a number; complex steps count as floats."""
    if isinstance(value, Tensor):
        return value.dtype
    dtype = np.asarray(value).dtype
    return "float" if dtype.kind == "c" else kind_of_dtype(dtype)


def known_lengths(shape: Shape) -> list[int]:
    """Return lengths; ValueError if one is not known while a step is drawn."""
    if None in shape:
        raise ValueError(f"lengths must be known here; got {tuple(shape)}")
    return [int(n) for n in shape if n is not None]


def differentiable(op: Op, wrt: int, operand: Spec) -> bool:
    """Whether a gradient can flow from the op's result to this operand."""
    return operand.dtype == "float" and wrt not in op.constant_operands


KINDS = {"float": "fc", "int": "iu", "bool": "b"}


def check_answers(computed: Iterable[tuple[Tensor, Any]]) -> None:
    """ValueError, naming the op, if what it answered has another shape or kind of numbers than it inferred."""
    for tensor, value in computed:
        found = np.asarray(value)
        fits = compatible(found.shape, tensor.shape) and found.dtype.kind in KINDS[tensor.dtype]
        if tensor.op is not None and not fits:
            raise ValueError(
                f"op {tensor.op.name!r}: forward answers {found.dtype} of shape {found.shape}, where infer says "
                f"{tensor.dtype} of shape {tensor.shape}"
            )


def check_gradient(op: Op, wrt: int, answer: Any, shape: Shape, owner: str = "operand") -> None:
    """ValueError, naming the op, if what its vjp answers is not floats of a shape.

    owner: what has that shape.
    """
    value = answer if isinstance(answer, Tensor) else np.asarray(answer)
    if not compatible(value.shape, shape):
        raise ValueError(
            f"op {op.name!r}: the gradient with respect to operand {wrt} has shape {value.shape}, the {owner} {shape}"
        )
    if (value.dtype if isinstance(value, Tensor) else value.dtype.kind) not in ("float", "f", "c"):
        raise ValueError(
            f"op {op.name!r}: the gradient with respect to operand {wrt} holds {value.dtype} values, not floats, as "
            "g does, by which it is multiplied"
        )


def concrete_attrs(attrs: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    """Return the attributes with the dtype "float" made the working precision: what `forward` is called with."""
    if attrs.get("dtype") == "float":
        return {**attrs, "dtype": dtype}
    return dict(attrs)


def rank(value: Any) -> int:
    return value.ndim if hasattr(value, "ndim") else np.ndim(value)


def integer(name: str, value: Any) -> int:
    """Return a whole number as an int; TypeError, naming it, for any other, of which nothing is cut off."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None


def lengths_of(name: str, shape: Any, least: int = 0) -> Shape:
    """Return a shape, given as one length or several; TypeError or ValueError, naming the op, if it is none."""
    given = shape if isinstance(shape, Iterable) else [shape]
    lengths = tuple(None if n is None else integer(f"{name}: a length", n) for n in given)
    if any(n is not None and n < least for n in lengths):
        raise ValueError(f"{name}: a length must be at least {least}; got {lengths}")
    return lengths


def normal_axis(name: str, axis: int, ndim: int) -> int:
    """Return a non-negative axis; ValueError if it is out of range, TypeError if it is no integer."""
    axis = integer(f"{name}: axis", axis)
    if not -ndim <= axis < ndim:
        raise ValueError(f"{name}: axis {axis} is out of range for a tensor of rank {ndim}")
    return axis % ndim


def normal_axes(name: str, axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Return sorted non-negative axes; None means all of them."""
    if axis is None:
        return tuple(range(ndim))
    axes = list(axis) if isinstance(axis, Iterable) else [axis]
    normal = sorted(normal_axis(name, a, ndim) for a in axes)
    if len(set(normal)) != len(normal):
        raise ValueError(f"{name}: axis {axis!r} names an axis twice")
    return tuple(normal)


def broadcast_shapes(name: str, *shapes: Shape) -> Shape:
    """Return the broadcast shape, None standing for an unknown length; ValueError naming op and shapes."""
    result: list[int | None] = []
    ndim = max((len(shape) for shape in shapes), default=0)
    for axis in range(-ndim, 0):
        lengths = {shape[axis] for shape in shapes if len(shape) >= -axis}
        known = {n for n in lengths if n is not None and n != 1}
        if len(known) > 1:
            raise ValueError(f"{name}: shapes {', '.join(map(str, shapes))} cannot be broadcast together")
        result.append(known.pop() if known else None if None in lengths else 1)
    return tuple(result)


def compatible(first: Shape, second: Shape) -> bool:
    """Whether two shapes can be equal, None standing for any length."""
    return len(first) == len(second) and all(m is None or n is None or m == n for m, n in zip(first, second))
