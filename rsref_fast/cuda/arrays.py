"""Arrays on a device: those of other libraries as we read them, and our own as others read them.

Both by `__cuda_array_interface__` (version 3) and DLPack, so that nothing is copied.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

CUDA, LEGACY = 2, 1
"""DLPack's numbers for a GPU's memory, and for the default stream."""

MANAGED, PINNED = 13, 3
"""Two more kinds of memory that a GPU's kernels may read."""

READ = ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "b1")
"""What callers' arrays may hold, by NumPy's code."""


def _of_python(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of Python's C API: one of our own, for others set the types of `ctypes.pythonapi`'s."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_new_capsule = _of_python("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_pointer_of = _of_python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_set_name = _of_python("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
# in a capsule's destructor, where it is no object any more
_is_valid = _of_python("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_pointer = _of_python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)


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
    if _is_valid(capsule, b"dltensor"):
        _alive.pop(_pointer(capsule, b"dltensor"), None)


_c_delete = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_delete)
_c_unclaimed = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_unclaimed)


@dataclass
class DeviceArray:
    """An array on a device, row-major unless strides (in bytes) say otherwise.

    address: a number, or while a call is planned a `rsref_fast.cuda.script.Address`. owner: what keeps its memory.
    stream: in whose order it was written, None if that needs no waiting for. place: DLPack's number for where it is,
    and the device's. device: what lets other streams wait, a `rsref_fast.cuda.driver.Device`.
    """

    address: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any
    stream: int | None = 0
    strides: tuple[int, ...] | None = None
    place: tuple[int, int] | None = None
    device: Any = field(default=None, repr=False)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def steps(self) -> tuple[int, ...]:
        """The strides in bytes, also where they follow from the shape."""
        return row_major(self.shape, self.dtype.itemsize) if self.strides is None else self.strides

    @property
    def contiguous(self) -> bool:
        """Whether it is row-major; how far apart the entries of an axis are that has one does not matter."""
        usual = row_major(self.shape, self.dtype.itemsize)
        return self.size == 0 or all(n == 1 or a == b for n, a, b in zip(self.shape, self.steps, usual))

    def time_first(self) -> DeviceArray:
        """Return what is (batch, time, ...) as (time, batch, ...), and the other way round: the same memory."""
        first, second, *rest = zip(self.shape, self.steps)
        shape, strides = zip(second, first, *rest)
        return replace(self, shape=shape, strides=strides)

    def folded(self) -> list[tuple[int, int]]:
        """Return lengths and strides, in elements, of as few axes as go over the array in its order."""
        found: list[tuple[int, int]] = []
        for n, step in zip(self.shape, self.steps):
            step //= self.dtype.itemsize
            if n != 1 and found and found[-1][1] == n * step:
                found[-1] = found[-1][0] * n, step
            elif n != 1:
                found.append((n, step))
        return found or [(1, 0)]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 3,
            "strides": None if self.contiguous else self.strides, "stream": self.stream or 1,
        }  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.place or (CUDA, 0)

    def __dlpack__(
        self, *, stream: int | None = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """Return a capsule of version 0, which every consumer reads.

        stream: the consumer's, which is made to wait for ours; None for the default one, -1 for none.
        Errors: BufferError if it shall be copied, or be elsewhere.
        """
        place = self.__dlpack_device__()
        if copy or (dl_device is not None and tuple(dl_device) != place):
            raise BufferError("a device array is given where it is, and is not copied")
        if stream != -1 and self.device is not None:
            with self.device.bound():  # a consumer's thread may have no context, or another GPU's
                self.device.follow(stream or 0, self.stream)
            self.device.lend(self.owner, stream or 0)
        managed = _Managed()
        shape = (ctypes.c_int64 * self.ndim)(*self.shape)
        strides = None
        if not self.contiguous and self.strides is not None:
            strides = (ctypes.c_int64 * self.ndim)(*(s // self.dtype.itemsize for s in self.strides))
        managed.tensor = _Tensor(
            self.address, *place, self.ndim, CODES[self.dtype.kind], 8 * self.dtype.itemsize, 1, shape, strides, 0
        )
        managed.deleter = ctypes.cast(_c_delete, ctypes.c_void_p)
        address = ctypes.addressof(managed)
        _alive[address] = (managed, shape, strides, self)
        return _new_capsule(address, b"dltensor", ctypes.cast(_c_unclaimed, ctypes.c_void_p))


def row_major(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return the strides, in bytes, of an array whose last axis is the fastest."""
    strides, step = [], itemsize
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def device_array(value: Any, name: str, device: Any, stream: int) -> DeviceArray:
    """Return what another library calls an array on a GPU, in place. device, stream: for whom it must be ready.

    Errors: TypeError for one that is elsewhere, or of numbers that kernels do not read, or no array.
    """
    found = _read(value, name, device, stream)
    if found.dtype.str[1:] not in READ or not found.dtype.isnative:
        raise TypeError(f"{name} has dtype {found.dtype.str}; kernels read {', '.join(READ)}")
    device.follow(stream, found.stream)
    device.lend(found.owner, stream)
    return found


def gradients_of(
    name: str, given: Sequence[Any], values: Sequence[DeviceArray], device: Any, stream: int
) -> list[DeviceArray | None]:
    """Return gradients of some values as `device_array` does, None for zero. Errors: ValueError; see `device_array`."""
    if len(given) != len(values):
        raise ValueError(f"{len(values)} {name} gradients are needed (None for zero); got {len(given)}")
    found: list[DeviceArray | None] = []
    for i, (d, value) in enumerate(zip(given, values)):
        own = None if d is None else device_array(d, f"the gradient of {name} {i}", device, stream)
        if own is not None and own.shape != value.shape:
            raise ValueError(f"{name} {i} has shape {value.shape}; its gradient has shape {own.shape}")
        found.append(own)
    return found


def _read(value: Any, name: str, device: Any, stream: int) -> DeviceArray:
    """Return an array by DLPack if it has that, whose producer knows its stream: some of the interfaces name none."""
    if isinstance(value, DeviceArray):
        if value.place is not None:
            _check_place(name, *value.place, device)
        return value
    kind, number = value.__dlpack_device__() if hasattr(value, "__dlpack__") else (None, None)
    if kind in (CUDA, MANAGED, PINNED):
        _check_place(name, kind, number, device)
        # the host's memory has no stream, and PyTorch takes none for it
        return _from_dlpack(value.__dlpack__() if kind == PINNED else value.__dlpack__(stream=stream or LEGACY), name)
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is None:
        raise TypeError(
            f"{name} is a {type(value).__name__} that is not on a GPU: kernels for CUDA read device arrays "
            "(__cuda_array_interface__ or DLPack)"
        )
    dtype = np.dtype(interface["typestr"])
    shape, strides = tuple(interface["shape"]), interface.get("strides")
    address = interface["data"][0] or 0
    if address and math.prod(shape):
        _check_place(name, CUDA, device.gpu_of(address), device)
    strides = None if strides is None else tuple(strides)
    return DeviceArray(address, shape, dtype, value, interface.get("stream"), strides)


def _check_place(name: str, kind: int, number: int | None, device: Any) -> None:
    """See that a GPU's memory is that of the kernels' GPU. number: None if no GPU has it. Errors: TypeError."""
    if kind == CUDA and number != device.number:
        where = "in no memory of a GPU" if number is None else f"on GPU {number}"
        raise TypeError(f"{name} is {where}; the kernels are loaded on GPU {device.number}")


def _from_dlpack(capsule: Any, name: str) -> DeviceArray:
    address = _pointer_of(capsule, b"dltensor")
    managed = _Managed.from_address(address)
    tensor = managed.tensor
    if tensor.code not in KINDS or tensor.lanes != 1:
        raise TypeError(f"{name} has DLPack's dtype {tensor.code}; kernels read {', '.join(READ)}")
    dtype = np.dtype(f"{KINDS[tensor.code]}{tensor.bits // 8}")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = None
    if tensor.strides:
        strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim))
    _set_name(capsule, b"used_dltensor")
    place = (tensor.device_type, tensor.device)
    owner = _Claimed(address, managed.deleter)
    return DeviceArray((tensor.data or 0) + tensor.offset, shape, dtype, owner, None, strides, place)


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
