"""The matrix products: any size and stride against NumPy, and vector instructions for each kind of processor."""

import re

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import types

from rsref_fast.cpu import build, gemm, objects
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.microkernel_shapes import PRODUCTS, shape_for
from rsref_fast.cpu.pointers import pointer_to
from tests.fast.cpu.calling import function_at

TARGETS = {
    "AVX-512": ("+avx512f,+avx2,+fma", "x86_64-unknown-linux-gnu", "skylake-avx512", r"vfn?madd\w+ps\s[^\n]*%zmm"),
    "AVX2": ("+avx2,+avx,+fma", "x86_64-unknown-linux-gnu", "haswell", r"vfn?madd\w+ps\s[^\n]*%ymm"),
    "NEON": ("+neon", "aarch64-unknown-linux-gnu", "generic", r"fmla\s+v\d+\.4s"),
}
BY_AVX2 = {"multiply_copied", "multiply_threes"}
FEATURES = {"avx512": "+avx512f", "avx": "+avx", "neon": "+neon"}


def assembly(name, product):
    """Return a product's function as a kind of processor has it."""
    features, triple, cpu, _ = TARGETS[name]
    function, signature = gemm.products(types.float32, shape_for(features, 32))[product]
    own = plain(function)
    own.compile(signature.args)
    text = str(own.overloads[tuple(signature.args)].library._final_module)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
    text = re.sub(r'target triple = ".*"', f'target triple = "{triple}"', text)
    text = re.sub(r'target datalayout = ".*"', f'target datalayout = "{machine.target_data}"', text)
    text = re.sub(r'"target-(cpu|features)"="[^"]*"', "", text)
    return machine.emit_assembly(llvm.parse_assembly(text))


@pytest.mark.parametrize("product", ["multiply_panel", "multiply_row"])
@pytest.mark.parametrize("name", TARGETS)
def test_the_innermost_loop_is_vector_code(name, product):
    assert len(re.findall(TARGETS[name][3], assembly(name, product))) > 30


@pytest.mark.parametrize("product", ["multiply_panel", "multiply_threes", "multiply_copied"])
def test_sums_stay_in_sixteen_registers(product):
    """LLVM's own choice of how often a loop is unrolled would keep some in memory, for up to 1.6 times as long."""
    loops = re.findall(r"^(\.L\w+):((?:(?!\n\.L).)*?\tj\w+\t\1)$", assembly("AVX2", product), re.MULTILINE | re.DOTALL)
    innermost = [text for _, text in loops if len(re.findall("vfmadd", text)) >= 6]
    assert len(innermost) >= 5
    for text in innermost:
        assert not re.search(r"%ymm\d+, -?\w*\(%r[sb]p\)", text)


@pytest.mark.parametrize("kind", FEATURES)
def test_a_processor_has_all_products_that_its_products_call(kind):
    shape = shape_for(FEATURES[kind], 32)
    codes = {name: build.product(name, np.dtype(np.float32), shape)[0] for name in shape.products}
    called = {name for name in PRODUCTS if any(shape.symbol(name, "float32").encode() in c for c in codes.values())}
    assert called <= set(shape.products)
    assert called & BY_AVX2 == (BY_AVX2 if kind == "avx" else set())


