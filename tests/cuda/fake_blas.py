"""A cuBLAS whose device is this process: the functions of `nvmath.bindings.cublas` that we use, by NumPy.

As the manual has it: matrices are column-major; every argument is checked; a handle's stream takes its workspace away;
a product into a stream that is recorded becomes a part of the graph with the arguments that it has, factors of the host
included, and reads lists of pointers, and what they point to, when the graph is run. What the manual forbids or leaves
undefined is an error here.
"""

import ctypes

import numpy as np

from tests.cuda.emulator import POISON
from tests.cuda.fake import CAPTURING

NONE, TRANSPOSE, CONJUGATE = range(3)
WORKSPACE_ALIGNMENT = 256


class BlasError(Exception):
    """What the library answers, by the manual's word for it."""


class Blas:
    """done: for each product that was computed its sizes (rows, columns, terms of what is asked for) and beta."""

    def __init__(self, driver):
        self.driver = driver
        self.handles = {}
        self.made = 0
        self.done = []

    # --- handles --------------------------------------------------------------------------------------------------

    def get_property(self, which):
        return 13

    def create(self):
        assert self.driver.recording is None, "memory is asked for while something is recorded"
        assert self.driver.bound, "a handle belongs to the current context"
        self.made += 1
        self.handles[self.made] = {"stream": 0, "workspace": None, "before": False}
        return self.made

    def destroy(self, handle):
        self._handle(handle)
        del self.handles[handle]

    def set_stream(self, handle, stream):
        self._handle(handle).update(stream=stream, workspace=None)

    def set_workspace(self, handle, address, size):
        own = self._handle(handle)
        if address % WORKSPACE_ALIGNMENT:
            raise BlasError("CUBLAS_STATUS_INVALID_VALUE: the workspace is not aligned")
        assert self._piece(address)[1] >= size, "a workspace that is not the caller's"
        own.update(workspace=(address, size), before=self.driver.recording is None)

    def set_math_mode(self, handle, mode):
        self._handle(handle)
        assert mode == 0, "another precision than is asked for"

    def set_pointer_mode(self, handle, mode):
        self._handle(handle)
        assert mode == 0, "factors are the host's"

    def set_atomics_mode(self, handle, mode):
        self._handle(handle)
        assert mode == 0, "sums without an order"

    def _handle(self, handle):
        if handle not in self.handles:
            raise BlasError("CUBLAS_STATUS_NOT_INITIALIZED")
        return self.handles[handle]

    # --- products -------------------------------------------------------------------------------------------------

    def sgemm(self, *arguments):
        self._product(np.dtype(np.float32), *self._listed(arguments))

    def dgemm(self, *arguments):
        self._product(np.dtype(np.float64), *self._listed(arguments))

    def _listed(self, arguments):
        """Return the arguments of a product with lists of one pointer in place of what they point to."""
        assert self.driver.recording is None, "arguments would be fixed"
        *first, a, a_step, b, b_step, beta, c, c_step = arguments
        lists = self.driver.cuMemAlloc(24)[1]
        (ctypes.c_int64 * 3).from_address(lists)[:] = a, b, c
        return *first, lists, a_step, lists + 8, b_step, beta, lists + 16, c_step, 1

    def sgemm_batched(self, *arguments):
        self._product(np.dtype(np.float32), *arguments)

    def dgemm_batched(self, *arguments):
        self._product(np.dtype(np.float64), *arguments)

    def _product(
        self, dtype, handle, op_a, op_b, m, n, k, alpha, a_list, a_step, b_list, b_step, beta, c_list, c_step, count
    ):
        own = self._handle(handle)
        assert self.driver.bound, "no context is current"
        if min(m, n, k, count) < 0:
            raise BlasError("CUBLAS_STATUS_INVALID_VALUE: a negative size")
        if not {op_a, op_b} <= {NONE, TRANSPOSE, CONJUGATE}:
            raise BlasError("CUBLAS_STATUS_INVALID_VALUE: an operation")
        for step, lines in ((a_step, k if op_a else m), (b_step, n if op_b else k), (c_step, m)):
            if step < max(1, lines):
                raise BlasError("CUBLAS_STATUS_INVALID_VALUE: a leading dimension")
        assert all(type(x) is int and x < 2**31 for x in (m, n, k, a_step, b_step, c_step, count))
        assert own["workspace"], "memory is asked for, for there is no workspace"
        alpha, beta = (np.frombuffer(ctypes.string_at(x, dtype.itemsize), dtype)[0] for x in (alpha, beta))

        def run():
            address, _ = own_workspace
            whole, start, size = self.driver.memory[address]  # KeyError if it was given back
            whole[start : start + min(size, 4096)] = POISON
            for i in range(count):
                a = self._matrix(a_list + 8 * i, dtype, k if op_a else m, m if op_a else k, a_step)
                b = self._matrix(b_list + 8 * i, dtype, n if op_b else k, k if op_b else n, b_step)
                c = self._matrix(c_list + 8 * i, dtype, m, n, c_step)
                assert not np.may_share_memory(a, c), "an operand that is written"
                assert not np.may_share_memory(b, c), "an operand that is written"
                value = alpha * ((a.T if op_a else a) @ (b.T if op_b else b))
                c[...] = value if beta == 0 else value + beta * c
                self.done.append((n, m, k, float(beta)))

        own_workspace = own["workspace"]
        if self.driver.recording is None:
            run()
            return
        assert own["stream"] == CAPTURING, "the library's work goes to another stream than is recorded"
        assert own["before"], "the workspace is set while something is recorded"
        self.driver.recording.append(run)

    def _matrix(self, pointer, dtype, rows, columns, step):
        """Return a column-major matrix. pointer: the address of its address."""
        assert self._piece(pointer)[1] >= 8, "a pointer that is not on the device"
        address = int(np.frombuffer(ctypes.string_at(pointer, 8), np.int64)[0])
        assert address % dtype.itemsize == 0
        size = ((columns - 1) * step + rows) * dtype.itemsize
        assert self._piece(address)[1] >= size, "a matrix that goes beyond its memory"
        buffer = (ctypes.c_char * size).from_address(address)
        return np.ndarray((rows, columns), dtype, buffer, strides=(dtype.itemsize, step * dtype.itemsize))

    def _piece(self, address):
        """Return the beginning of a piece of memory with an address in it, and what is left of it from there on."""
        for start, (_, _, size) in list(self.driver.memory.items()):
            if start <= address < start + max(1, size):
                return start, start + size - address
        raise AssertionError("an address that is in no memory of the device")
