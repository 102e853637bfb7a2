"""From PTX to what a GPU runs, by nvJitLink, with no GPU; and what became of registers and shared memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cuda.bindings import nvjitlink

from rsref_fast.cuda import gate

RESERVED = {"sm_90": 1024}
"""Bytes of shared memory that the linker counts as a kernel's, though the driver has them: elsewhere it does not."""


@dataclass(frozen=True)
class Report:
    """What a kernel needs: registers a thread, bytes of shared memory a block; bytes spilled, and of its stack."""

    registers: int
    shared: int
    spilled: int
    stack: int


@dataclass(frozen=True)
class Linked:
    """A kernel's machine code for one architecture, and the linker's account of it."""

    image: bytes
    report: Report


def link(ptx: str, name: str, arch: str, cooperative: bool) -> Linked:
    """Return a kernel's machine code. arch: "sm_90". cooperative: whether blocks wait for each other in it."""
    options = [f"-arch={arch}", "-O3", "-verbose"]
    handle = nvjitlink.create(len(options), options)
    try:
        for text, file in [(ptx, "kernel.ptx"), *([(gate.PTX, "gate.ptx")] if cooperative else [])]:
            nvjitlink.add_data(handle, nvjitlink.InputType.PTX, text.encode(), len(text.encode()), file)
        nvjitlink.complete(handle)
        image = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, image)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
    finally:
        nvjitlink.destroy(handle)
    return Linked(bytes(image), _report(log.decode(errors="replace"), name, RESERVED.get(arch, 0)))


def _report(log: str, name: str, reserved: int) -> Report:
    """Read the linker's account of a kernel, with all that it calls, and ptxas's of what was spilled anywhere in it."""
    own = rf"Function properties for '{re.escape(name)}':\n[^\n]*used (\d+) registers[^\n]*? (\d+) stack"
    found = re.search(rf"{own}, (\d+) bytes smem", log) or re.search(rf"{own}()", log)
    if found is None:
        raise RuntimeError(f"nvJitLink says nothing of the kernel {name}")
    spilled = re.findall(r"^ptxas[^\n]*?(\d+) bytes spill stores, (\d+) bytes spill loads", log, re.M)
    shared = max(0, int(found[3] or 0) - reserved)
    return Report(int(found[1]), shared, sum(int(n) for pair in spilled for n in pair), int(found[2]))
