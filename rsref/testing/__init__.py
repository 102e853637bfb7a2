"""Tools with which users check their own steps, cells and engines: gradient checks, and random recurrences.

    from rsref.testing import check_gradients
    check_gradients(Recurrence(graph))      # AssertionError, naming the argument, if a gradient is wrong

NumPy alone is needed, but for `step_graphs` and the other strategies, which need hypothesis.
"""

from rsref.testing.arguments import Arguments, random_arguments
from rsref.testing.derivatives import (
    TOLERANCES,
    complex_step_gradient,
    directional_derivative,
    relative_error,
)
from rsref.testing.gradients import check_gradients
from rsref.testing.graphs import Example, masks, step_graphs

__all__ = [
    "TOLERANCES",
    "Arguments",
    "Example",
    "check_gradients",
    "complex_step_gradient",
    "directional_derivative",
    "masks",
    "random_arguments",
    "relative_error",
    "step_graphs",
]