def runner(dtype, features):
    """Return a function: the product through packed panels, or that of any strides."""
    element = build.element_of(dtype)
    shape = shape_for(features, dtype.itemsize * 8)
    functions = gemm.products(element, shape)
    by_name = ("multiply_panel", "multiply_partial", "pack", "multiply_copied", "multiply_threes")
    for name in (name for name in shape.products if name in by_name):
        function, signature = functions[name]
        objects.publish(shape.symbol(name, dtype.name), objects.load(*build.object_of(plain(function), signature)))
    own = {name: plain(f) for name, (f, _) in functions.items()}
    pack, packed, multiply = own["pack"], own["multiply_packed"], own["multiply"]
    floats = pointer_to(element)

    def run(P, N, Q):
        a, b, c, panels, o = floats(P, 0), floats(P, 1), floats(P, 2), floats(P, 3), floats(P, 4)
        if N[9] == 0:
            multiply(N[0], N[1], N[2], a, N[3], N[4], b, N[5], N[6], c, N[7], N[8], N[10], N[11])
        else:
            pack(N[2], N[1], b, N[5], N[6], panels, N[10], N[11])
            packed(N[0], N[1], N[2], a, N[3], N[4], panels, c, N[7], o, N[13], N[8], N[10], N[11], N[12], N[1])
        return 0

    call = function_at(objects.load(*build.object_of(plain(run), build.ENTRY)))

    def product(c, a, b, accumulate, through_panels, turn, team, row=None):
        """row: what is added to each row of the product, in place of what is there."""
        (rows, depth), columns = a.shape, b.shape[1]
        panels = np.full((columns // shape.width + 1) * shape.width * depth, np.nan, dtype)
        steps = [s // dtype.itemsize for array in (a, b) for s in array.strides]
        table = np.array([m.__array_interface__["data"][0] for m in (a, b, c, panels, c if row is None else row)])
        for rank in range(team):
            whole = [rows, columns, depth, *steps, c.strides[0] // dtype.itemsize, accumulate, through_panels]
            numbers = np.array([*whole, rank, team, turn, c.strides[0] // dtype.itemsize if row is None else 0])
            call(table.ctypes.data, numbers.ctypes.data)

    return product


@pytest.mark.covering("values")
@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products(dtype, kind):
    """Any size and stride; and a row is the same bit by bit however threads share it."""
    dtype = np.dtype(dtype)
    product = runner(dtype, FEATURES[kind])
    rng = np.random.default_rng(0)
    sizes = [(1, 130, 5), (1, 7, 300), (9, 64, 0), (6, 1, 3), (13, 33, 300), (64, 96, 257), (3, 16, 1), (17, 129, 40)]
    sizes += [(rows, 40, 9) for rows in range(2, 20)]  # blocks of each number of rows, and of two alike
    sizes += [(rows, 135, 9) for rows in range(2, 20)]  # panels by three, two panels and a part of one
    sizes += [(64, 65, 300), (65, 65, 300)]  # a right operand that is read where it lies, and one that is packed
    sizes += [(65, 130, 40), (67, 130, 300), (1055, 131, 5)]  # a left operand that is copied, in blocks of any number
    sizes += [(rows, 260, 600) for rows in (*range(2, 6), 7, 13)]  # panels from far: the first block fetches them
    sizes += [(1, 200, 131), (1, 9000, 3), (1, 1100, 500)]  # one row: panels from near, from farther, from far
    for rows, columns, depth in sizes:
        for transposed in (False, True):
            a, b = rng.standard_normal((rows, depth)).astype(dtype), rng.standard_normal((depth, columns)).astype(dtype)
            if transposed:
                a, b = np.ascontiguousarray(a.T).T, np.ascontiguousarray(b.T).T
            for accumulate, turn in ((0, 0), (0, 1), (1, 0), (1, 1)):
                for panels in (0, 1):
                    whole = rng.standard_normal((rows, columns + 3)).astype(dtype)
                    c, before = whole[:, :columns], whole.copy()
                    product(c, a, b, accumulate, panels, turn, team=1 + 2 * transposed)
                    expected = a.astype(np.float64) @ b + accumulate * before[:, :columns].astype(np.float64)
                    unit, many = 2e-6 if dtype == np.float32 else 5e-15, max(1, depth)
                    assert np.abs(c - expected).max() <= unit * min(many, 2 * many**0.5)
                    np.testing.assert_array_equal(whole[:, columns:], before[:, columns:])
            row, same = rng.standard_normal(columns).astype(dtype), np.tile(np.full(columns, np.nan, dtype), (rows, 1))
            expected = np.tile(row, (rows, 1))
            product(same, a, b, 1, 1, 1, team=2, row=row)
            product(expected, a, b, 1, 1, 1, team=2)
            np.testing.assert_array_equal(same, expected)
    for columns, depth in ((96, 30), (200, 131), (330, 202), (1100, 500), (2080, 270)):
        a, b = rng.standard_normal((1, depth)).astype(dtype), rng.standard_normal((depth, columns)).astype(dtype)
        answers = [np.zeros((1, columns), dtype) for _ in range(4)]
        for team, c in enumerate(answers, 1):
            product(c, a, b, 0, 1, turn=team, team=team)
        for c in answers[1:]:
            np.testing.assert_array_equal(c, answers[0])
