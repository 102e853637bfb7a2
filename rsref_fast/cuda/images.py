"""Kernels as machine code for an architecture: from the cache, or compiled and then kept there.

A process that finds all its kernels in the cache never imports Numba.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rsref_fast.cpu import cache as disk
from rsref_fast.cuda.tile import Tile


@dataclass(frozen=True)
class Image:
    """A kernel's machine code, its name in it, and whether all threads of the grid meet in it."""

    code: bytes
    name: str
    cooperative: bool


PACKAGES = ("numba-cuda", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink", "cuda-bindings")


@cache
def versions() -> str:
    """Return what an image depends on besides its source."""
    own = disk.key_of("".join(p.read_text() for p in sorted(Path(__file__).parents[1].rglob("*.py"))))
    return " ".join([own, *(f"{name} {_version(name)}" for name in PACKAGES)])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # NVVM of a toolkit that the system has
        return "none"


def image_of(
    text: str, entry: str, dtype: np.dtype[Any], tile: Tile, team: str, capability: tuple[int, int]
) -> Image:  # fmt: skip
    """Return one entry of a generated module as an image for a GPU of some compute capability.

    Errors: ImportError, saying what to install, without numba-cuda.
    """
    arch = f"sm_{capability[0]}{capability[1]}"

    def build() -> tuple[bytes, str]:
        from rsref_fast.cuda.build import kernel
        from rsref_fast.cuda.linking import link

        made = kernel(text, entry, dtype, tile, team)
        return link(
            made.ptx(capability), made.name, arch, made.cooperative
        ).image, f"{int(made.cooperative)}{made.name}"

    key = disk.key_of(text, entry, dtype.name, astuple(tile), team, arch, versions())
    code, symbol = disk.fetch(key, text, build)
    return Image(code, symbol[1:], symbol[0] == "1")
