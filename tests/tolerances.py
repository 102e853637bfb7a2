"""The one table of tolerances: relative to the largest expected value of an array, absolute where all are zero."""

import numpy as np

from rsref import testing

TOLERANCES = {
    "float64": 1e-10,
    "float32": 2e-5,
    "complex step": testing.TOLERANCES["complex"],
    "differences": testing.TOLERANCES["difference"],
}


def assert_close(actual, expected, kind="float64", least=0.0):
    """Assert that two arrays have one shape and differ by less than the tolerance, relative to the largest value.

    least: what that counts as at least, where it may be what is left of numbers of that size that cancel each other.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape} against {expected.shape}"
    if not expected.size:
        return
    scale = max(least, float(np.abs(expected).max())) or 1.0
    error = float(np.abs(actual - expected).max()) / scale
    assert error < TOLERANCES[kind], f"relative error {error:.2e} against {TOLERANCES[kind]:.0e} ({kind})"
