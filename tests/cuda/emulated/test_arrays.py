"""Arrays of others read in place and ours read by them: what is refused, and who waits for whose stream."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from rsref.testing.arguments import random_arguments
from rsref_fast.cuda import arrays, engine, kernels
from rsref_fast.cuda.arrays import CUDA, LEGACY, PINNED, DeviceArray, device_array
from rsref_fast.cuda.driver import Device
from rsref_fast.cuda.masks import Rows
from rsref_fast.cuda.script import Script
from tests.cuda import fake
from tests.cuda.kernels import TILE
from tests.cuda.on_device import ThereAndBack
from tests.fast.made import recurrence_of

GROUPS = ("sequences", "constants", "states", "parameters")


@pytest.fixture(autouse=True)
def device(monkeypatch):
    monkeypatch.setattr(kernels.images, "image_of", fake.image_of)
    return fake.new_device()


def interface(**changes):
    own = {"shape": (2,), "typestr": "<f4", "data": (64, False), "version": 3, "strides": None}
    return SimpleNamespace(__cuda_array_interface__={**own, **changes})


WHOLE = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
VIEWS = {
    "row-major": (WHOLE, 1),
    "the first axes swapped": (WHOLE.swapaxes(0, 1), 3),
    "transposed": (WHOLE.T, 4),
    "the other way round": (WHOLE[::-1, :, ::-1], 4),
    "every second": (WHOLE[:, ::2], 3),
    "broadcast": (np.broadcast_to(WHOLE[:, :1], WHOLE.shape), 3),
    "one": (WHOLE[:1, :1, :1, :1], 1),
    "a number": (WHOLE[1, 2, 3, 4, ...], 1),
    "nothing": (WHOLE[:0], 1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_arrays_that_are_strided_are_written_row_after_row(device, name):
    values, axes = VIEWS[name]
    memory = fake.OnDevice(device, WHOLE)
    start = memory.memory.address + values.__array_interface__["data"][0] - WHOLE.ctypes.data
    given = DeviceArray(start, values.shape, values.dtype, memory, 0, values.strides)
    assert given.contiguous == (values.flags.c_contiguous or not values.size)
    assert len(given.folded()) <= axes
    special = SimpleNamespace(dtype=np.dtype("f8"), dtype_of=lambda kind: np.dtype("f8"))
    owner = engine.CudaEngine(recurrence_of("LSTMCell"), device, tile=TILE)
    with owner.alone():
        rows = Rows(owner, Script(), special, 0, device.allocate)
        found = rows.plain(given, "float")
        rows.finish(device.allocate)
    np.testing.assert_array_equal(fake.back(device, found), values)


@pytest.mark.parametrize("typestr", ["<f2", ">f4", "<u8", "<c8"])
def test_numbers_that_kernels_do_not_read(device, typestr):
    with pytest.raises(TypeError, match=f"state 1 has dtype {typestr}; kernels read f4, f8"):
        device_array(interface(typestr=typestr), "state 1", device, 0)


def test_another_gpu(device):
    given = DeviceArray(64, (2,), np.dtype("f4"), None, 0, None, (CUDA, 3))
    device.api.gpus = {64: 3, 128: None}
    for other in (given, interface(), Producer(np.zeros(2), 3)):
        with pytest.raises(TypeError, match="x is on GPU 3; the kernels are loaded on GPU 0"):
            device_array(other, "x", device, 0)
    with pytest.raises(TypeError, match="x is in no memory of a GPU; the kernels are loaded on GPU 0"):
        device_array(interface(data=(128, False)), "x", device, 0)


def test_streams_wait_for_those_in_whose_order_an_array_was_written(device):
    with device.bound():
        device_array(interface(stream=5), "x", device, 7)
        device_array(interface(stream=None), "x", device, 7)
        device_array(interface(stream=7), "x", device, 7)
        device_array(interface(stream=LEGACY), "x", device, 0)
    assert device.api.waiting == [(7, 5)]


def test_an_interface_without_a_stream_is_not_asked_where_there_is_dlpack(device):
    """PyTorch's names none, and its capsule makes our stream wait for its current one."""
    values = np.arange(2, dtype=np.float32)
    producer = Producer(values)
    producer.__cuda_array_interface__ = interface(version=2).__cuda_array_interface__
    assert device_array(producer, "x", device, 7).address == values.ctypes.data
    assert producer.asked == [7]


def test_answers_are_waited_for_by_their_readers_stream(device):
    own = recurrence_of("SimpleRNNCell")
    there = ThereAndBack(own, device)
    arguments = random_arguments(own, batch=2, steps=2).cast(np.float32)
    given = [there._there(getattr(arguments, name)) for name in GROUPS]
    (y,), _, _ = there.engine.forward(*given, taped=False, stream=5)
    assert y.__cuda_array_interface__["stream"] == 5
    for reader in (None, 5, -1, 9):
        y.__dlpack__(stream=reader)
    assert device.api.waiting == [(0, 5), (9, 5)]
    for options in ({"copy": True}, {"dl_device": (CUDA, 1)}):
        with pytest.raises(BufferError, match="not copied"):
            y.__dlpack__(**options)


def test_backward_in_another_stream_waits_for_forward_and_memory_for_both(device):
    """Also where no gradient says that it comes from forward; what backward reads is given back when it has run."""
    there, given = _called(device)
    _, _, tape = there.engine.forward(*given, stream=5)
    there.engine.backward(tape, [None], [None], stream=7)
    assert device.api.waiting == [(7, 5)]
    gc.collect()
    device.api.freed_after.clear()
    del tape
    gc.collect()
    assert device.api.freed_after
    assert all(freed == (5, [7]) for freed in device.api.freed_after)


