"""A GPU through its driver: memory, modules, launches, in the order of a stream; nothing here waits for the device.

The driver's functions come from NVIDIA's bindings (`cuda.bindings.driver`), which numba-cuda brings along. Tests hand
in functions of the same names that run kernels on the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from rsref_fast.cuda.arrays import CUDA, LEGACY
from rsref_fast.cuda.library import Library
from rsref_fast.cuda.library import find as find_library

Array = np.ndarray


class DeviceError(RuntimeError):
    """What the driver refused, with its own word for why."""


@dataclass(frozen=True)
class Limits:
    """What a device has: multiprocessors, and for each of them threads, registers and bytes of shared memory.

    shared_block: bytes of it that one block may have.
    """

    multiprocessors: int
    threads: int
    registers: int
    shared: int
    shared_block: int


ATTRIBUTES = {
    "multiprocessors": "MULTIPROCESSOR_COUNT",
    "threads": "MAX_THREADS_PER_MULTIPROCESSOR",
    "registers": "MAX_REGISTERS_PER_MULTIPROCESSOR",
    "shared": "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR",
    "shared_block": "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN",
}


OLDEST = (7, 5)
"""The compute capability that NVIDIA's compiler still serves."""

UNTIMED, NONBLOCKING = 2, 1
"""The driver's flags for an event that is only waited for, and a stream that does not wait for the default one."""


class Memory:
    """Some bytes on a device, given back in the order of the stream when nothing holds the object any more.

    readers: the streams in which they are read, for which that one then waits.
    """

    def __init__(self, device: Device, size: int, stream: int):
        self.address = int(device.call("cuMemAllocAsync", max(1, size), stream))
        self.readers: set[int] = set()
        weakref.finalize(self, device.give_back_after, self.readers, self.address, stream)


class Reserved:
    """Some bytes on a device, of no stream: when they are given back the driver waits for the device."""

    def __init__(self, device: Device, size: int):
        self.address = int(device.call("cuMemAlloc", max(1, size)))
        weakref.finalize(self, device.give_back, "cuMemFree", self.address)


class Constant(Reserved):
    """A host array's copy on a device, for all streams once the default one is waited for; see `Device.constants`."""

    def __init__(self, device: Device, values: Array):
        own = np.ascontiguousarray(values)
        super().__init__(device, own.nbytes)
        device.upload(self.address, own, 0)
        self.values = values


