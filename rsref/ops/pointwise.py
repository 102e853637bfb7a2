"""Pointwise ops: each one formula and one derivative formula per operand.

Formulas are single NumPy expressions. The oracle evaluates them; on Tensors they draw; a code generator may paste
their source into a loop. In a derivative `g` is the gradient of the result, `y` the result, and the other names are the
operands': the names that are used say what backward needs. Gradients are summed down to the operand's shape afterwards.
Equality is written np.equal: `==` draws nothing on Tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from rsref.ops.base import Op, apply, as_tensor, broadcast_shapes, check_gradient, concrete_attrs, register
from rsref.tensor import Spec, Tensor, in_formula, kind_of_dtype

Formula = Callable[..., Any]

# How the operands' dtypes decide the result's: "float" casts all to float, "same" promotes bool < int < float,
# "compare" promotes and answers bool, "logical" casts to bool, "where" promotes all but the condition.
_ORDER = ("bool", "int", "float")
CASTS = {
    "float": "and cast to float",
    "same": "and cast to the widest kind among them, int at least",
    "compare": "and cast to the widest kind among them; the answer is bool",
    "logical": "and cast to bool",
    "where": "all but the first cast to the widest kind among them, and the first to bool",
}


class Pointwise(Op):
    """An op computed element by element, with broadcasting."""

    def __init__(self, name: str, formula: Formula, derivatives: Sequence[Formula | None], kind: str):
        self.name = name
        if kind not in CASTS:
            raise ValueError(f"op {name!r}: kind must be one of {', '.join(CASTS)}; got {kind!r}")
        if callable(derivatives):
            raise TypeError(f"op {name!r}: derivatives are a tuple, one for each operand; got the function alone")
        self.formula = formula
        self.derivatives = tuple(derivatives)
        self.kind = kind
        self.operand_names = _names(name, formula)
        if derivatives and len(derivatives) != len(self.operand_names):
            raise ValueError(f"op {name!r}: one derivative for each of {self.operand_names} is needed")
        known = ("g", "y", *self.operand_names)
        if len(set(known)) < len(known):
            raise ValueError(f"op {name!r}: g and y are the gradient and the result, so no operand has these names")
        if not derivatives:
            self.constant_operands = tuple(range(len(self.operand_names)))
        reads = [_names(name, d) if d else () for d in self.derivatives]
        unknown = [read for names in reads for read in names if read not in known]
        if unknown:
            raise ValueError(f"op {name!r}: a derivative reads {', '.join(unknown)}; there are {', '.join(known)}")
        self._reads = tuple(tuple(map(known.index, names)) for names in reads)

    def operand_dtypes(self, dtypes: Sequence[str]) -> tuple[str, ...]:
        """Return what each operand is cast to before the formula is applied."""
        if self.kind == "float":
            return ("float",) * len(dtypes)
        if self.kind == "logical":
            return ("bool",) * len(dtypes)
        if self.kind == "where":
            return ("bool", *(max(dtypes[1:], key=_ORDER.index),) * (len(dtypes) - 1))
        widest = max(dtypes, key=_ORDER.index)
        return ("int" if widest == "bool" and self.kind == "same" else widest,) * len(dtypes)

    def infer(self, *operands: Spec, **attrs: Any) -> Spec:
        wanted = self.operand_dtypes([operand.dtype for operand in operands])
        dtype = "bool" if self.kind in ("compare", "logical") else wanted[-1]
        return Spec(broadcast_shapes(self.name, *(operand.shape for operand in operands)), dtype)

    def forward(self, *operands: Any, **attrs: Any) -> Any:
        return _as_wide_as(operands[-1], self.formula(*operands))

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        derivative = self.derivatives[wrt] if self.derivatives else None
        if derivative is None:
            return super().vjp(wrt, g, y, *operands)
        values = (g, y, *operands)
        with in_formula() if isinstance(y, Tensor) else nullcontext():
            d = derivative(*(values[i] for i in self._reads[wrt]))
        if isinstance(y, Tensor):  # for what sum_to_like draws of a number would have the operand's shape
            check_gradient(self, wrt, d, y.shape, "result")
        return sum_to_like(_as_wide_as(operands[wrt], d), operands[wrt])

    def __call__(self, *operands: Any) -> Any:
        if len(operands) != len(self.operand_names):
            names = ", ".join(self.operand_names)
            raise TypeError(f"{self.name} takes {len(self.operand_names)} operands ({names}); got {len(operands)}")
        if any(isinstance(operand, Tensor) for operand in operands):
            tensors = [as_tensor(operand) for operand in operands]
            wanted = self.operand_dtypes([tensor.dtype for tensor in tensors])
            return apply(self, *(cast(tensor, dtype) for tensor, dtype in zip(tensors, wanted)))
        return self.formula(*operands)


def _as_wide_as(operand: Any, value: Any) -> Any:
    """Return what a formula answers in the precision of its operands: one of NumPy's numbers in it may be wider."""
    own, found = getattr(operand, "dtype", None), getattr(value, "dtype", None)
    if found == own or not isinstance(own, np.dtype) or found is None or own.kind != "f" or found.kind != "f":
        return value
    return value.astype(own)


