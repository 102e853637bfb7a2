"""The gradient matrix: every cell and feature, on every engine of the backend at hand, against rsref in float64.

Values and the gradients of inputs, given states and every weight. `python -m tests.cross.matrix` prints the errors.
"""

import pytest

from tests.cross.cases import CASES
from tests.cross.compared import ENGINES, compared, largest_error, tolerance


@pytest.mark.covering("pairs")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_rsref(name, dtype, engine):
    error = largest_error(compared(CASES[name], engine, dtype))
    assert error < tolerance(engine, dtype), f"{error:.1e}"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["LSTM", "teacher forcing", "nested cells", "decoder with readout"])
def test_the_matrix_sees_a_changed_weight(name, engine):
    error = largest_error(compared(CASES[name], engine, "float64", spoil=True))
    assert error > 1e-3
