"""The kernels' own functions: at most 4 units in the last place, over the whole range, and in vector code."""

import re

import numpy as np
import pytest
from numba import types
from scipy import special

from rsref_fast.cpu import build, objects, vector_math, vector_math64
from rsref_fast.cpu.jit import kernel, plain
from rsref_fast.cpu.pointers import pointer_to
from tests.fast.cpu.calling import function_at

EXACT = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh, "erf": special.erf,
    "sigmoid": special.expit, "softplus": lambda x: np.logaddexp(0, x), "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "arctan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "sqrt": np.sqrt, "erfc": special.erfc,
    "sign": np.sign, "absolute": np.abs, "floor": np.floor, "rint": np.rint,
}  # fmt: skip
SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 3e38, -3e38, 88.7, 88.8, -87.4, -103.9, -104.5]
)


def looped(function, element):
    floats = pointer_to(element)

    @kernel
    def each(n, source, target):
        for i in range(n):
            target[i] = function(source[i])

    def run(P, N, Q):
        each(N[0], floats(P, 0), floats(P, 1))
        return 0

    return plain(run)


def compiled(function, element):
    """Return machine code, and its assembly."""
    own = looped(function, element)
    code = build.object_of(own, build.ENTRY)
    return code, own.overloads[tuple(build.ENTRY.args)].library.get_asm_str()


def applied(code, x):
    call = function_at(objects.load(*code))
    y = np.empty_like(x)
    table, numbers = np.array([x.ctypes.data, y.ctypes.data]), np.array([x.size])
    assert call(table.ctypes.data, numbers.ctypes.data) == 0
    return y


def every_size(name):
    """Numbers of all sizes, more of them where functions bend."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 400_000, dtype=np.uint32).view(np.float32)
    near = np.concatenate([rng.normal(0, s, 200_000) for s in (1e-3, 0.3, 3, 30)])
    edges = np.concatenate(
        [c + np.linspace(-1e-3, 1e-3, 5001) for c in (-1, -0.625, 0, 0.4, 0.625, 0.9277, 1, 88.72, -103.5)]
    )
    with np.errstate(invalid="ignore"):  # some of the bits are signalling NaN
        x = np.concatenate([SPECIAL, bits, near, edges]).astype(np.float32)
    return np.abs(x) if name in ("log", "sqrt") else np.maximum(x, -1) if name == "log1p" else x


def check(name, x, y):
    """Check what a function answers in float32: four units in the last place, and where it is not finite."""
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.float64))
        expected = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    finite = np.isfinite(expected) & np.isfinite(y)
    rest = ~finite & ~np.isnan(expected)
    near_the_end = np.abs(exact) > 3.4028e38  # where rounding decides between the largest number and infinity
    np.testing.assert_array_equal(y[rest & ~near_the_end], expected[rest & ~near_the_end])
    if name in ("tanh", "sigmoid", "erf"):  # 1 - y * y is the derivative
        assert np.nanmax(np.abs(y)) == 1
    unit = np.spacing(np.abs(expected[finite])).astype(np.float64)
    error = np.abs(y[finite].astype(np.float64) - exact[finite]) / unit
    worst = int(np.argmax(error))
    assert error[worst] <= 4, f"{name}({x[finite][worst]!r}): {error[worst]:.1f} units in the last place"


@pytest.mark.parametrize("broken", [lambda y: y * np.float32(1 + 1e-6), np.nan_to_num, lambda y: 0 * y])
def test_the_check_sees_an_inexact_function(broken):
    x = every_size("exp")
    with np.errstate(all="ignore"):
        y = EXACT["exp"](x.astype(np.float64)).astype(np.float32)
        check("exp", x, y)
        with pytest.raises(AssertionError):
            check("exp", x, broken(y))


@pytest.mark.parametrize("name", EXACT)
def test_float32_within_four_units_in_the_last_place_and_in_vector_code(name):
    x = every_size(name)
    if name in ("sin", "cos", "tan"):
        x = x[(np.abs(x) < 1e6) | ~np.isfinite(x)]
    code, assembly = compiled(vector_math.functions(types.float32)[name], types.float32)
    y = applied(code, x)
    check(name, x, y)
    if name in vector_math.VECTORISED:  # a loop has its arithmetic in vector registers
        wide = re.findall(r"v(?:mul|add|fm\w*|fnm\w*)ps\s[^\n]*%[yz]mm|fml[as]\s+v\d+\.4s", assembly)
        assert len(wide) > 5, assembly


@pytest.mark.parametrize("name", EXACT)
def test_float64_and_in_vector_code(name):
    x = every_size(name).astype(np.float64)
    x = x[(np.abs(x) < 1e6) | ~np.isfinite(x)]
    code, assembly = compiled(vector_math.functions(types.float64)[name], types.float64)
    y = applied(code, x)
    if name in vector_math64.VECTORISED:
        wide = re.findall(r"v(?:mul|add|fm\w*|fnm\w*)pd\s[^\n]*%[yz]mm|fml[as]\s+v\d+\.2d", assembly)
        assert len(wide) > 5, assembly
    with np.errstate(all="ignore"):
        expected = EXACT[name](x)
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("name", vector_math64.VECTORISED)
def test_float64_within_six_units_in_the_last_place(name):
    """Of what NumPy and SciPy answer, whose own error is one or two: from the denormals to infinity."""
    rng = np.random.default_rng(1)
    sizes = [rng.normal(0, s, 50_000) for s in (1e-300, 1e-8, 1e-3, 0.3, 3, 30, 300)]
    x = np.concatenate([*sizes, np.linspace(-750, 750, 30_001), SPECIAL, [709.782, 709.783, -745.1, -745.2, -5e-324]])
    y = applied(compiled(vector_math.functions(types.float64)[name], types.float64)[0], x)
    with np.errstate(all="ignore"):
        expected = EXACT[name](x)
        if name == "sigmoid":  # SciPy's is zero where it should be a denormal
            expected = np.where(x < -40, np.exp(x), expected)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(y[~finite], expected[~finite])
    error = np.abs(y[finite] - expected[finite]) / np.spacing(np.abs(expected[finite]))
    worst = int(np.argmax(error))
    assert error[worst] <= 6, f"{name}({x[finite][worst]!r}): {error[worst]:.1f} units in the last place"
