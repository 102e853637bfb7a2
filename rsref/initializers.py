"""Initial values of weights and states, by the names of Keras.

An initializer is a callable that takes a shape and answers an array; random ones draw from one generator that
`set_random_seed` seeds. `get` finds one by name; a callable, a number or an array is accepted too.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsref.tensor import real_array

Initializer = Callable[[tuple[int, ...]], np.ndarray]

_generator = np.random.default_rng()


def set_random_seed(seed: int) -> None:
    """Seed the generator of all random initial values and of all layers made from now on.

    Errors: TypeError or ValueError for a seed that is no integer, or a negative one.
    """
    global _generator
    _generator = _seeded(seed)


def _seeded(seed: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"seed must be an integer, at least 0; got {seed!r}") from None


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random initial values from a generator of this seed within a `with` block."""
    global _generator
    kept, _generator = _generator, np.random.default_rng(seed)
    try:
        yield
    finally:
        _generator = kept


def new_generator(seed: int | None = None) -> np.random.Generator:
    """Return a generator for a layer's own draws (dropout, scheduled sampling): seeded, or split off the global one."""
    return _generator.spawn(1)[0] if seed is None else _seeded(seed)


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """All 0."""
    return np.zeros(shape)


def ones(shape: tuple[int, ...]) -> np.ndarray:
    """All 1."""
    return np.ones(shape)


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """Return how many values a unit reads and how many read it, for a kernel (*window, in, out)."""
    if len(shape) < 2:
        n = float(math.prod(shape))
        return n, n
    window = math.prod(shape[:-2])
    return float(shape[-2] * window), float(shape[-1] * window)


@dataclass(frozen=True)
class _Scaled:
    """Random numbers of a variance that the fans decide."""

    scale: float
    mode: str
    distribution: str

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        fan_in, fan_out = fans(shape)
        count = {"in": fan_in, "out": fan_out, "average": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, count)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return _generator.uniform(-limit, limit, shape)
        return _truncated_normal(shape, math.sqrt(variance) / 0.87962566103423978)


@dataclass(frozen=True)
class _Fixed:
    """A number or an array, the same for every sample."""

    value: np.ndarray

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        found = self.value.shape
        if found and found != tuple(shape) and found != tuple(shape[1:]):
            raise ValueError(f"an initial value of shape {found} is given where shape {tuple(shape)} is needed")
        return np.broadcast_to(self.value, shape).copy()


def _truncated_normal(shape: tuple[int, ...], deviation: float) -> np.ndarray:
    values = _generator.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = _generator.standard_normal(int(outside.sum()))
    return values * deviation


def orthogonal(shape: tuple[int, ...]) -> np.ndarray:
    """A random matrix with orthonormal rows or columns, whichever are fewer (Saxe 2014)."""
    if len(shape) < 2:
        raise ValueError(f"orthogonal needs a shape of rank 2 or more; got {shape}")
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(_generator.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return (q if rows >= columns else q.T).reshape(shape)


def identity(shape: tuple[int, ...]) -> np.ndarray:
    """The identity matrix."""
    if len(shape) != 2:
        raise ValueError(f"identity needs a shape of rank 2; got {shape}")
    return np.eye(*shape)


def random_normal(shape: tuple[int, ...]) -> np.ndarray:
    """Normal with deviation 0.05."""
    return _generator.normal(0, 0.05, shape)


def random_uniform(shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in [-0.05, 0.05]."""
    return _generator.uniform(-0.05, 0.05, shape)


class Learned:
    """A trainable initial state: one vector for all samples, itself started by an initializer.

    For `state_initializer` only; the name "learned" means `Learned("zeros")`.
    """

    def __init__(self, initializer: Any = "zeros"):
        self.initializer = get(initializer)


INITIALIZERS: dict[str, Initializer] = {
    "zeros": zeros,
    "ones": ones,
    "glorot_uniform": _Scaled(1.0, "average", "uniform"),
    "glorot_normal": _Scaled(1.0, "average", "normal"),
    "he_uniform": _Scaled(2.0, "in", "uniform"),
    "he_normal": _Scaled(2.0, "in", "normal"),
    "lecun_uniform": _Scaled(1.0, "in", "uniform"),
    "lecun_normal": _Scaled(1.0, "in", "normal"),
    "orthogonal": orthogonal,
    "identity": identity,
    "random_normal": random_normal,
    "random_uniform": random_uniform,
}


def get(initializer: Any) -> Initializer:
    """Return an initializer by name, a callable as it is, or one that answers a given number or array.

    Errors: ValueError for an unknown name, or an array whose shape is not the one asked for; TypeError for others.
    """
    if initializer is None:
        return zeros
    if callable(initializer):
        return initializer
    if isinstance(initializer, str):
        if initializer not in INITIALIZERS:
            raise ValueError(f"initializer {initializer!r} is unknown; known are {', '.join(sorted(INITIALIZERS))}")
        return INITIALIZERS[initializer]
    return _Fixed(real_array("an initializer that is no name and no function", initializer))
