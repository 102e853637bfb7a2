"""A hand-written LSTM in straight NumPy, forward and backward: what the interpreter of rsref is measured against."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def training_step(x: Array, kernel: Array, recurrent_kernel: Array, bias: Array, dy: Array) -> tuple[Array, ...]:
    """Return y, dx, d_kernel, d_recurrent_kernel, d_bias of an LSTM (gates i, f, c, o) that starts from zeros.

    Shapes: x (batch, time, features), kernel (features, 4 units), y and dy (batch, time, units).
    """
    batch, steps, _ = x.shape
    n = recurrent_kernel.shape[0]
    h, c = np.zeros((batch, n), x.dtype), np.zeros((batch, n), x.dtype)
    y, saved = np.empty((batch, steps, n), x.dtype), []
    for t in range(steps):
        z = x[:, t] @ kernel + h @ recurrent_kernel + bias
        i, f, o = sigmoid(z[:, :n]), sigmoid(z[:, n : 2 * n]), sigmoid(z[:, 3 * n :])
        g = np.tanh(z[:, 2 * n : 3 * n])
        new_c = f * c + i * g
        tanh_c = np.tanh(new_c)
        saved.append((h, c, i, f, g, o, tanh_c))
        h, c = o * tanh_c, new_c
        y[:, t] = h
    dx, d_kernel, d_recurrent_kernel = np.empty_like(x), np.zeros_like(kernel), np.zeros_like(recurrent_kernel)
    d_bias, dz = np.zeros_like(bias), np.empty((batch, 4 * n), x.dtype)
    dh, dc = np.zeros((batch, n), x.dtype), np.zeros((batch, n), x.dtype)
    for t in range(steps - 1, -1, -1):
        h, c, i, f, g, o, tanh_c = saved[t]
        dh = dh + dy[:, t]
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        dz[:, :n] = dc * g * i * (1 - i)
        dz[:, n : 2 * n] = dc * c * f * (1 - f)
        dz[:, 2 * n : 3 * n] = dc * i * (1 - g * g)
        dz[:, 3 * n :] = dh * tanh_c * o * (1 - o)
        dc = dc * f
        d_kernel += x[:, t].T @ dz
        d_recurrent_kernel += h.T @ dz
        d_bias += dz.sum(axis=0)
        dx[:, t] = dz @ kernel.T
        dh = dz @ recurrent_kernel.T
    return y, dx, d_kernel, d_recurrent_kernel, d_bias
