"""Products by the library alone: however operands lie, what is asked for; and that its fake notices what is wrong."""

import contextlib
import gc
import threading

import numpy as np
import pytest

from rsref_fast.cuda import library
from rsref_fast.cuda.driver import DeviceError
from rsref_fast.cuda.products import Address, Matrix, Product
from tests.cuda import fake
from tests.cuda.fake_blas import Blas

STREAM = 5
SIZES = [(1, 1, 1), (3, 4, 5), (1, 4, 3), (4, 1, 3), (3, 2, 1), (1, 1, 6), (2, 7, 2)]


@pytest.fixture
def device():
    return fake.new_device(Blas)


class Operand:
    """A matrix on the device, inside a larger one. transposed: whether its columns are what lies together."""

    def __init__(self, device, values, transposed):
        rows, columns = values.shape[::-1] if transposed else values.shape
        whole = np.full((rows, columns + 2), np.nan, values.dtype)
        whole[:, 1 : 1 + columns] = values.T if transposed else values
        self.device, self.whole, self.transposed = device, whole, transposed
        self.there = fake.OnDevice(device, whole)
        self.address = self.there.memory.address + values.dtype.itemsize
        steps = (1, columns + 2) if transposed else (columns + 2, 1)
        self.matrix = Matrix(Address(0, 1), *values.shape, *steps)

    def back(self):
        """Return the values; see that nothing else was written."""
        self.device.download(self.whole, self.there.memory.address, 0)
        assert np.isnan(self.whole[:, [0, -1]]).all()
        return self.whole[:, 1:-1]


def multiplied(device, sizes, dtype, left_transposed, right_transposed, add):
    """Record one product, run it twice, and compare with NumPy."""
    rng = np.random.default_rng(0)
    rows, columns, depth = sizes
    a, b, c = (rng.normal(size=s).astype(dtype) for s in ((rows, depth), (depth, columns), (rows, columns)))
    left, right = Operand(device, a, left_transposed), Operand(device, b, right_transposed)
    target = Operand(device, c if add else np.full_like(c, np.nan), False)
    product = Product(left.matrix, right.matrix, target.matrix, add, False)
    assert library.can(product)
    pointers = fake.OnDevice(device, np.array([right.address, left.address, target.address], np.int64))
    with device.bound():
        workspace = device.library.workspace(STREAM)
        graph = device.record(
            lambda stream: device.library.multiply(product, np.dtype(dtype), pointers.memory.address),
            lambda stream: device.library.on(stream, workspace),
        )
        for _ in range(2):
            device.replay(graph, STREAM)
    expected = c + 2 * (a.astype(np.float64) @ b) if add else a.astype(np.float64) @ b
    np.testing.assert_allclose(target.back(), expected, rtol=0, atol=1e-12 if dtype == "f8" else 1e-5)


def all_ways(device):
    for number, sizes in enumerate(SIZES):
        for left, right in ((False, False), (True, False), (False, True), (True, True)):
            for add in (False, True):
                multiplied(device, sizes, "f8" if number % 2 else "f4", left, right, add)


def test_every_way_in_which_operands_lie(device):
    all_ways(device)
    assert len(device.library.api.done) == 2 * len(SIZES) * 4 * 2
    assert {terms for _, _, terms, _ in device.library.api.done} == {k for _, _, k in SIZES}


@pytest.mark.parametrize(
    "steps", [(0, 1), (1, 0), (8, 2), (2, 8), (3, 1), (-4, 1), (4, -1)],
    ids=["rows repeated", "columns repeated", "gaps", "gaps, transposed", "rows overlap", "upside down", "mirrored"],
)  # fmt: skip
def test_what_the_library_cannot_read(steps):
    assert library.as_read(Matrix(Address(0), 4, 4, *steps)) is None


def test_steps_of_an_axis_with_one_element_mean_nothing():
    assert library.as_read(Matrix(Address(0), 1, 4, 0, 1)) == (library.AS_IT_IS, 4)
    assert library.as_read(Matrix(Address(0), 4, 1, 1, 0)) == (library.AS_IT_IS, 1)
    assert library.as_read(Matrix(Address(0), 4, 1, 9, 0)) == (library.AS_IT_IS, 9)
    assert library.as_read(Matrix(Address(0), 1, 4, 0, 7)) == (library.TRANSPOSED, 7)


