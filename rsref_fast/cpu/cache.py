"""Compiled kernels on disk, in the platform's user cache folder: safe between processes, bounded, checked when read.

A file is written aside and moved into place at once, so that whoever reads it sees all of it or nothing; it begins
with a checksum of the rest, so that a damaged one counts as missing. The generated source lies beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

VARIABLE = "RSREF_FAST_CACHE"
LIMIT = 256 * 1024 * 1024
"""Bytes that our files may take; beyond it those that were used longest ago go."""

OURS = re.compile(r"[0-9a-f]{40}(\.o|\.py|.*\.tmp)")
"""Names of our files: the folder that a user names may hold others."""

MAGIC = b"rsref_fast object 1\n"


def folder() -> Path:
    """Return the cache folder, made if it is not there, for the user alone.

    The environment variable RSREF_FAST_CACHE names another one.
    """
    path = Path(os.environ.get(VARIABLE) or platformdirs.user_cache_path("rsref_fast", appauthor=False)).expanduser()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def key_of(source: str, *also: Any) -> str:
    """Return the name of a compiled piece: a hash of its source and of all else that decides what it becomes."""
    return hashlib.sha256(json.dumps([source, *map(str, also)]).encode()).hexdigest()[:40]


def fetch(key: str, source: str, build: Callable[[], tuple[bytes, str]]) -> tuple[bytes, str]:
    """Return an object file and the name of its function: from the cache, or built and then kept there."""
    try:
        path = folder() / f"{key}.o"
    except (OSError, RuntimeError):  # no folder can be made, or nobody knows where: every process compiles for itself
        return build()
    found = _read(path)
    if found is None:
        found = build()
        _write(path, found)
        if source:
            _put(path.with_suffix(".py"), source.encode())
        with suppress(OSError):  # another process may remove the folder
            _trim(path.parent)
    return found


def _read(path: Path) -> tuple[bytes, str] | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):  # another user's folder, or a read-only one
        os.utime(path)
    head, rest = content[: len(MAGIC) + 32], content[len(MAGIC) + 32 :]
    if not head.startswith(MAGIC) or hashlib.sha256(rest).digest() != head[len(MAGIC) :]:
        return None
    symbol, _, code = rest.partition(b"\n")
    return code, symbol.decode()


def _write(path: Path, found: tuple[bytes, str]) -> None:
    rest = found[1].encode() + b"\n" + found[0]
    _put(path, MAGIC + hashlib.sha256(rest).digest() + rest)


def _put(path: Path, content: bytes) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    except OSError:  # a folder that can only be read: the kernels work without a cache
        return
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except OSError:  # a full disk
        with suppress(OSError):
            os.unlink(name)


def _trim(path: Path) -> None:
    """Remove those of our files that were used longest ago until the rest is within its limit."""
    files = []
    for file in filter(lambda file: OURS.fullmatch(file.name), path.iterdir()):
        try:
            status = file.stat()
            files.append((status.st_mtime, status.st_size, file))
        except OSError:
            continue
    total = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total <= LIMIT:
            return
        try:
            file.unlink()
            total -= size
        except OSError:
            continue
