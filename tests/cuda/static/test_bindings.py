"""NVIDIA's bindings of cuBLAS have what we call, as the fake has it; this needs neither the library nor a GPU."""

import inspect

import pytest
from nvmath.bindings import cublas

from rsref_fast.cuda import library
from tests.cuda.fake_blas import Blas

CALLED = [
    "create", "destroy", "get_property", "set_stream", "set_workspace", "set_math_mode", "set_pointer_mode",
    "set_atomics_mode", "sgemm", "dgemm", "sgemm_batched", "dgemm_batched",
]  # fmt: skip
PRODUCT = ["handle", "transa", "transb", "m", "n", "k", "alpha", "a", "lda", "b", "ldb", "beta", "c", "ldc"]
BATCH = [{"a": "aarray", "b": "barray", "c": "carray"}.get(name, name) for name in PRODUCT] + ["batch_count"]


def names_of(function):
    """Return the names of a compiled function's arguments, by the signature that begins its text."""
    inside = function.__doc__.split("(")[1].split(")")[0]
    return [argument.split()[-1] for argument in inside.split(", ") if argument]


@pytest.mark.parametrize("name", CALLED)
def test_functions_take_what_the_fake_takes(name):
    names = names_of(getattr(cublas, name))
    if "gemm" in name:
        assert names == (BATCH if name.endswith("batched") else PRODUCT)
    else:
        assert len(names) == len(inspect.signature(getattr(Blas, name)).parameters) - 1


def test_the_fake_has_no_more():
    assert {name for name in vars(Blas) if not name.startswith("_")} == set(CALLED)


def test_numbers():
    assert (library.AS_IT_IS, library.TRANSPOSED) == (cublas.Operation.N, cublas.Operation.T)
    assert library.DEFAULT_MATH == cublas.Math.DEFAULT_MATH
    assert library.HOST_POINTERS == cublas.PointerMode.HOST
    assert library.NO_ATOMICS == cublas.AtomicsMode.NOT_ALLOWED


def test_without_the_library_or_a_driver_one_sentence_says_so(monkeypatch):
    def nothing(which):
        raise RuntimeError("libcublas.so.13 is not there")

    monkeypatch.setattr(cublas, "get_property", nothing)
    with pytest.raises(ImportError, match=r"cuBLAS is not there \(pip install .*\): libcublas\.so\.13 is not there"):
        library.find()
