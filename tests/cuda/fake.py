"""A driver whose device is this process: the functions of `cuda.bindings.driver` that we use, kernels by the emulator.

Memory is the host's, each piece with a margin on both sides that nobody may touch, and poison in it when it is new or
given back. What was given back is not used again, so words for a kernel that still name it are noticed. Work is done at
once, so a stream keeps its order.
"""

import ctypes
import threading
from copy import copy
from types import SimpleNamespace

import numpy as np

from rsref_fast.cuda import build, images
from rsref_fast.cuda.driver import Device
from tests.cuda.emulator import POISON, Kernel

MARGIN, MARK, ALIGNED = 64, 0xA5, 256
CAPTURING = 77
"""The one stream that is ever made: launches into it are recorded."""

ATTRIBUTES = {
    "MULTIPROCESSOR_COUNT": 2,
    "MAX_THREADS_PER_MULTIPROCESSOR": 2048,
    "MAX_REGISTERS_PER_MULTIPROCESSOR": 65536,
    "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 233472,
    "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448,
    "COMPUTE_CAPABILITY_MAJOR": 9,
    "COMPUTE_CAPABILITY_MINOR": 0,
}

BOUND = (
    "cuLaunchKernel", "cuLaunchCooperativeKernel", "cuModuleLoadData", "cuMemAlloc", "cuMemFree", "cuMemFreeAsync",
    "cuEventCreate", "cuEventRecord", "cuStreamWaitEvent",
)  # fmt: skip
"""Some functions that need a current context: a thread of the caller's has none."""

_kernels = {}
_codes = []


def image_of(text, entry, dtype, tile, team, capability):
    """In place of `images.image_of`: the image is a number of the emulator's kernel."""
    key = text, entry, dtype, tile, team
    if key not in _kernels:
        code = build.kernel(*key)
        _codes.append(Kernel(code))
        _kernels[key] = images.Image(str(len(_codes) - 1).encode(), code.name, code.cooperative)
    return _kernels[key]