@pytest.mark.parametrize("reader", ["a call", "a capsule"])
def test_an_answer_that_another_stream_reads_is_given_back_after_that(device, reader):
    there, given = _called(device)
    (y,), _, _ = there.engine.forward(*given, taped=False, stream=5)
    if reader == "a call":
        there.engine.forward([y], *given[1:], taped=False, stream=7)
    else:
        y.__dlpack__(stream=7)
    gc.collect()
    device.api.freed_after.clear()
    del y
    gc.collect()
    assert device.api.freed_after == [(5, [7])]


def _called(device):
    """Return an engine whose outputs can be its inputs, and arguments that are on the device."""
    own = recurrence_of("SimpleRNNCell", 4, 4)
    there = ThereAndBack(own, device)
    arguments = random_arguments(own, batch=2, steps=2).cast(np.float32)
    return there, [there._there(getattr(arguments, name)) for name in GROUPS]


class Producer:
    """An array as another library gives it away: a capsule, on a device that is said to be a GPU."""

    def __init__(self, array, number=0):
        self.array = array
        self.number = number
        self.asked = []

    def __dlpack_device__(self):
        return CUDA, self.number

    def __dlpack__(self, stream=None):
        self.asked.append(stream)
        return self.array.__dlpack__()


def test_capsules_of_others(device):
    values = np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(0, 2, 1)
    producer = Producer(values)
    found = device_array(producer, "x", device, 0)
    assert (found.shape, found.dtype, found.address) == ((2, 4, 3), np.dtype("i4"), values.ctypes.data)
    assert found.strides == values.strides
    device_array(producer, "x", device, 7)
    assert producer.asked == [LEGACY, 7]
    with pytest.raises(TypeError, match="x has DLPack's dtype 5"):
        device_array(Producer(np.zeros(2, np.complex64)), "x", device, 0)


def test_a_capsule_is_given_back_once(device):
    given_back = []

    class Owner(np.ndarray):
        def __del__(self):
            given_back.append(self.shape)

    producer = Producer(np.zeros(3).view(Owner))
    found = device_array(producer, "x", device, 0)
    del producer
    gc.collect()
    assert not given_back
    del found
    gc.collect()
    assert given_back == [(3,)]


def test_other_libraries_may_set_the_types_of_pythons_functions(device):
    """JAX does, for a capsule of its own."""
    import ctypes

    function = ctypes.pythonapi.PyCapsule_New
    kept = function.argtypes
    function.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.CFUNCTYPE(None, ctypes.py_object)]
    try:
        memory = device.allocate(8, 0)
        array = DeviceArray(memory.address, (2,), np.dtype("f4"), memory, 0, None, (1, 0))
        assert np.from_dlpack(array).shape == (2,)
    finally:
        function.argtypes = kept
    assert not arrays._alive


def test_an_old_gpu_is_refused(monkeypatch):
    monkeypatch.setitem(fake.ATTRIBUTES, "COMPUTE_CAPABILITY_MAJOR", 7)
    with pytest.raises(ImportError, match=r"compute capability 7\.5 or newer; this one has 7\.0"):
        Device(fake.Driver())


def test_more_elements_than_are_counted_are_refused(device):
    there = ThereAndBack(recurrence_of("LSTMCell"), device)
    source = there.engine.specialised([(1, 2), (1, 4), (1, 4)], np.dtype("f4")).forward
    engine.check_sizes(source, 2**27)
    with pytest.raises(ValueError, match=r"268435456 rows of \w+ are 4,294,967,296 numbers"):
        engine.check_sizes(source, 2**28)


def test_memory_of_the_host_that_kernels_read(device):
    """Pinned memory has no stream: PyTorch refuses to be given one."""

    class Pinned:
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return PINNED, 0

        def __dlpack__(self):
            return self.array.__dlpack__()

    own = recurrence_of("SimpleRNNCell")
    there = ThereAndBack(own, device)
    arguments = random_arguments(own, batch=2, steps=2).cast(np.float32)
    sequences, *others = [there._there(getattr(arguments, name)) for name in GROUPS]
    (expected,), _, _ = there.engine.forward(sequences, *others, taped=False)
    (found,), _, _ = there.engine.forward([Pinned(arguments.sequences[0])], *others, taped=False)
    np.testing.assert_array_equal(np.from_dlpack(found), np.from_dlpack(expected))


def test_an_old_engine_is_not_collected_within_a_recording(device):
    """Its memory, given back there, would spoil what is recorded and be lost."""

    class Old:
        pass

    old = Old()
    with device.bound():
        old.itself, old.memory = old, device.reserve(64)
    kept = len(device.api.memory)
    del old
    before, enabled = gc.get_threshold(), gc.isenabled()

    def launch(stream):
        gc.set_threshold(10, 1, 1)
        return [[] for _ in range(1000)]

    gc.enable()
    try:
        with device.bound():
            device.record(launch)
    finally:
        gc.set_threshold(*before)
        if not enabled:
            gc.disable()
    gc.collect()
    assert len(device.api.memory) == kept - 1


def test_a_recording_that_fails_is_ended(device):
    def launch(stream):
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        device.record(launch)
    assert device.api.used["cuStreamEndCapture"] == device.api.used["cuStreamDestroy"] == 1