def _names(op: str, formula: Formula) -> tuple[str, ...]:
    """Return what a formula or a derivative reads; TypeError if it is not a function of some numbers by position."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    try:
        parameters = [*inspect.signature(formula).parameters.values()]
    except ValueError:  # some built-in functions say nothing of their operands, nor do those of older NumPy
        parameters = []
    if not parameters or any(p.kind not in kinds or p.default is not p.empty for p in parameters):
        raise TypeError(
            f"op {op!r}: formulas are functions of operands by position, each with a name and no default, such as "
            f"lambda x: numpy.tanh(x); got {formula!r}"
        )
    return tuple(p.name for p in parameters)


def error_function(x: Any) -> Any:
    """Return scipy.special.erf(x); SciPy is loaded when it is first needed, since it takes longer than all the rest."""
    from scipy import special

    return special.erf(x)


def error_function_above(x: Any) -> Any:
    """Return scipy.special.erfc(x), which is 1 - erf(x) without its loss of digits above 0."""
    from scipy import special

    return special.erfc(x)


def angle(a: Any, b: Any) -> Any:
    """Return numpy.arctan2(a, b), the angle from (1, 0) to (b, a); of complex numbers near the real ones, too."""
    if not _is_step(a, b):
        return np.arctan2(a, b)
    steep, side = np.absolute(np.real(a)) > np.absolute(np.real(b)), np.where(np.real(a) < 0, -np.pi, np.pi)
    below = np.where(steep, a, b)
    slope = np.arctan(np.where(steep, b, a) / np.where(np.equal(below, 0), 1, below))
    return np.where(steep, side / 2 - slope, slope + np.where(np.real(b) < 0, side, 0))


def rest(a: Any, b: Any) -> Any:
    """Return numpy.remainder(a, b), what is left of a / b rounded down; of complex steps, too."""
    if not _is_step(a, b):
        return np.remainder(a, b)
    return np.remainder(np.real(a), np.real(b)) + 1j * (np.imag(a) - quotient(a, b) * np.imag(b))


def quotient(a: Any, b: Any) -> Any:
    """Return numpy.floor_divide(a, b), of the real parts of complex steps."""
    return np.floor_divide(np.real(a), np.real(b)) if _is_step(a, b) else np.floor_divide(a, b)


def _is_step(*operands: Any) -> bool:
    """Whether complex numbers near the real ones stand for them, by which derivatives are found."""
    return any(isinstance(x, np.ndarray | np.generic) and np.iscomplexobj(x) for x in operands)


def pointwise(
    name: str, formula: Formula, derivatives: Sequence[Formula | None] = (), kind: str = "float"
) -> Pointwise:
    """Define and register a pointwise op; the answer is its function. No derivatives: no gradient flows through it."""
    op = Pointwise(name, formula, derivatives, kind)
    says = f"numpy.{name}, element" if hasattr(np, name) else "Element"
    op.__doc__ = f"{says} by element: operands are broadcast, {CASTS[kind]}."
    register(op)
    return op


class Cast(Op):
    """x in another dtype: "float", "int" or "bool". From float to float nothing is drawn."""

    name = "cast"

    def infer(self, x: Spec, *, dtype: str) -> Spec:
        return Spec(x.shape, dtype)

    def forward(self, x: Any, *, dtype: Any) -> Any:
        kept = np.dtype(dtype).kind == "f" and np.iscomplexobj(x)  # complex steps pass through
        return x if kept else np.asarray(x).astype(dtype)

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return g


class SumToLike(Op):
    """g summed over the axes along which `like` was broadcast, so that it has the shape of `like`."""

    name = "sum_to_like"
    constant_operands = (1,)

    def infer(self, g: Spec, like: Spec) -> Spec:
        return Spec(like.shape, g.dtype)

    def forward(self, g: Any, like: Any) -> Any:
        g, shape = np.asarray(g), np.shape(like)
        if g.shape == shape:
            return g
        if g.ndim > len(shape):
            g = g.sum(axis=tuple(range(g.ndim - len(shape))))
        axes = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
        return g.sum(axis=axes, keepdims=True) if axes else g

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return broadcast_like(g, operands[0])


class BroadcastLike(Op):
    """x broadcast to the shape of `like`."""

    name = "broadcast_like"
    constant_operands = (1,)

    def infer(self, x: Spec, like: Spec) -> Spec:
        return Spec(broadcast_shapes(self.name, x.shape, like.shape), x.dtype)

    def forward(self, x: Any, like: Any) -> Any:
        return np.broadcast_to(x, np.shape(like))

    def vjp(self, wrt: int, g: Any, y: Any, *operands: Any, **attrs: Any) -> Any:
        return sum_to_like(g, operands[0])


_cast, _sum_to_like, _broadcast_like = register(Cast()), register(SumToLike()), register(BroadcastLike())


def cast(x: Any, dtype: str) -> Any:
    """Return x as "float", "int" or "bool"; a Tensor that already is of that kind is returned as it is.

    dtype: one of these, or "float32", "int64" and the like, which for a Tensor mean their kind.
    """
    if isinstance(x, Tensor):
        kind = kind_of_dtype(dtype)
        return x if x.dtype == kind else apply(_cast, x, dtype=kind)
    return apply(_cast, x, **concrete_attrs({"dtype": dtype}, np.float64))


def sum_to_like(g: Any, like: Any) -> Any:
    """Return g summed down to the shape of `like`."""
    if isinstance(g, Tensor) and g.shape == like.shape:
        return g
    return apply(_sum_to_like, g, like)


def broadcast_like(x: Any, like: Any) -> Any:
    """Return x broadcast to the shape of `like`."""
    return apply(_broadcast_like, x, like)


# --- arithmetic -----------------------------------------------------------------------------------------------------
add = pointwise("add", lambda a, b: a + b, (lambda g: g, lambda g: g), "same")
subtract = pointwise("subtract", lambda a, b: a - b, (lambda g: g, lambda g: -g), "same")
multiply = pointwise("multiply", lambda a, b: a * b, (lambda g, b: g * b, lambda g, a: g * a), "same")
divide = pointwise("divide", lambda a, b: a / b, (lambda g, b: g / b, lambda g, y, b: -g * y / b))
negative = pointwise("negative", lambda x: -x, (lambda g: -g,), "same")
_power = pointwise(
    "power",
    lambda a, b: np.power(a, b),
    (
        lambda g, a, b: g * b * np.power(a, np.where(np.equal(b, 0), 1, b - 1)),
        lambda g, y, a: g * y * np.log(np.where(np.equal(a, 0), 1, a)),
    ),
)
maximum = pointwise(  # equal operands share the gradient, as in JAX and PyTorch
    "maximum",
    lambda a, b: np.maximum(a, b),
    (
        lambda g, a, b: np.where(np.equal(a, b), 0.5 * g, np.where(a > b, g, 0)),
        lambda g, a, b: np.where(np.equal(a, b), 0.5 * g, np.where(b > a, g, 0)),
    ),
    "same",
)
minimum = pointwise(
    "minimum",
    lambda a, b: np.minimum(a, b),
    (
        lambda g, a, b: np.where(np.equal(a, b), 0.5 * g, np.where(a < b, g, 0)),
        lambda g, a, b: np.where(np.equal(a, b), 0.5 * g, np.where(b < a, g, 0)),
    ),
    "same",
)
absolute = pointwise("absolute", lambda x: np.absolute(x), (lambda g, x: g * np.sign(x),), "same")
square = pointwise("square", lambda x: x * x, (lambda g, x: g * 2 * x,), "same")

# --- exponentials and roots -----------------------------------------------------------------------------------------
exp = pointwise("exp", lambda x: np.exp(x), (lambda g, y: g * y,))
expm1 = pointwise("expm1", lambda x: np.expm1(x), (lambda g, y: g * (y + 1),))
log = pointwise("log", lambda x: np.log(x), (lambda g, x: g / x,))
log1p = pointwise("log1p", lambda x: np.log1p(x), (lambda g, x: g / (1 + x),))
sqrt = pointwise("sqrt", lambda x: np.sqrt(x), (lambda g, y: g / (2 * y),))
rsqrt = pointwise("rsqrt", lambda x: 1 / np.sqrt(x), (lambda g, x, y: g * y / (-2 * x),))
reciprocal = pointwise("reciprocal", lambda x: 1 / x, (lambda g, y: -g * y * y,))

# --- trigonometric and hyperbolic -----------------------------------------------------------------------------------
sin = pointwise("sin", lambda x: np.sin(x), (lambda g, x: g * np.cos(x),))
cos = pointwise("cos", lambda x: np.cos(x), (lambda g, x: -g * np.sin(x),))
tan = pointwise("tan", lambda x: np.tan(x), (lambda g, y: g * (1 + y * y),))
arctan = pointwise("arctan", lambda x: np.arctan(x), (lambda g, x: g / (1 + x * x),))
arctan2 = pointwise(
    "arctan2",
    lambda a, b: angle(a, b),
    (lambda g, a, b: g * b / (a * a + b * b), lambda g, a, b: -g * a / (a * a + b * b)),
)
sinh = pointwise("sinh", lambda x: np.sinh(x), (lambda g, x: g * np.cosh(x),))
cosh = pointwise("cosh", lambda x: np.cosh(x), (lambda g, x: g * np.sinh(x),))
tanh = pointwise("tanh", lambda x: np.tanh(x), (lambda g, y: g * (1 - y * y),))
erf = pointwise("erf", lambda x: error_function(x), (lambda g, x: g * 1.1283791670955126 * np.exp(-x * x),))
erfc = pointwise("erfc", lambda x: error_function_above(x), (lambda g, x: g * -1.1283791670955126 * np.exp(-x * x),))

# --- activations that are more than a composition: stable forms, fixed values at the kinks ----------------------
sigmoid = pointwise("sigmoid", lambda x: 1 / (1 + np.exp(-x)), (lambda g, y: g * y * (1 - y),))
softplus = pointwise(
    "softplus",
    lambda x: np.where(x > 0, x, 0) + np.log1p(np.exp(np.where(x > 0, -x, x))),
    (lambda g, x: g / (1 + np.exp(-x)),),
)
relu = pointwise("relu", lambda x: np.where(x <= 0, 0, x), (lambda g, x: np.where(x <= 0, 0, g),))
clip = pointwise(
    "clip",
    lambda x, x_min, x_max: np.minimum(np.maximum(x, x_min), x_max),
    (
        lambda g, x, x_min, x_max: g * ((x >= x_min) & (x <= x_max)),
        lambda g, x, x_min, x_max: g * ((x < x_min) & (x_min <= x_max)),
        lambda g, x, x_min, x_max: g * ((x > x_max) | (x_min > x_max)),
    ),
    "same",
)

# --- selection ------------------------------------------------------------------------------------------------------
_where = pointwise(
    "where",
    lambda condition, a, b: np.where(condition, a, b),
    (None, lambda g, condition: np.where(condition, g, 0), lambda g, condition: np.where(condition, 0, g)),
    "where",
)
remainder = pointwise(
    "remainder", lambda a, b: rest(a, b), (lambda g: g, lambda g, a, b: -g * np.floor_divide(a, b)), "same"
)
stop_gradient = pointwise("stop_gradient", lambda x: x, kind="same")

# --- no gradient: steps, comparisons, logic --------------------------------------------------------------------------
sign = pointwise("sign", lambda x: np.sign(x), kind="same")
floor = pointwise("floor", lambda x: np.floor(x))
ceil = pointwise("ceil", lambda x: np.ceil(x))
round = pointwise("round", lambda x: np.rint(x))
floor_divide = pointwise("floor_divide", lambda a, b: quotient(a, b), kind="same")
less = pointwise("less", lambda a, b: a < b, kind="compare")
less_equal = pointwise("less_equal", lambda a, b: a <= b, kind="compare")
greater = pointwise("greater", lambda a, b: a > b, kind="compare")
greater_equal = pointwise("greater_equal", lambda a, b: a >= b, kind="compare")
equal = pointwise("equal", lambda a, b: a == b, kind="compare")
not_equal = pointwise("not_equal", lambda a, b: a != b, kind="compare")
logical_and = pointwise("logical_and", lambda a, b: np.logical_and(a, b), kind="logical")
logical_or = pointwise("logical_or", lambda a, b: np.logical_or(a, b), kind="logical")
logical_xor = pointwise("logical_xor", lambda a, b: np.logical_xor(a, b), kind="logical")
logical_not = pointwise("logical_not", lambda x: np.logical_not(x), kind="logical")
isnan = pointwise("isnan", lambda x: np.isnan(x), kind="compare")
isfinite = pointwise("isfinite", lambda x: np.isfinite(x), kind="compare")


def power(a: Any, b: Any) -> Any:
    """Return a to the power b; the exponents 2, 0.5, -0.5, 1 and -1 are drawn as the cheaper ops that they are."""
    if isinstance(b, int | float):
        simple = {2: square, 0.5: sqrt, -0.5: rsqrt, -1: reciprocal}.get(b)
        if b == 1:
            return a
        if simple is not None:
            return simple(a)
    return _power(a, b)


def where(condition: Any, x1: Any, x2: Any) -> Any:
    """Return x1 where the condition holds and x2 elsewhere."""
    return _where(condition, x1, x2)
