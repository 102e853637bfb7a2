"""The functions of one program on a device, each compiled and loaded when it is first needed."""

from __future__ import annotations

from dataclasses import astuple
from functools import cached_property
from typing import Any

import numpy as np

from rsref_fast.cpu.cache import key_of
from rsref_fast.cpu.kernels import Kernels
from rsref_fast.cpu.source import Source
from rsref_fast.cpu.target import Target
from rsref_fast.cuda import helpers, images
from rsref_fast.cuda.alternating import Pieces, cut
from rsref_fast.cuda.choice import ROWS
from rsref_fast.cuda.driver import Device
from rsref_fast.cuda.holding import bytes_of
from rsref_fast.cuda.products import Finder
from rsref_fast.cuda.script import Loaded
from rsref_fast.cuda.target import CUDA
from rsref_fast.cuda.tile import USUAL, Tile

POINTERS = {"float": "floats", "int": "ints", "bool": "bytes_"}


class DeviceKernels(Kernels):
    """Kernels of one program. `on` makes a class of them for a device."""

    target: Target = CUDA
    block_rows = ROWS
    device: Device
    tile: Tile = USUAL

    def __init__(self, source: Source, dtype: np.dtype[Any]):
        super().__init__(source, dtype)
        self._loaded: dict[tuple[str, str], Loaded] = {}

    @classmethod
    def panel_width(cls, dtype: np.dtype[Any]) -> int:
        return cls.tile.columns

    def entry(self, name: str, team: str = "grid", blocks: int = 0) -> Loaded:
        """Return an entry's kernel. team: what shares a shard's memory. blocks: how many hold weights, if any do."""
        team = "grid" if team == "units" else team
        shared = self.shared_bytes(blocks) if blocks and name == "shard" else 0
        key = name, f"{team} {shared}"
        if key not in self._loaded:
            self._loaded[key] = load(self.device, self.source.text, name, self.dtype, self.tile, team, shared)
        return self._loaded[key]

    def shared_bytes(self, blocks: int) -> int:
        """Return how much memory each of so many blocks needs for what it holds."""
        return bytes_of(self.source.held, self.tile, self.dtype.itemsize, blocks)

    @cached_property
    def pieces(self) -> Pieces:
        """The program cut into launches."""
        return cut(self.source.text, self.source.backward)

    @cached_property
    def apart(self) -> Pieces:
        """The program cut into launches, of which each product is one."""
        return cut(self.source.text, self.source.backward, apart=True)

    @cached_property
    def looped(self) -> Pieces:
        """The program cut into launches: a block's steps are one, and each product outside of them."""
        return cut(self.source.text, self.source.backward, apart=True, whole=True)

    @cached_property
    def finder(self) -> Finder:
        return Finder(self.apart.text)

    @cached_property
    def looped_finder(self) -> Finder:
        return Finder(self.looped.text)

    def piece(self, pieces: Pieces, name: str, blocks: int = 0) -> Loaded:
        """Return a piece's kernel, or another entry of its text. blocks: how many hold weights, if any do."""
        shared = self.shared_bytes(blocks) if blocks and name == "loop" and self.source.held else 0
        key = name, f"{pieces.how} {shared}"
        if key not in self._loaded:
            self._loaded[key] = load(self.device, pieces.text, name, self.dtype, self.tile, shared=shared)
        return self._loaded[key]


def on(device: Device, tile: Tile = USUAL, target: Target = CUDA, rows: int = ROWS) -> type[DeviceKernels]:
    """Return the class of kernels for a device."""
    own = {"device": device, "tile": tile, "block_rows": rows, "target": target}
    return type("DeviceKernels", (DeviceKernels,), own)


def load(
    device: Device, text: str, entry: str, dtype: np.dtype[Any], tile: Tile, team: str = "grid", shared: int = 0
) -> Loaded:  # fmt: skip
    """Return an entry of a module, compiled for a device and loaded. shared: bytes of memory that launches give it.

    All engines have the same one, which stays as long as the process: nobody knows when the device is done with it.
    """
    key = key_of(text, entry, dtype.name, astuple(tile), team, shared)
    if key not in device.loaded:
        image = images.image_of(text, entry, dtype, tile, team, device.capability)
        handle = device.load(image.code, image.name, shared)
        at_once = device.blocks_at_once(handle, tile.threads, shared)
        device.loaded[key] = Loaded(handle, tile.threads, image.cooperative, at_once, shared)
    return device.loaded[key]


class Helpers:
    """The small kernels around programs, for a device and a precision."""

    def __init__(self, device: Device, dtype: np.dtype[Any], tile: Tile):
        self.device, self.dtype, self.tile = device, dtype, tile
        self._loaded: dict[tuple[str, ...], Loaded] = {}

    def _entry(self, text: str, name: str, *key: str) -> Loaded:
        if (name, *key) not in self._loaded:
            self._loaded[name, *key] = load(self.device, text, name, self.dtype, self.tile)
        return self._loaded[name, *key]

    def packing(self, name: str) -> Loaded:
        return self._entry(helpers.PACK, name)

    def pointing(self) -> Loaded:
        """Return the kernel that makes the library's pointers of the words of a graph."""
        return self._entry(helpers.POINTERS, "pointers")

    def rows(self, name: str, kind: str) -> Loaded:
        """Return a kernel on rows of a kind of numbers: reorder, restore, clear, hold or collect."""
        return self._entry(helpers.ROWS.format(pointer=POINTERS[kind]), name, kind)

    def conversion(self, source: np.dtype[Any], kind: str) -> Loaded:
        """Return the kernel that makes numbers of a type, however strided, a row-major array of a kind."""
        code = source.str[1:]
        text = helpers.CONVERT.format(source=f"pointer_{code}", pointer=POINTERS[kind], cast=helpers.CASTS[kind])
        return self._entry(text, "convert", code, kind)