def test_products_that_the_library_has_not():
    def product(rows, columns, depth, floats=True):
        left, right, target = (
            Matrix(Address(i, 0, floats), *shape, shape[1], 1)
            for i, shape in enumerate([(rows, depth), (depth, columns), (rows, columns)])
        )
        return Product(left, right, target, False, False)

    assert library.can(product(2, 3, 4))
    for sizes in ((0, 3, 4), (2, 0, 4), (2, 3, 0), (2**31, 1, 1)):
        assert not library.can(product(*sizes))
    assert not library.can(product(2, 3, 4, floats=False))


def changed(**arguments):
    """Return a way to change what the library is told: by the number of an argument, a function of what it was."""

    def change(monkeypatch, device):
        for name in ("sgemm_batched", "dgemm_batched"):
            original = getattr(Blas, name)

            def call(self, *given, original=original):
                given = list(given)
                for place, how in arguments.items():
                    given[PLACES.index(place)] = how(given[PLACES.index(place)])
                return original(self, *given)

            monkeypatch.setattr(Blas, name, call)

    return change


PLACES = [
    "handle", "op_a", "op_b", "m", "n", "k", "alpha", "a", "lda", "b", "ldb", "beta", "c", "ldc", "count",
]  # fmt: skip
ONE = np.ones(1)


def no_workspace(monkeypatch, device):
    monkeypatch.setattr(Blas, "set_workspace", lambda self, handle, address, size: None)


def workspace_then_stream(monkeypatch, device):
    original = Blas.set_workspace

    def both(self, handle, address, size):
        original(self, handle, address, size)
        self.set_stream(handle, fake.CAPTURING)

    monkeypatch.setattr(Blas, "set_workspace", both)


def late(monkeypatch, device):
    """Told while something is recorded."""
    record = device.record

    def recorded(launch, around):
        def both(stream):
            with around(stream):
                launch(stream)

        return record(both, lambda stream: contextlib.nullcontext())

    monkeypatch.setattr(device, "record", recorded)


def another_stream(monkeypatch, device):
    original = Blas.set_stream
    monkeypatch.setattr(Blas, "set_stream", lambda self, handle, stream: original(self, handle, 3))


CHANGES = {
    "an operation": changed(op_a=lambda op: 1 - op),
    "the other operation": changed(op_b=lambda op: 1 - op),
    "operands exchanged": changed(a=lambda place: place + 8, b=lambda place: place - 8),
    "rows for columns": changed(m=lambda m: m + 1),
    "fewer terms": changed(k=lambda k: k - 1),
    "a leading dimension": changed(lda=lambda step: step - 1),
    "the other leading dimension": changed(ldb=lambda step: step + 1),
    "the target's leading dimension": changed(ldc=lambda step: step + 1),
    "always added": changed(beta=lambda beta: ONE.ctypes.data),
    "no product": changed(count=lambda count: 0),
    "a handle that is none": changed(handle=lambda handle: handle + 1),
    "no workspace": no_workspace,
    "the stream after the workspace": workspace_then_stream,
    "told too late": late,
    "another stream": another_stream,
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_noticed(device, monkeypatch, name):
    CHANGES[name](monkeypatch, device)
    with pytest.raises((AssertionError, DeviceError)):
        all_ways(device)


def test_what_the_library_refuses_is_said_in_its_own_words(device):
    with device.bound(), pytest.raises(DeviceError, match="cuBLAS, set_stream: CUBLAS_STATUS_NOT_INITIALIZED"):
        device.library._call("set_stream", 99, 0)


def test_one_workspace_for_each_of_the_streams_that_were_used_last(device):
    with device.bound():
        first, second = device.library.workspace(1), device.library.workspace(2)
        assert first.address != second.address
        assert device.library.workspace(1) is first
        addresses = first.address, second.address
        del first, second
        gc.collect()
        assert device.library.workspace(1).address == addresses[0]
        held = len(device.api.memory)
        device.library.workspace(3)  # in place of 2's
        gc.collect()
        assert len(device.api.memory) == held
        assert device.library.workspace(1).address == addresses[0]


def test_one_thread_at_a_time_has_the_handle(device):
    entered = []

    def other():
        with device.library.on(2, workspace):
            entered.append(2)

    with device.bound():
        workspace = device.library.workspace(1)
        with device.library.on(1, workspace):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(0.05)
            assert not entered
        thread.join()
        assert entered == [2]


def test_the_handle_is_given_back(device):
    with device.bound():
        assert device.library.workspace(0)
    api = device.library.api
    assert len(api.handles) == 1
    device._library = None
    gc.collect()
    assert not api.handles


def test_without_the_bindings_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nvmath", None)
    with pytest.raises(ImportError, match=r'cuBLAS is not there \(pip install "rsref\[fast,cuda,cublas\]"\)'):
        library.find()
