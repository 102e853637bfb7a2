"""One row for each pointwise op: the domains of its operands and the function of numbers that it must be."""

import math

from hypothesis import strategies as st

from tests.rsref.ops.samples import Case, broadcast, elementwise


def row(function, *domains, analytic=True):
    """Return a case: each domain is a name, or several names of which all operands take the one at the same place."""
    choices = [tuple(d.split("|")) for d in domains]
    several = max(len(names) for names in choices)
    columns = [names * several if len(names) == 1 else names for names in choices]
    draw = st.one_of([broadcast(*(names[i] for names in columns)) for i in range(several)])
    return Case(draw, elementwise(function), analytic)


def exclusive(a, b):
    return bool(a) != bool(b)


def softplus(x):
    return math.log(1 + math.exp(x))


def clip(x, low, high):
    return min(max(x, low), high)


POINTWISE = {
    "add": row(lambda a, b: a + b, "real|int", "real|int"),
    "subtract": row(lambda a, b: a - b, "real|int", "real|int"),
    "multiply": row(lambda a, b: a * b, "real|int", "real|int"),
    "divide": row(lambda a, b: a / b, "real", "away"),
    "negative": row(lambda x: -x, "real|int"),
    "power": row(math.pow, "positive", "real"),
    "maximum": row(max, "real|int", "real|int"),
    "minimum": row(min, "real|int", "real|int"),
    "absolute": row(abs, "away|int", analytic=False),
    "square": row(lambda x: x**2, "real|int"),
    "exp": row(math.exp, "real"),
    "expm1": row(math.expm1, "real"),
    "log": row(math.log, "positive"),
    "log1p": row(math.log1p, "positive"),
    "sqrt": row(math.sqrt, "positive"),
    "rsqrt": row(lambda x: x**-0.5, "positive"),
    "reciprocal": row(lambda x: x**-1.0, "away"),
    "sin": row(math.sin, "real"),
    "cos": row(math.cos, "real"),
    "tan": row(math.tan, "open"),
    "arctan": row(math.atan, "real"),
    "arctan2": row(math.atan2, "real", "away"),
    "sinh": row(math.sinh, "real"),
    "cosh": row(math.cosh, "real"),
    "tanh": row(math.tanh, "real"),
    "erf": row(math.erf, "real"),
    "erfc": row(math.erfc, "real"),
    "sigmoid": row(lambda x: math.exp(x) / (1 + math.exp(x)), "real"),
    "softplus": row(softplus, "real"),
    "relu": row(lambda x: x if x > 0 else 0.0, "real"),
    "clip": row(clip, "real", "open", "positive"),
    "where": row(lambda c, a, b: a if c else b, "bool", "real|int|bool", "real|int|bool"),
    "stop_gradient": row(lambda x: x, "real|int"),
    "sign": row(lambda x: type(x)((x > 0) - (x < 0)), "real|int"),
    "floor": row(lambda x: float(math.floor(x)), "real"),
    "ceil": row(lambda x: float(math.ceil(x)), "real"),
    "round": row(lambda x: float(round(x)), "real"),
    "floor_divide": row(lambda a, b: a // b, "real|int", "away|counting"),
    "remainder": row(lambda a, b: a % b, "real|int", "away|counting"),
    "less": row(lambda a, b: a < b, "real|int", "real|int"),
    "less_equal": row(lambda a, b: a <= b, "real|int", "real|int"),
    "greater": row(lambda a, b: a > b, "real|int", "real|int"),
    "greater_equal": row(lambda a, b: a >= b, "real|int", "real|int"),
    "equal": row(lambda a, b: a == b, "real|int|bool", "real|int|bool"),
    "not_equal": row(lambda a, b: a != b, "real|int|bool", "real|int|bool"),
    "logical_and": row(lambda a, b: a and b, "bool", "bool"),
    "logical_or": row(lambda a, b: a or b, "bool", "bool"),
    "logical_xor": row(exclusive, "bool", "bool"),
    "logical_not": row(lambda a: not a, "bool"),
    "isnan": row(lambda x: x != x, "special"),
    "isfinite": row(math.isfinite, "special"),
}
