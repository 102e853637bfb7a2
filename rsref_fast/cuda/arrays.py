"""Arrays on a device: those of other libraries as we read them, and our own as others read them.

Both by `__cuda_array_interface__` (version 3) and DLPack, so that nothing is copied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CUDA, HOST = 2, 1
"""DLPack's numbers for where memory is."""

_python = ctypes.pythonapi
_python.PyCapsule_New.restype = ctypes.py_object
_python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_python.PyCapsule_GetPointer.restype = ctypes.c_void_p
_python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_python.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
_python.PyCapsule_IsValid.argtypes = [ctypes.c_void_p, ctypes.c_char_p]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
KINDS = {code: kind for kind, code in CODES.items()}
_alive: dict[int, Any] = {}


def _delete(address: int) -> None:
    _alive.pop(address, None)


def _unclaimed(capsule: int) -> None:
    """A capsule that nobody has used takes its array with it; one that was used has another name by now."""
    if _python.PyCapsule_IsValid(capsule, b"dltensor"):
        _alive.pop(_pointer(capsule, b"dltensor"), None)


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)  # fmt: skip

_c_delete = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_delete)
_c_unclaimed = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_unclaimed)


@dataclass
class DeviceArray:
    """An array on a device, row-major unless strides (in bytes) say otherwise.

    owner: what keeps its memory. stream: in whose order it was written. place: DLPack's number for where it is, and
    the device's.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any
    stream: int = 0
    strides: tuple[int, ...] | None = None
    place: tuple[int, int] = (CUDA, 0)
    kept: list[Any] = field(default_factory=list, repr=False)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def contiguous(self) -> bool:
        return self.strides is None or self.size == 0 or self.strides == row_major(self.shape, self.dtype.itemsize)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 3,
            "strides": None if self.contiguous else self.strides, "stream": self.stream or 1,
        }  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        """Return a capsule of version 0. stream: whose consumer waits for ours by itself: both are usually one."""
        managed = _Managed()
        shape = (ctypes.c_int64 * self.ndim)(*self.shape)
        strides = None
        if not self.contiguous and self.strides is not None:
            strides = (ctypes.c_int64 * self.ndim)(*(s // self.dtype.itemsize for s in self.strides))
        managed.tensor = _Tensor(
            self.address, *self.place, self.ndim, CODES[self.dtype.kind], 8 * self.dtype.itemsize, 1, shape, strides, 0
        )
        managed.deleter = ctypes.cast(_c_delete, ctypes.c_void_p)
        address = ctypes.addressof(managed)
        _alive[address] = (managed, shape, strides, self)
        return _python.PyCapsule_New(address, b"dltensor", ctypes.cast(_c_unclaimed, ctypes.c_void_p))

    def reshaped(self, *shape: int) -> DeviceArray:
        assert self.contiguous
        return DeviceArray(self.address, shape, self.dtype, self.owner, self.stream, None, self.place)


def row_major(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return the strides, in bytes, of an array whose last axis is the fastest."""
    strides, step = [], itemsize
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def device_array(value: Any, name: str = "array") -> DeviceArray:
    """Return what another library calls an array on a GPU, in place.

    Errors: TypeError for one that is elsewhere, or no array.
    """
    if isinstance(value, DeviceArray):
        return value
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is not None:
        dtype = np.dtype(interface["typestr"])
        shape, strides = tuple(interface["shape"]), interface.get("strides")
        stream = interface.get("stream") or 0
        address = interface["data"][0] or 0
        return DeviceArray(address, shape, dtype, value, stream, None if strides is None else tuple(strides))
    if hasattr(value, "__dlpack__") and value.__dlpack_device__()[0] != HOST:
        return _from_dlpack(value.__dlpack__())
    raise TypeError(
        f"{name} is a {type(value).__name__} that is not on a GPU: kernels for CUDA read device arrays "
        "(__cuda_array_interface__ or DLPack)"
    )


def _from_dlpack(capsule: Any) -> DeviceArray:
    address = _python.PyCapsule_GetPointer(capsule, b"dltensor")
    managed = _Managed.from_address(address)
    tensor = managed.tensor
    dtype = np.dtype(f"{KINDS[tensor.code]}{tensor.bits // 8}")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = None
    if tensor.strides:
        strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim))
    _python.PyCapsule_SetName(capsule, b"used_dltensor")
    place = (tensor.device_type, tensor.device)
    return DeviceArray(
        (tensor.data or 0) + tensor.offset, shape, dtype, _Claimed(address, managed.deleter), 0, strides, place
    )


class _Claimed:
    """Another library's tensor, given back when nothing holds this any more."""

    def __init__(self, address: int, deleter: int | None):
        self.address = address
        self.deleter: Callable[[int], None] | None = None
        if deleter:
            self.deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(deleter)

    def __del__(self) -> None:
        if self.deleter is not None:
            self.deleter(self.address)
