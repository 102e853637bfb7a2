"""What XLA is told when a call goes wrong, by a stand-in for its interface that writes down what it gets."""

import ctypes

import numpy as np
import pytest
from numba import types

from rsref_fast.cpu import objects
from rsref_fast.cpu.build import object_of
from rsref_fast.cpu.indices import INDEX, LENGTH
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.meeting import words
from rsref_fast.cpu.xla_native import error_of


class CreateArguments(ctypes.Structure):
    """XLA_FFI_Error_Create_Args, as xla/ffi/api/c_api.h has it."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("errc", ctypes.c_int),
    ]


class Version(ctypes.Structure):
    """XLA_FFI_Api_Version."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("major_version", ctypes.c_int),
        ("minor_version", ctypes.c_int),
    ]


class Interface(ctypes.Structure):
    """The beginning of XLA_FFI_Api."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("version", Version),
        ("internal_api", ctypes.c_void_p),
        ("create", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(CreateArguments))),
    ]


@pytest.fixture(scope="module")
def error():
    def call(status, api):
        return error_of(status, words(api))

    signature = types.int64(types.int64, types.int64)
    entry = objects.c_entry(objects.load(*object_of(plain(call), signature)), "i64 %0, i64 %1")
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(entry)


NUMBERS = np.zeros(16, np.int64)
NUMBERS[[INDEX, LENGTH]] = -(2**63), 2**63 - 1
CASES = {
    "index": (NUMBERS.ctypes.data, 11, f"take: index {-(2**63)} is out of range for an axis of size {2**63 - 1}"),
    "threads": (-1, 8, "no more threads can be started"),
}


@pytest.mark.parametrize(("status", "code", "sentence"), CASES.values(), ids=CASES)
def test_an_error_has_a_code_and_a_sentence(error, status, code, sentence):
    seen = []

    def create(arguments):
        seen.append([getattr(arguments[0], name) for name, _ in CreateArguments._fields_])
        return 1234

    create_type = dict(Interface._fields_)["create"]
    interface = Interface(create=create_type(create))
    assert error(status, ctypes.addressof(interface)) == 1234
    assert seen == [[CreateArguments.errc.offset + CreateArguments.errc.size, None, sentence.encode(), code]]