class Device:
    """The GPU of the current context, or, without one, of the first device's primary context.

    api: a module with the driver's functions. find: returns that with cuBLAS's.
    Errors: ImportError if there is no driver or no GPU.
    """

    def __init__(self, api: Any, find: Callable[[], Any] = find_library):
        self.api = api
        self._find = find
        self._library: Library | None = None
        self._finding = threading.Lock()
        self.loaded: dict[str, Any] = {}
        """Kernels that are on the device, by all that makes them what they are."""
        self._constants: weakref.WeakValueDictionary[int, Constant] = weakref.WeakValueDictionary()
        """By identity of the host's array, which each keeps."""
        try:
            self.call("cuInit", 0)
            self.context = self.call("cuCtxGetCurrent")
            if not int(self.context):
                self.context = self.call("cuDevicePrimaryCtxRetain", self.call("cuDeviceGet", 0))
            with self.bound():
                self.handle = self.call("cuCtxGetDevice")
        except (RuntimeError, OSError) as error:
            raise ImportError(f'target="cuda" needs an NVIDIA GPU and its driver: {error}') from error
        self.number = int(self.handle)
        self.dlpack_kind = CUDA
        if self.capability < OLDEST:
            found, needed = (".".join(map(str, pair)) for pair in (self.capability, OLDEST))
            raise ImportError(
                f'target="cuda" needs a GPU of compute capability {needed} or newer; this one has {found}'
            )

    @contextlib.contextmanager
    def bound(self) -> Iterator[None]:
        """Make the GPU's context that of this thread meanwhile: callers have threads of their own, or other GPUs."""
        self.call("cuCtxPushCurrent", self.context)
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent")

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the driver; return what it answers. Errors: DeviceError."""
        status, *answers = getattr(self.api, name)(*arguments)
        if int(status):
            raise DeviceError(f"{name}: {getattr(status, 'name', status)}")
        return answers[0] if answers else None

    def attribute(self, name: str) -> int:
        return int(self.call(
            "cuDeviceGetAttribute", getattr(self.api.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}"), self.handle
        ))  # fmt: skip

    @cached_property
    def capability(self) -> tuple[int, int]:
        major, minor = (self.attribute(f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
        return major, minor

    @cached_property
    def limits(self) -> Limits:
        return Limits(**{ours: self.attribute(theirs) for ours, theirs in ATTRIBUTES.items()})

    @property
    def library(self) -> Library:
        """cuBLAS on this device, loaded now. Errors: ImportError of one sentence if it is not there."""
        with self._finding:
            if self._library is None:
                self._library = Library(self, self._find())
            return self._library

    def load(self, image: bytes, name: str, shared: int = 0) -> Any:
        """Return a function of a compiled module. shared: bytes of shared memory that launches will give a block."""
        module = self.call("cuModuleLoadData", image)
        function = self.call("cuModuleGetFunction", module, name.encode())
        if shared:
            most = self.api.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self.call("cuFuncSetAttribute", function, most, shared)
        self.call("cuFuncLoad", function)  # now, not at its first launch, which may be recorded for a graph
        return function

    def blocks_at_once(self, function: Any, threads: int, shared: int = 0) -> int:
        """Return how many blocks of a kernel run at the same time: a cooperative launch takes no more."""
        each = int(self.call("cuOccupancyMaxActiveBlocksPerMultiprocessor", function, threads, shared))
        return each * self.limits.multiprocessors

    def launch(
        self, function: Any, blocks: int, threads: int, arguments: tuple[int, ...], stream: int, cooperative: bool,
        shared: int = 0, lines: int = 1,
    ) -> None:  # fmt: skip
        """Run a kernel of 64-bit words. shared: bytes of shared memory that a block has beside the kernel's own.

        lines: how many there are of so many blocks.
        """
        values = (arguments, (ctypes.c_int64,) * len(arguments))
        shape = (blocks, lines, 1, threads, 1, 1, shared, stream)
        if cooperative:
            self.call("cuLaunchCooperativeKernel", function, *shape, values)
        else:
            self.call("cuLaunchKernel", function, *shape, values, 0)

    def record(
        self, launch: Callable[[int], None], around: Callable[[int], AbstractContextManager[Any]] = nullcontext
    ) -> Any:
        """Return a graph of the launches that a function makes on the stream that it is given.

        around: what is entered, with the stream, before anything is recorded, and left afterwards.
        """
        stream = self.call("cuStreamCreate", NONBLOCKING)
        try:
            with around(int(stream)):
                graph = self._recorded(launch, int(stream))
            try:
                return self.call("cuGraphInstantiate", graph, 0)
            finally:
                self.call("cuGraphDestroy", graph)
        finally:
            self.call("cuStreamDestroy", stream)

    def _recorded(self, launch: Callable[[int], None], stream: int) -> Any:
        mode = self.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        collecting = gc.isenabled()
        gc.disable()  # an old engine's memory that is given back meanwhile would spoil the recording
        try:
            self.call("cuStreamBeginCapture", stream, mode)
            try:
                launch(stream)
            except BaseException:
                with contextlib.suppress(Exception):  # the first error counts
                    self.call("cuGraphDestroy", self.call("cuStreamEndCapture", stream))
                raise
            return self.call("cuStreamEndCapture", stream)
        finally:
            if collecting:
                gc.enable()

    def replay(self, graph: Any, stream: int) -> None:
        self.call("cuGraphLaunch", graph, stream)

    def follow(self, stream: int, other: int | None) -> None:
        """Let a stream wait for all that another one has been told so far. other: None for none."""
        if other is None or (0 if other == LEGACY else other) == (0 if stream == LEGACY else stream):
            return
        event = self.call("cuEventCreate", UNTIMED)
        try:
            self.call("cuEventRecord", event, other)
            self.call("cuStreamWaitEvent", stream, event, 0)
        finally:
            self.call("cuEventDestroy", event)

    def allocate(self, size: int, stream: int) -> Memory:
        return Memory(self, size, stream)

    def reserve(self, size: int) -> Reserved:
        return Reserved(self, size)

    def constants(self, arrays: Sequence[Array]) -> list[Constant]:
        """Return copies of host arrays, the same for all who ask for one. The host waits for what is new."""
        found = {id(array): self._constants.get(id(array)) for array in arrays}
        new = {id(array): Constant(self, array) for array in arrays if found[id(array)] is None}
        if new:
            self.synchronize(0)
            self._constants.update(new)
        return [found[id(array)] or new[id(array)] for array in arrays]

    def give_back(self, name: str, *arguments: Any) -> None:
        """Call a function that frees something: at the end of the process the driver may be gone before it is."""
        with contextlib.suppress(Exception), self.bound():
            self.call(name, *arguments)

    def give_back_after(self, readers: set[int], address: int, stream: int) -> None:
        """Free memory in the order of its stream, and not before what other streams have been told so far is done."""
        for reader in readers:
            with contextlib.suppress(Exception), self.bound():  # of a stream that is there no more
                self.follow(stream, reader)
        self.give_back("cuMemFreeAsync", address, stream)

    def lend(self, owner: Any, stream: int) -> None:
        """Take note that a stream reads what an owner keeps; memory that is not of our own is not ours to give back."""
        if isinstance(owner, Memory):
            owner.readers.add(stream)

    def gpu_of(self, address: int) -> int | None:
        """Return the number of the GPU whose memory is at an address, None for what is on none."""
        ordinal = self.api.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        try:
            return int(self.call("cuPointerGetAttribute", ordinal, address))
        except DeviceError:
            return None

    def upload(self, address: int, values: Array, stream: int) -> None:
        """Copy a host array, which may be changed as soon as this returns: its pages are not pinned."""
        if values.nbytes:
            self.call("cuMemcpyHtoDAsync", address, values.ctypes.data, values.nbytes, stream)

    def download(self, values: Array, address: int, stream: int) -> None:
        """Fill a host array, and wait for it: only where a caller asks for it."""
        if values.nbytes:
            self.call("cuMemcpyDtoHAsync", values.ctypes.data, address, values.nbytes, stream)
        self.synchronize(stream)

    def synchronize(self, stream: int) -> None:
        self.call("cuStreamSynchronize", stream)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        if size:
            self.call("cuMemcpyDtoDAsync", target, source, size, stream)

    def fill(self, address: int, size: int, stream: int, value: int = 0) -> None:
        if size:
            self.call("cuMemsetD8Async", address, value, size, stream)


@cache
def current() -> Device:
    """Return the GPU at hand. Errors: ImportError, saying what is missing."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise ImportError('target="cuda" needs numba-cuda: pip install "rsref[fast,cuda]"') from error
    return Device(driver)