class Driver:
    """The driver's functions. used: how often each was called; waiting: pairs of streams, the first for the other.

    freed_after: for what was given back in a stream's order, that stream and which streams it had waited for. gpus: the
    numbers of those that have the memory at some addresses; all else is on the first.
    """

    CUdevice_attribute = SimpleNamespace(**{f"CU_DEVICE_ATTRIBUTE_{name}": name for name in ATTRIBUTES})

    def __init__(self):
        self.memory = {}
        self.given_back = {}
        self.used = {}
        self.launches = []
        self.backwards = False
        self.recording = None
        self._contexts = threading.local()
        self.waiting = []
        self.freed_after = []
        self.gpus = {}

    @property
    def bound(self):
        """How many contexts this thread has bound: each has its own."""
        return getattr(self._contexts, "count", 0)

    def __getattribute__(self, name):
        if name.startswith("cu"):
            used = object.__getattribute__(self, "used")
            used[name] = used.get(name, 0) + 1
            assert self.bound or name not in BOUND, f"{name} is called where no context is current"
        return object.__getattribute__(self, name)

    def cuInit(self, flags):
        return (0,)

    def cuCtxGetCurrent(self):
        return 0, 0

    def cuDeviceGet(self, number):
        return 0, number

    def cuDevicePrimaryCtxRetain(self, device):
        return 0, 1

    def cuCtxPushCurrent(self, context):
        self._contexts.count = self.bound + 1
        return (0,)

    def cuCtxPopCurrent(self):
        self._contexts.count = self.bound - 1
        return 0, 1

    def cuCtxGetDevice(self):
        return 0, 0

    def cuDeviceGetAttribute(self, attribute, device):
        return 0, ATTRIBUTES[attribute]

    def cuModuleLoadData(self, image):
        return 0, copy(_codes[int(image)])  # each module's function has attributes of its own

    def cuModuleGetFunction(self, module, name):
        return 0, module

    def cuFuncLoad(self, function):
        return (0,)

    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="dynamic")

    def cuFuncSetAttribute(self, kernel, attribute, value):
        assert attribute == "dynamic"
        kernel.may_have = value
        return (0,)

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, function, threads, shared):
        return 0, 1

    def cuLaunchKernel(self, kernel, x, y, z, threads, ty, tz, shared, stream, values, extra):
        assert (z, ty, tz, extra) == (1, 1, 1, 0)
        assert not kernel.meets, "threads of a grid meet in a kernel that was not launched for it"
        if stream == CAPTURING:
            self.recording.append((kernel, x, threads, values, shared, y))
            return (0,)
        return self._launch(kernel, x, threads, values, shared, y)

    def cuLaunchCooperativeKernel(self, kernel, x, y, z, threads, ty, tz, shared, stream, values):
        assert x * y <= ATTRIBUTES["MULTIPROCESSOR_COUNT"], "more blocks than run at the same time"
        return self._launch(kernel, x, threads, values, shared, y)

    def _launch(self, kernel, blocks, threads, values, shared=0, lines=1):
        arguments, types = values
        assert shared <= getattr(kernel, "may_have", 0), "more memory than the kernel was said to have"
        kernel.dynamic_bytes = shared
        assert all(t is ctypes.c_int64 for t in types)
        kernel.launch(blocks, threads, *arguments, backwards=self.backwards, lines=lines)
        self.launches.append(kernel)
        self._check()
        return (0,)

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def cuStreamCreate(self, flags):
        return 0, CAPTURING

    def cuStreamBeginCapture(self, stream, mode):
        self.recording = []
        return (0,)

    def cuStreamEndCapture(self, stream):
        recorded, self.recording = self.recording, None
        return 0, recorded

    def cuGraphInstantiate(self, graph, flags):
        return 0, list(graph)

    def cuGraphDestroy(self, graph):
        graph.clear()
        return (0,)

    def cuGraphExecDestroy(self, graph):
        return self.cuGraphDestroy(graph)

    def cuStreamDestroy(self, stream):
        return (0,)

    def cuGraphLaunch(self, graph, stream):
        for node in graph:
            if callable(node):  # a library's
                node()
                self._check()
            else:
                self._launch(*node)
        return (0,)

    def cuMemAllocAsync(self, size, stream):
        whole = np.full(size + 2 * MARGIN + ALIGNED, POISON, np.uint8)
        start = MARGIN + -(whole.ctypes.data + MARGIN) % ALIGNED
        whole[start - MARGIN : start] = MARK
        whole[start + size : start + size + MARGIN] = MARK
        address = whole.ctypes.data + start
        self.memory[address] = whole, start, size
        return 0, address

    def cuMemAlloc(self, size):
        return self.cuMemAllocAsync(size, 0)

    def cuMemFree(self, address):
        return self.cuMemFreeAsync(address, 0)

    CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL="ordinal")

    def cuPointerGetAttribute(self, attribute, address):
        assert attribute == "ordinal"
        number = self.gpus.get(address, 0)
        return (1,) if number is None else (0, number)

    def cuEventCreate(self, flags):
        return 0, []

    def cuEventRecord(self, event, stream):
        event.append(stream)
        return (0,)

    def cuStreamWaitEvent(self, stream, event, flags):
        self.waiting.append((stream, *event))
        return (0,)

    def cuEventDestroy(self, event):
        return (0,)

    def cuMemFreeAsync(self, address, stream):
        if self.recording is not None:
            self.recording = None  # as the driver: what was recorded is spoilt, and nothing given back
            return (900,)
        whole, start, size = self.memory.pop(address)
        whole[start : start + size] = POISON
        self.given_back[address] = whole
        self.freed_after.append((stream, [other for one, other in self.waiting if one == stream]))
        return (0,)

    def _check(self):
        for whole, start, size in list(self.memory.values()):  # threads may allocate meanwhile
            assert (whole[start - MARGIN : start] == MARK).all(), "something was written before an array"
            assert (whole[start + size : start + size + MARGIN] == MARK).all(), "something was written behind an array"

    def cuMemcpyHtoDAsync(self, target, source, size, stream):
        words = np.ctypeslib.as_array((ctypes.c_int64 * (size // 8)).from_address(source))
        assert self.given_back.keys().isdisjoint(words.tolist()), "memory that was given back is named to a kernel"
        return self._move(target, source, size)

    def cuMemcpyDtoHAsync(self, target, source, size, stream):
        return self._move(target, source, size)

    def cuMemcpyDtoDAsync(self, target, source, size, stream):
        return self._move(target, source, size)

    def _move(self, target, source, size):
        ctypes.memmove(target, source, size)
        return (0,)

    def cuMemsetD8Async(self, address, value, size, stream):
        ctypes.memset(address, value, size)
        return (0,)

    def cuStreamSynchronize(self, stream):
        return (0,)


class OnDevice:
    """A NumPy array as another library's array on the fake device."""

    def __init__(self, device, array):
        array = np.asarray(array)
        self.array = array
        self.memory = device.allocate(max(1, array.nbytes), 0)
        device.upload(self.memory.address, np.ascontiguousarray(array), 0)
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (self.memory.address, False), "version": 3,
        }  # fmt: skip


def back(device, array):
    """Return a device array as one of NumPy's."""
    if array is None:
        return None
    found = np.empty(array.shape, array.dtype)
    device.download(found, array.address, 0)
    return found


def no_library():
    raise ImportError("cuBLAS is not there")


def new_device(blas=None):
    """Return a device. blas: makes its cuBLAS, of the driver; None for a device without one."""
    driver = Driver()
    device = Device(driver, no_library if blas is None else lambda: blas(driver))
    device.dlpack_kind = 1
    return device
