"""The gradient matrix: every cell and feature, on every engine of the backend at hand, against rsref in float64.

Values and the gradients of inputs, given states and every weight. `python -m tests.cross.matrix` prints the errors.
"""

from itertools import product

import pytest

from tests.bridge.autodiff import PLACE
from tests.covering import examples
from tests.cross.cases import CASES
from tests.cross.compared import ENGINES, compared, largest_error, tolerance

DRAWN, *OURS = ENGINES
HERE = [(name, engine) for i, name in enumerate(CASES) for engine in (DRAWN, OURS[(i + PLACE) % 2])]
"""Each case as the backend itself computes it, and on one of our engines: on the next backend it is the other one."""


@pytest.mark.covering("pairs")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "engine"), examples([*product(CASES, ENGINES)], HERE))
def test_agrees_with_rsref(name, dtype, engine):
    error = largest_error(compared(CASES[name], engine, dtype))
    assert error < tolerance(engine, dtype), f"{error:.1e}"


@pytest.mark.covering("values")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["LSTM", "teacher forcing", "nested cells", "decoder with readout"])
def test_the_matrix_sees_a_changed_weight(name, engine):
    error = largest_error(compared(CASES[name], engine, "float64", spoil=True))
    assert error > 1e-3
