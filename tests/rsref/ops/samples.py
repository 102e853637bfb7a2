"""What one test of an op is made of: operands drawn at random, attributes, and an independent expectation."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

VALUES = {
    "real": lambda rng, shape: rng.normal(0, 0.9, shape),
    "positive": lambda rng, shape: rng.uniform(0.3, 2, shape),
    "away": lambda rng, shape: rng.uniform(0.3, 2, shape) * rng.choice([-1, 1], shape),
    "open": lambda rng, shape: rng.uniform(-0.9, 0.9, shape),
    "bool": lambda rng, shape: rng.integers(0, 2, shape).astype(bool),
    "int": lambda rng, shape: rng.integers(-3, 4, shape),
    "counting": lambda rng, shape: rng.integers(1, 5, shape),
    "special": lambda rng, shape: rng.choice([0.5, np.nan, np.inf, -np.inf], shape),
}
"""How operands are filled: `real` around 0, `positive` and `away` from 0, `open` in (-1, 1), and so on."""


@dataclass(frozen=True)
class Sample:
    """Operands and attributes; "float" stands for the working precision in an attribute `dtype`."""

    operands: tuple
    attrs: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """How an op is sampled, and what it must answer.

    draw: a strategy for `Sample`, floats in float64.
    expected: a function of operands and attributes, written without rsref.
    analytic: whether complex steps give its derivative; else central differences do.
    """

    draw: st.SearchStrategy
    expected: Callable
    analytic: bool = True


def random_numbers():
    """Return a strategy for NumPy generators, seeded."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def shapes(min_dims=1, max_dims=3, max_side=3):
    """Return a strategy for shapes without empty axes."""
    return st.lists(st.integers(1, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


def elementwise(function):
    """Return a function of arrays that broadcasts them and applies a function of numbers in a plain loop."""

    def apply(*operands, **attrs):
        operands = np.broadcast_arrays(*operands)
        results = [
            function(*(operand[place].item() for operand in operands)) for place in np.ndindex(operands[0].shape)
        ]
        return np.array(results).reshape(operands[0].shape)

    return apply


@st.composite
def broadcast(draw, *domains):
    """Draw operands of shapes that broadcast together (empty ones among them), one for each domain."""
    drawn = draw(mutually_broadcastable_shapes(num_shapes=len(domains), max_dims=3, min_side=0, max_side=3))
    rng = draw(random_numbers())
    return Sample(tuple(VALUES[d](rng, shape) for d, shape in zip(domains, drawn.input_shapes)))


def filled(draw, *all_shapes, kind="real"):
    """Return an operand of each shape, filled at random."""
    rng = draw(random_numbers())
    return tuple(VALUES[kind](rng, shape) for shape in all_shapes)
