"""What fills no vector is computed as one: the same numbers, nothing beside them, and no number by itself."""

import re

import numpy as np
import pytest
from numba import types

from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import build, objects, remainders
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.jit import kernel, plain
from rsref_fast.cpu.kernels import Interpreted
from rsref_fast.cpu.pointers import at, pointer_to
from rsref_fast.cpu.remainders import rest_masked
from rsref_fast.cpu.vector_math import functions
from tests.fast.cpu.calling import function_at
from tests.fast.made import recurrence_of

MARGIN = 20
ALONE = r"\b(?:v?divss|fdiv\s+s\d)"
"""A division of one number, as processors of Intel's kind and of ARM's write it."""


def compiled(masked, element=types.float32):
    """Return machine code that sums up rows of tanh and sigmoid, and its assembly."""
    floats, tanh, sigmoid = pointer_to(element), functions(element)["tanh"], functions(element)["sigmoid"]

    @kernel
    def plainly(rows, columns, source, target):
        for i in range(rows):
            for j in range(columns):
                target[i * columns + j] = tanh(source[i * columns + j]) + sigmoid(source[i * columns + j])

    @kernel
    def at_once(rows, columns, source, target):
        for i in range(rows):
            for j in range(columns):
                target[i * columns + j] = tanh(source[i * columns + j]) + sigmoid(source[i * columns + j])
                rest_masked()

    each = at_once if masked else plainly

    def run(P, N, Q):
        each(N[0], N[1], floats(P, 0), at(floats(P, 1), MARGIN))
        return 0

    own = plain(run)
    code = build.object_of(own, build.ENTRY)
    return code, own.overloads[tuple(build.ENTRY.args)].library.get_asm_str()


def applied(code, x):
    """Return what rows become, in the midst of numbers that none may touch."""
    call = function_at(objects.load(*code))
    y = np.full(x.size + 2 * MARGIN, np.nan, x.dtype)
    table, numbers = np.array([x.ctypes.data, y.ctypes.data]), np.array(x.shape)
    assert call(table.ctypes.data, numbers.ctypes.data) == 0
    assert np.isnan([*y[:MARGIN], *y[-MARGIN:]]).all()
    return y[MARGIN:-MARGIN].reshape(x.shape)


@pytest.mark.parametrize(("element", "dtype"), [(types.float32, "float32"), (types.float64, "float64")])
def test_rows_of_all_lengths(element, dtype):
    plainly, at_once = (compiled(masked, element)[0] for masked in (False, True))
    for columns in range(40):
        x = np.random.default_rng(columns).normal(size=(3, columns)).astype(dtype)
        y = applied(at_once, x)
        np.testing.assert_array_equal(y, applied(plainly, x))
        np.testing.assert_allclose(y, np.tanh(x) + 1 / (1 + np.exp(-x)), rtol=1e-6, atol=1e-6)


def test_no_number_is_computed_by_itself():
    can_mask = bool(remainders.MASKING & {*objects.features().split(",")})
    assert re.search(ALONE, compiled(masked=False)[1])
    assert bool(re.search(ALONE, compiled(masked=True)[1])) is not can_mask


def test_a_processor_that_cannot_mask_gets_no_hint(monkeypatch):
    monkeypatch.setattr(remainders, "features", lambda: "+sse2,-avx")
    code, assembly = compiled(masked=True)
    assert re.search(ALONE, assembly)
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    np.testing.assert_allclose(applied(code, x), np.tanh(x) + 1 / (1 + np.exp(-x)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("units", "marked"), [(10, True), (16, False), (20, False), (27, True)])
def test_loops_whose_rest_costs_more_than_a_vector_are_marked(units, marked):
    texts = []

    class Watched(Interpreted):
        def __init__(self, source, dtype):
            texts.append(source.text)
            super().__init__(source, dtype)

    own = recurrence_of("LSTMCell", units)
    random_arguments(own, batch=2, steps=2).forward(FastEngine(own, Watched))
    (text,) = texts
    assert ("rest_masked()" in text) is marked
