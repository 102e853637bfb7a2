"""Dropout of the full cells' input and state, one mask a sequence, against the plain loops of their equations."""

import numpy as np
import pytest

from rsref import cells, set_random_seed
from tests.rsref.cells.test_equations import N, highway, looped, minimal_gated, peephole, sigmoid
from tests.rsref.features.plain import check


def gru_reset_before(x, states, weights):
    (h,), (w, u, b) = states, weights
    z, r = np.split(sigmoid(x @ w[:, : 2 * N] + h @ u[:, : 2 * N] + b[: 2 * N]), 2, axis=-1)
    new = z * h + (1 - z) * np.tanh(x @ w[:, 2 * N :] + (r * h) @ u[:, 2 * N :] + b[2 * N :])
    return new, [new]


@pytest.mark.parametrize(
    ("cell", "options", "step", "states"),
    [
        (cells.GRUCell, {"reset_after": False}, gru_reset_before, 1),
        (cells.MinimalGatedCell, {}, minimal_gated, 1),
        (cells.PeepholeLSTMCell, {}, peephole, 2),
        (cells.RHNCell, {"recurrence_depth": 2}, highway, 1),
    ],
)
def test_dropout_scales_what_the_kernels_read(cell, options, step, states):
    """For one sample the masks may as well scale the input and the rows of the recurrent kernels."""
    set_random_seed(0)
    layer = cell(N, dropout=0.5, recurrent_dropout=0.5, **options).get_layer(return_sequences=True)
    layer.build((1, 4, 2))
    of_x, of_h = np.array([[2.0, 0.5]]), np.array([[0.0, 2.0, 3.0]])

    def plain(x, *weights):
        named = zip(layer.weights, weights, strict=True)
        scaled = [of_h.T * w if "recurrent_kernel" in p.name else w for p, w in named]
        return looped(step, states)(x * of_x, *scaled)

    x = np.random.default_rng(1).standard_normal((1, 4, 2))
    check(layer, plain, x=x, arguments={"dropout_masks": [of_x, of_h], "training": True})
    with pytest.raises(AssertionError, match="relative error"):
        check(layer, plain, x=x, arguments={"dropout_masks": [of_x, np.ones((1, N))], "training": True})
