"""From a pointwise op to the text of a scalar expression, for every emitter of loops.

An op's formula is run on expressions instead of arrays: what it does to them is what the kernel does to each element.
So a new pointwise op needs nothing here, as long as its formula uses the functions listed below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsref.ops.pointwise import Pointwise

FUNCTIONS = {
    name: name
    for name in (
        "exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh", "erf",
        "erfc", "floor", "ceil", "rint", "sign", "absolute", "maximum", "minimum", "power", "arctan2",
        "floor_divide",
    )
} | {"remainder": "modulo"}  # fmt: skip
"""NumPy's name of a function, and its name among the kernels' own."""

TESTS = {"isnan": "({0} != {0})", "isfinite": "(absolute({0}) < INFINITY)"}
COMPARISONS = {
    "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!=",
}  # fmt: skip
LOGIC = {"logical_and": "&", "logical_or": "|", "logical_xor": "^"}
BITWISE = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"}
OF_BOOLS = {"add": "logical_or", "multiply": "logical_and", "maximum": "logical_or", "minimum": "logical_and"} | {
    f"bitwise_{name}": f"logical_{name}" for name in ("and", "or", "xor")
}
"""What NumPy does with two bools."""
OF_WHOLE = ("floor", "ceil", "rint", "sign", "absolute", "maximum", "minimum", "floor_divide")
"""Functions of whole numbers that answer whole numbers; all others are computed in floats."""
ARITHMETIC = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "true_divide": "/"}

OTHERS = {"clip", "heaviside", "reciprocal", "square", "where"}
HAVE = f"{', '.join(sorted({*FUNCTIONS, *TESTS} | OTHERS))} have one, and operators"
"""What a message says of the functions that have a kernel."""

STABLE = ("sigmoid", "softplus")
"""Ops whose kernel is a function of its own, better at the ends of the range than the formula is."""

_ORDER = ("bool", "int", "float")


@dataclass(frozen=True, eq=False)
class Expression:
    """Text that computes one element, and its kind: "float", "int" or "bool"."""

    text: str
    kind: str

    def __bool__(self) -> bool:
        raise NotImplementedError(
            "the truth of an element, by if, and, or, max, or a chain such as 0 < x < 1; write numpy.where, "
            "numpy.maximum, & and |"
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any) -> Expression:
        name = ufunc.__name__
        if method != "__call__" or options:
            raise NotImplementedError(f"numpy.{name}.{method} is no function of one element")
        return _called(name, operands)

    def __array_function__(self, function: Any, _types: Any, args: Any, options: Any) -> Expression:
        if function.__name__ not in COMPOSED or options:
            raise NotImplementedError(f"numpy.{function.__name__}; {HAVE}")
        return COMPOSED[function.__name__](*args)

    def __add__(self, other: Any) -> Expression:
        return _called("add", (self, other))

    def __radd__(self, other: Any) -> Expression:
        return _called("add", (other, self))

    def __sub__(self, other: Any) -> Expression:
        return _called("subtract", (self, other))

    def __rsub__(self, other: Any) -> Expression:
        return _called("subtract", (other, self))

    def __mul__(self, other: Any) -> Expression:
        return _called("multiply", (self, other))

    def __rmul__(self, other: Any) -> Expression:
        return _called("multiply", (other, self))

    def __truediv__(self, other: Any) -> Expression:
        return _called("divide", (self, other))

    def __rtruediv__(self, other: Any) -> Expression:
        return _called("divide", (other, self))

    def __pow__(self, other: Any) -> Expression:
        return _called("power", (self, other))

    def __rpow__(self, other: Any) -> Expression:
        return _called("power", (other, self))

    def __floordiv__(self, other: Any) -> Expression:
        return _called("floor_divide", (self, other))

    def __rfloordiv__(self, other: Any) -> Expression:
        return _called("floor_divide", (other, self))

    def __mod__(self, other: Any) -> Expression:
        return _called("remainder", (self, other))

    def __rmod__(self, other: Any) -> Expression:
        return _called("remainder", (other, self))

    def __neg__(self) -> Expression:
        return _called("negative", (self,))

    def __pos__(self) -> Expression:
        return self

    def __abs__(self) -> Expression:
        return _called("absolute", (self,))

    def __lt__(self, other: Any) -> Expression:
        return _called("less", (self, other))

    def __le__(self, other: Any) -> Expression:
        return _called("less_equal", (self, other))

    def __gt__(self, other: Any) -> Expression:
        return _called("greater", (self, other))

    def __ge__(self, other: Any) -> Expression:
        return _called("greater_equal", (self, other))

    def __eq__(self, other: Any) -> Expression:  # type: ignore[override]
        return _called("equal", (self, other))

    def __ne__(self, other: Any) -> Expression:  # type: ignore[override]
        return _called("not_equal", (self, other))

    def __and__(self, other: Any) -> Expression:
        return _called("bitwise_and", (self, other))

    def __or__(self, other: Any) -> Expression:
        return _called("bitwise_or", (self, other))

    def __xor__(self, other: Any) -> Expression:
        return _called("bitwise_xor", (self, other))

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Expression:
        return _called("invert", (self,))


def expression(op: Pointwise, operands: Sequence[Expression]) -> Expression:
    """Return what an op computes of one element of each operand.

    Errors: NotImplementedError, naming the op and the function, if the op's formula uses what has no kernel.
    """
    if op.name in STABLE:
        return Expression(f"{op.name}({operands[0].text})", "float")
    try:
        result = op.formula(*operands)
    except (TypeError, AttributeError, NotImplementedError) as error:  # Python's own; a method of arrays; NumPy's
        raise NotImplementedError(f"the formula of {op.name!r} has no kernel: {error}") from error
    return result if isinstance(result, Expression) else literal(result)


def cast(operand: Expression, kind: str) -> Expression:
    """Return an element as another kind; from float to int it is cut towards zero, as NumPy does."""
    if operand.kind == kind:
        return operand
    text = {"float": f"F({operand.text})", "int": f"I({operand.text})", "bool": f"({operand.text} != 0)"}[kind]
    return Expression(text, kind)


def literal(value: Any, kind: str | None = None) -> Expression:
    """Return a number as an expression, in the working precision if it is a float."""
    number = np.asarray(value)[()]
    own = {"b": "bool", "i": "int", "u": "int", "f": "float"}.get(np.asarray(number).dtype.kind)
    if own is None:
        raise TypeError(f"{value!r} is no number of a kernel")
    kind = kind or own
    if kind == "float":
        text = repr(float(number))
        special = {"nan": "NAN", "inf": "INFINITY", "-inf": "(-INFINITY)"}.get(text)
        return Expression(special or f"F({text})", "float")
    return Expression(repr(bool(number) if kind == "bool" else int(number)), kind)


def _unified(*operands: Any) -> list[Expression]:
    """Return operands of one kind, the widest; numbers take the kind of what they meet."""
    known = [o.kind if isinstance(o, Expression) else literal(o).kind for o in operands]
    widest = max(known, key=_ORDER.index)
    return [cast(o, widest) if isinstance(o, Expression) else literal(o, widest) for o in operands]


def _where(condition: Expression, a: Any, b: Any) -> Expression:
    a, b = _unified(a, b)
    return Expression(f"({a.text} if {condition.text} else {b.text})", a.kind)


def _clip(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _heaviside(x: Any, at_zero: Any) -> Any:
    x, at_zero = (cast(one, "float") for one in _unified(x, at_zero))
    return np.where(np.isnan(x), x, np.where(x < 0, 0.0, np.where(np.equal(x, 0), at_zero, 1.0)))


COMPOSED: dict[str, Callable[..., Any]] = {"where": _where, "clip": _clip, "heaviside": _heaviside}
"""Functions of NumPy that are said with others."""


def _called(name: str, operands: Sequence[Any]) -> Expression:
    """Return what a function of NumPy makes of one element of each operand, of the kind that NumPy's answer has."""
    if name == "logical_not":
        return Expression(f"(not {cast(operands[0], 'bool').text})", "bool")
    if name in LOGIC:
        a, b = (cast(o if isinstance(o, Expression) else literal(o), "bool") for o in operands)
        return Expression(f"({a.text} {LOGIC[name]} {b.text})", "bool")
    if name in COMPOSED:
        return COMPOSED[name](*operands)
    unified = _unified(*operands)
    kind = unified[0].kind
    if name in TESTS:
        return Expression(TESTS[name].format(unified[0].text), "bool")
    if name in COMPARISONS:
        return Expression(f"({unified[0].text} {COMPARISONS[name]} {unified[1].text})", "bool")
    if name in BITWISE or name == "invert":
        return _of_bits(name, unified)
    if kind == "bool":
        if name in ("negative", "subtract"):
            raise NotImplementedError(f"numpy.{name} of bools")
        if name in OF_BOOLS:
            return _called(OF_BOOLS[name], unified)
        return _called(name, [cast(one, "int") for one in unified])
    if name == "negative":
        return Expression(f"(-{unified[0].text})", kind)
    if name == "square":
        return unified[0] * unified[0]
    if kind == "int" and name in ("power", "reciprocal"):
        raise NotImplementedError(f"numpy.{name} of whole numbers")
    if kind == "int" and name == "remainder":
        return unified[0] - unified[1] * _called("floor_divide", unified)
    if kind == "int" and name not in (*OF_WHOLE, "add", "subtract", "multiply"):
        return _called(name, [cast(one, "float") for one in unified])
    if name == "reciprocal":
        return 1 / unified[0]
    if name in ARITHMETIC:
        return Expression(f"({unified[0].text} {ARITHMETIC[name]} {unified[1].text})", kind)
    if name not in FUNCTIONS:
        raise NotImplementedError(f"numpy.{name}; {HAVE}")
    return Expression(f"{FUNCTIONS[name]}({', '.join(o.text for o in unified)})", kind)


def _of_bits(name: str, operands: Sequence[Expression]) -> Expression:
    kind = operands[0].kind
    if kind == "float":
        raise NotImplementedError(f"numpy.{name} of floats")
    if name == "invert":
        return _called("logical_not", operands) if kind == "bool" else Expression(f"(~{operands[0].text})", kind)
    if kind == "bool":
        return _called(OF_BOOLS[name], operands)
    return Expression(f"({operands[0].text} {BITWISE[name]} {operands[1].text})", kind)
