"""cuBLAS, for the matrix products of a call's graph: by NVIDIA's bindings, imported when they are first asked for.

Matrices there are column-major, so what is asked for is target^T = right^T left^T: a row-major matrix is its own
transpose. Addresses are read on the device from a list of pointers (the library's batched form, with a batch of one):
a graph's arguments are fixed when it is recorded, but a call's arrays are elsewhere each time.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref_fast.cuda.products import Matrix, Product

if TYPE_CHECKING:
    from rsref_fast.cuda.driver import Device, Reserved

PRODUCTS = ("auto", "cublas", "tiles")
MISSING = 'cuBLAS is not there (pip install "rsref[fast,cuda,cublas]")'

AS_IT_IS, TRANSPOSED = 0, 1
"""The library's numbers for what is done with an operand."""

DEFAULT_MATH, HOST_POINTERS, NO_ATOMICS, MAJOR_VERSION = 0, 0, 0, 0
"""float32 without TF32; factors are the host's, and so part of a graph; a sum has one order."""

MOST = 2**31 - 1
"""The library's sizes are 32-bit integers."""

WORKSPACE = 4 * 2**20
LARGER, FROM = 32 * 2**20, (9, 0)
"""Bytes that the library's manual asks for, and for which GPUs it asks for more."""

STREAMS = 2
"""How many streams' workspaces are kept."""

POINTERS = 3
"""Words of a product's list of pointers: to the right operand, the left one, and the target."""


def find() -> Any:
    """Return the module of the library's functions. Errors: ImportError of one sentence if any part is missing."""
    try:
        from nvmath.bindings import cublas

        cublas.get_property(MAJOR_VERSION)  # which loads the library itself
    except Exception as error:  # the bindings have several kinds for a library or a driver that is not there
        raise ImportError(f"{MISSING}: {error}") from error
    return cublas


def as_read(matrix: Matrix) -> tuple[int, int] | None:
    """Return how the library reads a matrix's transpose: what it does with it first, and the leading dimension.

    None if neither rows nor columns are one behind the other, as where a matrix is repeated or has gaps.
    """
    rows, columns = matrix.rows, matrix.columns
    if (matrix.column_step == 1 or columns == 1) and (matrix.row_step >= columns or rows == 1):
        return AS_IT_IS, columns if rows == 1 else matrix.row_step
    if (matrix.row_step == 1 or rows == 1) and (matrix.column_step >= rows or columns == 1):
        return TRANSPOSED, rows if columns == 1 else matrix.column_step
    return None


def can(product: Product) -> bool:
    """Return whether the library has such a product: not one without elements or terms, or of integers."""
    matrices = product.left, product.right, product.target
    steps = [as_read(m) for m in matrices]
    return (
        all(m.first.floats for m in matrices) and min(product.sizes) > 0 and max(product.sizes) <= MOST
        and all(step is not None and step[1] <= MOST for step in steps) and steps[-1][0] == AS_IT_IS  # type: ignore[index]
    )  # fmt: skip


class Library:
    """The library on a device: one handle, used by one thread at a time. api: a module with its functions.

    Errors: DeviceError with the library's own words.
    """

    def __init__(self, device: Device, api: Any):
        self.device = device
        self.api = api
        self._lock = threading.Lock()
        self._workspaces: dict[int, Reserved] = {}
        self._factors = {dtype: np.array([0, 1], dtype) for dtype in (np.dtype("f4"), np.dtype("f8"))}

    @cached_property
    def handle(self) -> int:
        handle = int(self._call("create"))
        weakref.finalize(self, _destroy, self.device.api, self.device.context, self.api, handle)
        self._call("set_math_mode", handle, DEFAULT_MATH)
        self._call("set_pointer_mode", handle, HOST_POINTERS)
        self._call("set_atomics_mode", handle, NO_ATOMICS)
        return handle

    @cached_property
    def workspace_bytes(self) -> int:
        return WORKSPACE if self.device.capability < FROM else LARGER

    def workspace(self, stream: int) -> Reserved:
        """Return the memory in which the products of a stream compute, one after the other.

        It is kept for the streams that were used last: getting it takes ten times as long as a product's call. Whoever
        records products holds it too. It is there, and so is the handle, before anything is recorded: the library would
        ask for memory of its own meanwhile.
        """
        with self._lock:
            assert self.handle
            found = self._workspaces.pop(stream, None)
            if found is None:
                found = self.device.reserve(self.workspace_bytes)
                while len(self._workspaces) >= STREAMS:
                    self._workspaces.pop(next(iter(self._workspaces)))
            self._workspaces[stream] = found
            return found

    @contextlib.contextmanager
    def on(self, stream: int, workspace: Reserved) -> Iterator[None]:
        """Let products go to a stream meanwhile."""
        with self._lock:
            self._call("set_stream", self.handle, stream)  # which takes the workspace away
            try:
                self._call("set_workspace", self.handle, workspace.address, self.workspace_bytes)
                yield
            finally:
                self._call("set_stream", self.handle, 0)

    def multiply(self, product: Product, dtype: np.dtype[Any], pointers: int) -> None:
        """Put a product that it can do into the stream. pointers: the address of three, which are read there."""
        addresses = pointers, pointers + 8, pointers + 16
        self._multiply("gemm_batched", product, dtype, addresses, 1)

    def multiply_at(self, product: Product, dtype: np.dtype[Any], addresses: Sequence[int]) -> None:
        """Put a product that it can do into the stream. addresses: of its right operand, the left one, and the target.

        Much faster than from a list of pointers where sums are long: the library may split them.
        """
        self._multiply("gemm", product, dtype, addresses)

    def _multiply(
        self, name: str, product: Product, dtype: np.dtype[Any], addresses: Sequence[int], *count: int
    ) -> None:  # fmt: skip
        left, right, target = (as_read(m) for m in (product.left, product.right, product.target))
        assert left
        assert right
        assert target
        rows, columns, depth = product.sizes
        factors = self._factors[dtype]
        one, beta = factors[1:].ctypes.data, factors[int(product.add) :].ctypes.data
        self._call(
            f"{'s' if dtype.itemsize == 4 else 'd'}{name}", self.handle, right[0], left[0], columns, rows, depth, one,
            addresses[0], right[1], addresses[1], left[1], beta, addresses[2], target[1], *count,
        )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> Any:
        from rsref_fast.cuda.driver import DeviceError

        try:
            return getattr(self.api, name)(*arguments)
        except Exception as error:  # of the bindings' own kinds
            raise DeviceError(f"cuBLAS, {name}: {error}") from error


def _destroy(driver: Any, context: Any, api: Any, handle: int) -> None:
    """Give a handle back: at the end of the process the driver may be gone before it is."""
    with contextlib.suppress(Exception):
        driver.cuCtxPushCurrent(context)
        try:
            api.destroy(handle)
        finally:
            driver.cuCtxPopCurrent()
