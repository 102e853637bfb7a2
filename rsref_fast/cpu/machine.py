"""What a compiled piece depends on besides its source."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from pathlib import Path

from rsref_fast.cpu import cache as disk
from rsref_fast.cpu import objects


@cache
def versions() -> str:
    """Return what a compiled piece depends on besides its source: our code, the compiler, the processor."""
    own = disk.key_of("".join(p.read_text() for p in sorted(Path(__file__).parent.glob("*.py"))))
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]
    return " ".join([own, *packages, objects.processor(), objects.features()])
