"""The function that XLA calls where its arrays are on a GPU, by its foreign function interface.

It is Python's (a call of an engine is some launches, each of Python's), but it waits for nothing: it puts a call into
XLA's stream and returns. XLA's structures are read as 64-bit words; see xla/ffi/api/c_api.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

FRAME_API, FRAME_CONTEXT, ARGUMENTS, RESULTS, ATTRIBUTES = 2, 3, (7, 9), (12, 14), 20
"""Words of a call frame: its functions, its context, number and array of arguments and results, and the attributes."""

API_ERROR_CREATE, API_STREAM_GET = 6, 10
METADATA, INTERNAL = 1, 13
"""XLA's numbers for an extension that asks for metadata, and for an error that is nobody's fault but ours."""

BUFFER_DATA = 3

Run = Callable[[Sequence[int], Sequence[int], int], None]
"""What is called with the addresses of arguments and results, and the stream."""

_runs: list[Run] = []


class _Metadata(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("api_size", ctypes.c_size_t), ("extension", ctypes.c_void_p),
        ("major", ctypes.c_int32), ("minor", ctypes.c_int32), ("traits", ctypes.c_uint32),
    ]  # fmt: skip


class _Error(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("message", ctypes.c_char_p), ("code", ctypes.c_int),
    ]  # fmt: skip


class _Stream(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("context", ctypes.c_void_p),
        ("stream", ctypes.c_void_p),
    ]  # fmt: skip


_CREATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Error))
_GET = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Stream))
_HANDLER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


def number_of(run: Run) -> int:
    """Return the number by which a handler finds what it is to call: the attribute `run`. It is kept for good."""
    _runs.append(run)
    return len(_runs) - 1


def handler(api_minor: int, streams: bool = True) -> Any:
    """Return a handler for XLA. streams: whether the platform has any; the host has not."""

    def handle(address: int) -> int | None:
        frame = _words(address)
        if frame[1] and _halves(frame[1])[2] == METADATA:
            found = _Metadata.from_address(_words(frame[1])[3])
            found.major, found.minor, found.traits = 0, api_minor, 0
            return None
        try:
            stream = 0
            if streams:
                asked = _Stream(ctypes.sizeof(_Stream), None, frame[FRAME_CONTEXT], None)
                error = _GET(_words(frame[FRAME_API])[API_STREAM_GET])(ctypes.byref(asked))
                if error:
                    return int(error)
                stream = asked.stream or 0
            number = _words(_words(_words(frame[ATTRIBUTES])[0])[1])[0]
            given, answers = ([_words(one)[BUFFER_DATA] for one in _all(frame, *ends)] for ends in (ARGUMENTS, RESULTS))
            _runs[number](given, answers, stream)
        except BaseException as error:  # XLA's own: none may go through C
            said = _Error(ctypes.sizeof(_Error), None, f"{type(error).__name__}: {error}".encode(), INTERNAL)
            return int(_CREATE(_words(frame[FRAME_API])[API_ERROR_CREATE])(ctypes.byref(said)) or 0)
        return None

    return _HANDLER(handle)


def _words(address: int) -> Any:
    return ctypes.cast(address, ctypes.POINTER(ctypes.c_uint64))


def _halves(address: int) -> Any:
    return ctypes.cast(address, ctypes.POINTER(ctypes.c_int32))


def _all(frame: Any, count: int, place: int) -> list[int]:
    return [_words(frame[place])[i] for i in range(frame[count])]
