"""What happens to arrays around the programs of a call, on the device: types, masks, and the order of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rsref_fast.cpu.specialised import Specialised
from rsref_fast.cuda.arrays import DeviceArray
from rsref_fast.cuda.script import Loaded, Script, Where

if TYPE_CHECKING:
    from rsref_fast.cuda.engine import CudaEngine

ELEMENTS_A_BLOCK = 1024


@dataclass
class Packed:
    """A mask on the device, and the rows that it leaves: as `cpu.masks_plain.packed` answers it.

    memory: off, pos, rid and cut of each shard lie in it, from `places` on.
    """

    mask: DeviceArray
    memory: Any
    order: Where
    cut_end: Where
    places: list[list[int]]

    def slots(self, shard: int) -> list[Where]:
        return [self.memory.address + offset for offset in self.places[shard]]


class Rows:
    """Adds to a script what a call needs beside its programs. finish: runs the script.

    allocate: what gives memory (bytes, stream) at once; None if it is to be there when the script runs.
    """

    def __init__(
        self, engine: CudaEngine, script: Script, special: Specialised, stream: int,
        allocate: Callable[[int, int], Any] | None = None,
    ):  # fmt: skip
        self.engine, self.script, self.special, self.stream = engine, script, special, stream
        self.helpers = engine.helpers(special.dtype)
        self.allocate = allocate

    def memory(self, size: int) -> Any:
        return self.script.memory(size) if self.allocate is None else self.allocate(max(1, size), self.stream)

    def new(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Return an array with nothing in it."""
        size = math.prod(shape) * dtype.itemsize
        return self.engine.array(self.memory(size), shape, dtype, self.stream)

    def brief(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Return an array with nothing in it, which nobody needs when the script has run."""
        memory = self.script.memory(math.prod(shape) * dtype.itemsize, brief=True)
        return self.engine.array(memory, shape, dtype, self.stream)

    def plain(self, array: DeviceArray, kind: str) -> DeviceArray:
        """Return an array as kernels read it: row-major, of the dtype of a kind; the same one if it is."""
        dtype = self.special.dtype_of(kind)
        self.script.keep(array)
        if array.contiguous and (array.dtype == dtype or (kind == "bool" == _kind(array.dtype))):
            return array
        return self.written(array, self.new(array.shape, dtype))

    def written(self, array: DeviceArray, target: DeviceArray) -> DeviceArray:
        """Write an array, however strided, to a row-major one of our own dtypes."""
        axes = array.folded()
        words = [word for axis in axes for word in axis]
        self._launch(
            self.helpers.conversion(array.dtype, _kind(target.dtype)), [array.address, target.address],
            [target.size, len(axes), *words], target.size,
        )  # fmt: skip
        self.script.keep((array, target))
        return target

    def packed(self, mask: DeviceArray, shards: int, truncate: int | None) -> Packed:
        """Return the rows that a mask (batch, time) leaves, dealt out to shards."""
        batch, time = mask.shape
        sizes = [8 * batch, 8 * batch * time, 8 * batch, batch]  # order, times, lengths, cut_end
        counts = [batch // shards + (i < batch % shards) for i in range(shards)]
        for count in counts:
            sizes += [8 * (time + 1), 8 * count * time, 8 * count * time, count * time]
        starts = np.concatenate([[0], np.cumsum([-(-size // 64) * 64 for size in sizes])])
        memory = self.memory(int(starts[-1]) + 64)
        offsets = [int(start) for start in starts[:-1]]
        places = [offsets[4 + 4 * i : 8 + 4 * i] for i in range(shards)]
        found = Packed(mask, memory, memory.address + offsets[0], memory.address + offsets[3], places)
        own = [mask.address, *(memory.address + offset for offset in offsets[:4])]
        table = self.script.table([word for i in range(shards) for word in found.slots(i)])
        for name, elements in (("lengths", batch), ("sort", batch), ("pack", shards * (time + 1))):
            cut = max(1, time) if truncate is None else min(truncate, max(1, time))  # kernels divide by 32 bits
            numbers = [batch, time, shards, cut, 4]
            self._launch(self.helpers.packing(name), own, numbers, elements, table)
        self.script.keep(found)
        return found

    def reordered(self, array: DeviceArray, packed: Packed) -> DeviceArray:
        return self._moved("reorder", array, packed)

    def restored(self, array: DeviceArray, packed: Packed, target: DeviceArray | None = None) -> DeviceArray:
        return self._moved("restore", array, packed, target)

    def _moved(
        self, name: str, array: DeviceArray, packed: Packed, target: DeviceArray | None = None
    ) -> DeviceArray:  # fmt: skip
        target = self.new(array.shape, array.dtype) if target is None else target
        self._rows(name, array, [array.address, packed.order, target.address])
        return target

    def zeros(self, shape: tuple[int, ...]) -> DeviceArray:
        """Return an array of zeros in the working precision."""
        return self.zeros_of(self.special.dtype, shape)

    def zeros_of(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> DeviceArray:
        target = self.new(shape, dtype)
        self.script.fill(target.address, target.nbytes)
        self.script.keep(target)
        return target

    def copied(self, array: DeviceArray) -> DeviceArray:
        target = self.new(array.shape, array.dtype)
        self.script.copy(target.address, array.address, array.nbytes)
        self.script.keep((array, target))
        return target

    def taken(self, array: DeviceArray, places: Where, count: int, leading: int) -> DeviceArray:
        """Return some rows of an array, whose first axes are one for this. places: the address of their numbers."""
        inner = array.shape[leading:]
        target = self.new((count, *(1,) * (leading - 1), *inner), array.dtype)
        self._some("reorder", target, [array.address, places, target.address], count)
        self.script.keep(array)
        return target

    def put(
        self, rows: DeviceArray | None, places: Where, count: int, target: DeviceArray | None, how: str = "restore"
    ) -> None:  # fmt: skip
        """Write rows to their places in an array, or add them to what is there; nothing where there is no gradient."""
        if rows is not None and target is not None:
            self._some(how, rows, [rows.address, places, target.address], count)
            self.script.keep(target)

    def added(self, array: DeviceArray | None, target: DeviceArray | None) -> None:
        if array is not None and target is not None:
            self._some("sum", array, [array.address, target.address], 1)
            self.script.keep(target)

    def _some(self, name: str, array: DeviceArray, table: list[Where], count: int) -> None:
        width = array.size // max(1, count)
        kernel = self.helpers.rows(name, _kind(array.dtype))
        self._launch(kernel, table, [count, width, 1], array.size)
        self.script.keep(array)

    def cleared(self, array: DeviceArray, packed: Packed) -> DeviceArray:
        """Make the rows of an array zero whose gradient is cut after their last step."""
        self._rows("clear", array, [packed.cut_end, array.address])
        return array

    def held(self, array: DeviceArray, mask: DeviceArray) -> None:
        """Let masked steps of an array (batch, time, ...) repeat the last valid one."""
        self._rows("hold", array, [array.address, mask.address], array.shape[1])

    def collected(self, array: DeviceArray, mask: DeviceArray) -> DeviceArray:
        target = self.new(array.shape, array.dtype)
        self._rows("collect", array, [array.address, mask.address, target.address], array.shape[1])
        return target

    def flowing(self, d: DeviceArray | None, value: DeviceArray) -> DeviceArray:
        """Return the gradient of a value as kernels read it; zeros for None."""
        if d is None:
            d = self.new(value.shape, self.special.dtype)
            self.script.fill(d.address, d.nbytes)
        return self.plain(d, "float")

    def finish(self, allocate: Callable[[int, int], Any]) -> None:
        head, _ = self.script.run(self.engine.device, allocate, self.stream)
        self.engine.done(head, self.script, self.stream)

    def _rows(self, name: str, array: DeviceArray, table: list[Where], time: int = 1) -> None:
        rows = array.shape[0]
        width = array.size // max(1, rows * time)
        self._launch(self.helpers.rows(name, _kind(array.dtype)), table, [rows, width, time], rows * width)
        self.script.keep(array)

    def _launch(
        self, kernel: Loaded, table: list[Where], numbers: list[int], elements: int, other: int | None = None
    ) -> None:  # fmt: skip
        blocks = max(1, min(-(-elements // ELEMENTS_A_BLOCK), 1024))
        words = self.script.table(table), self.script.table([*numbers, *[0] * (16 - len(numbers))])
        self.script.launch(kernel, blocks, *words, other=other)


def _kind(dtype: np.dtype[Any]) -> str:
    """Return what kernels call a dtype: "float", "int" or "bool"."""
    if dtype == np.uint8 or dtype.kind == "b":
        return "bool"
    return "float" if dtype.kind == "f" else "int"
