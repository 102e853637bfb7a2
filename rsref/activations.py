"""Activation functions by name, as Keras has them: each drawn from a few ops.

Every function takes and returns a tensor of any shape; `get` finds one by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rsref import ops

Activation = Callable[..., Any]


def linear(x: Any) -> Any:
    """x itself."""
    return x


def _below(x: Any) -> Any:
    """x where it is not above 0, and 0 elsewhere: `minimum(x, 0)`, but with the whole of the gradient at 0."""
    return ops.where(x > 0, 0.0, x)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, alpha * (exp(x) - 1) below (Clevert 2016)."""
    return ops.where(x > 0, x, alpha * ops.expm1(_below(x)))


def selu(x: Any) -> Any:
    """Scaled elu that keeps mean and variance (Klambauer 2017)."""
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


def celu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, alpha * (exp(x / alpha) - 1) below (Barron 2017)."""
    return ops.where(x > 0, x, alpha * ops.expm1(_below(x) / alpha))


def gelu(x: Any, approximate: bool = False) -> Any:
    """x times the normal distribution function of x (Hendrycks 2016), or its tanh approximation."""
    if approximate:
        return 0.5 * x * (1 + ops.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + ops.erf(x * 0.7071067811865476))


def silu(x: Any) -> Any:
    """x * sigmoid(x), also called swish (Ramachandran 2017)."""
    return x * ops.sigmoid(x)


def mish(x: Any) -> Any:
    """x * tanh(softplus(x)) (Misra 2019)."""
    return x * ops.tanh(ops.softplus(x))


def softsign(x: Any) -> Any:
    """x / (1 + |x|)."""
    return x / (1 + ops.absolute(x))


def hard_sigmoid(x: Any) -> Any:
    """x / 6 + 1 / 2, cut to [0, 1], as in Keras 3."""
    return ops.clip(x / 6 + 0.5, 0.0, 1.0)


def hard_silu(x: Any) -> Any:
    """x * hard_sigmoid(x)."""
    return x * hard_sigmoid(x)


def hard_tanh(x: Any) -> Any:
    """x cut to [-1, 1]."""
    return ops.clip(x, -1.0, 1.0)


def relu6(x: Any) -> Any:
    """x cut to [0, 6]."""
    return ops.clip(x, 0.0, 6.0)


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """x above 0, negative_slope * x below."""
    return ops.where(x > 0, x, negative_slope * x)


def log_sigmoid(x: Any) -> Any:
    """log(sigmoid(x)), computed without overflow."""
    return -ops.softplus(-x)


def exponential(x: Any) -> Any:
    """exp(x)."""
    return ops.exp(x)


def tanh_shrink(x: Any) -> Any:
    """x - tanh(x)."""
    return x - ops.tanh(x)


def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x moved towards 0 by the threshold, 0 within it."""
    return ops.where(x > threshold, x - threshold, ops.where(x < -threshold, x + threshold, 0.0 * x))


def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """x, but 0 within the threshold."""
    return ops.where(ops.absolute(x) > threshold, x, 0.0 * x)


def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """x above a threshold, a fixed value elsewhere."""
    return ops.where(x > threshold, x, default_value + 0.0 * x)


def squareplus(x: Any, b: float = 4.0) -> Any:
    """(x + sqrt(x^2 + b)) / 2."""
    return (x + ops.sqrt(ops.square(x) + b)) * 0.5


def sparse_plus(x: Any) -> Any:
    """0 below -1, (x + 1)^2 / 4 up to 1, x above."""
    return ops.where(x <= -1, 0.0 * x, ops.where(x < 1, 0.25 * ops.square(x + 1), x))


def sparse_sigmoid(x: Any) -> Any:
    """(x + 1) / 2, cut to [0, 1]."""
    return ops.clip(0.5 * (x + 1), 0.0, 1.0)


def glu(x: Any, axis: int = -1) -> Any:
    """The first half of an axis times the sigmoid of the second (Dauphin 2017)."""
    first, second = ops.split(x, 2, axis)
    return first * ops.sigmoid(second)


relu, sigmoid, tanh, softplus = ops.relu, ops.sigmoid, ops.tanh, ops.softplus
softmax, log_softmax, sparsemax = ops.softmax, ops.log_softmax, ops.sparsemax
swish, hard_swish, logsigmoid = silu, hard_silu, log_sigmoid

ACTIVATIONS: dict[str, Activation] = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and not name.startswith("_") and name not in ("Activation", "Callable", "Any")
}


def get(activation: str | Activation | None) -> Activation:
    """Return an activation by name, a callable as it is, and `linear` for None; ValueError for an unknown name."""
    if activation is None:
        return linear
    if callable(activation):
        return activation
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is unknown; known are {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[activation]
