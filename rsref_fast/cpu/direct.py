"""A step of a stream that Python calls without its interpreter (`direct_native`): it costs little beside the work."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from rsref_fast.cpu import cache as disk
from rsref_fast.cpu import crew, objects
from rsref_fast.cpu.machine import versions
from rsref_fast.cpu.memory import address_of, behind_address

Array = np.ndarray
Step = Callable[..., "list[Array] | None"]
FASTCALL = 0x80
"""METH_FASTCALL: a function is given its object, the address of its arguments, and their number."""

NAMES = (
    "PyEval_SaveThread", "PyEval_RestoreThread", "PyList_New", "PyList_SetItem", "PyObject_CallNoArgs", "Py_IncRef",
    "Py_DecRef",
)  # fmt: skip


class Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("text", ctypes.c_char_p),
    )  # fmt: skip


def direct_step(
    alone: crew.Repeated, close: crew.Repeated, within: float, inputs: Sequence[Array], outputs: Sequence[Array]
) -> Step:
    """Return a function that copies its arguments to the inputs, runs a plan, and answers copies of the outputs.

    It answers None if they are not arrays just like the inputs, or the plan cannot be run.
    close: what runs a step that begins less than `within` seconds after the last one.
    """
    ways, copies = (alone, close), [y.copy for y in outputs]
    desk = [
        *(way.plan.address for way in ways), *(ctypes.addressof(way.where) for way in ways), 0,
        0 if alone is close else int(within * 1e9), len(inputs), len(outputs), id(Array), id(None), 0, 0, 0, 0, 0, 0,
    ]  # fmt: skip
    for x in inputs:
        axes, lengths, *_, kind, _ = behind_address(x)
        desk += [address_of(x), x.nbytes, kind, axes, lengths]
    held = np.array([*desk, *map(id, copies)], np.int64)
    step: Step = _new_function()(ctypes.addressof(_method()), held, (ways, inputs, copies))
    return step


@cache
def _new_function() -> Callable[[int, Array, object], Step]:
    """Return Python's own function that makes one of a PyMethodDef; its last argument is kept as long as that lives."""
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
    found: Callable[[int, Array, object], Step] = kind(("PyCFunction_NewEx", ctypes.pythonapi))
    return found


@cache
def _method() -> Method:
    crew.runners()
    for name in NAMES:
        objects.publish(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0)

    def build() -> tuple[bytes, str]:
        from rsref_fast.cpu import direct_native

        return direct_native.direct()

    found = disk.fetch(disk.key_of("direct", versions()), "", build)
    return Method(b"step", objects.c_entry(objects.load(*found), "i64 %0, i64 %1, i64 %2"), FASTCALL, None)
