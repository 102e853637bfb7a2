"""The gradient matrix: every cell and feature, on every engine of the backend at hand, against rsref in float64.

Values and the gradients of inputs, given states and every weight. `python -m tests.cross.matrix` prints the errors.
"""

from itertools import product

import pytest

from tests.bridge.autodiff import PLACE
from tests.covering import examples
from tests.cross.cases import CASES
from tests.cross.compared import ENGINES, compared, largest_error, tolerance

DTYPES = ("float64", "float32")
DRAWN, *OURS = ENGINES
HERE = [
    choice
    for i, name in enumerate(CASES)
    for choice in (
        (name, DRAWN, ("float32", "float64", DTYPES[i % 2])[PLACE]),
        (name, OURS[(i + PLACE) % 2], DTYPES[(i // 2 + PLACE // 2) % 2]),
    )
]
"""Each case as the backend itself computes it, in float64 on TensorFlow, which keeps to that; and on one of our
engines, the other one on the next backend, and again in the other precision on the last."""


@pytest.mark.parametrize(("name", "engine", "dtype"), examples([*product(CASES, ENGINES, DTYPES)], HERE))
def test_agrees_with_rsref(name, engine, dtype):
    error = largest_error(compared(CASES[name], engine, dtype))
    assert error < tolerance(engine, dtype), f"{error:.1e}"


@pytest.mark.covering("values")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["LSTM", "teacher forcing", "nested cells", "decoder with readout"])
def test_the_matrix_sees_a_changed_weight(name, engine):
    error = largest_error(compared(CASES[name], engine, "float64", spoil=True))
    assert error > 1e-3
