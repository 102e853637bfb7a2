"""Calling what Numba has compiled for kernels: functions of P, N and Q."""

import ctypes

from rsref_fast.cpu import objects


def function_at(address):
    """Return a function of the addresses of P and N."""
    entry = objects.c_entry(address, "i64 %0, i64 %1, i64 0")
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(entry)
