"""Initializers against their definitions: variances and bounds (Glorot 2010, He 2015), orthonormal rows or columns."""

import numpy as np
import pytest

from rsref import initializers, set_random_seed
from tests.tolerances import assert_close

WINDOW = (5, 60, 100)  # 300 values are read by a unit, 500 units read a value
VARIANCES = {
    "glorot_uniform": 1 / 400,
    "glorot_normal": 1 / 400,
    "he_uniform": 2 / 300,
    "he_normal": 2 / 300,
    "lecun_uniform": 1 / 300,
    "lecun_normal": 1 / 300,
    "random_uniform": 0.05**2 / 3,
    "random_normal": 0.05**2,
}


@pytest.fixture(autouse=True)
def seed():
    set_random_seed(0)


@pytest.mark.parametrize("name", VARIANCES)
def test_random_values_have_their_variance_and_their_bounds(name):
    values = initializers.get(name)(WINDOW)
    deviation = np.sqrt(VARIANCES[name])
    assert values.shape == WINDOW
    assert abs(values.mean()) < 0.03 * deviation
    assert abs(values.std() / deviation - 1) < 0.02
    # in deviations: of a uniform distribution, of a normal one cut at twice its own, of a normal one
    low, high = (1.72, 3**0.5) if "uniform" in name else (3.5, 6) if name == "random_normal" else (2.25, 2.2738)
    assert low < np.abs(values).max() / deviation <= high
    assert (initializers.get(name)(WINDOW) != values).all()
    set_random_seed(0)
    assert (initializers.get(name)(WINDOW) == values).all()


@pytest.mark.parametrize(("shape", "read"), [((100, 300), 100), ((5000,), 5000), ((), 1)])
def test_a_unit_reads_the_first_axis_of_a_matrix_and_all_of_a_vector(shape, read):
    values = [initializers.get("lecun_uniform")(shape) for _ in range(40)]
    assert 0.9 < np.abs(values).max() * np.sqrt(read / 3) <= 1


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (4, 4), (2, 4, 3), (2, 2, 9)])
def test_orthogonal_rows_or_columns(shape):
    q = initializers.get("orthogonal")(shape)
    assert q.shape == shape
    flat = q.reshape(-1, shape[-1])
    small = flat @ flat.T if len(flat) < shape[-1] else flat.T @ flat
    assert_close(small, np.eye(len(small)))


def test_no_orthogonal_matrix_is_likelier_than_another():
    assert np.abs(np.mean([initializers.orthogonal((2, 2)) for _ in range(500)], 0)).max() < 0.15


def test_fixed_values():
    eye = [[1, 0, 0], [0, 1, 0]]
    for initializer, expected in [("zeros", 0), (None, 0), ("ones", 1), ("identity", eye), (0.5, 0.5), (eye, eye)]:
        np.testing.assert_array_equal(initializers.get(initializer)((2, 3)), np.zeros((2, 3)) + expected)
    np.testing.assert_array_equal(initializers.get([1.0, 2, 3])((4, 3)), [[1, 2, 3]] * 4)
