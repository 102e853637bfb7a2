"""Kernels for CUDA on JAX, where arrays are on a GPU: in XLA's memory, in the order of its stream.

XLA calls Python, which puts launches into the stream and waits for nothing. What forward keeps for backward is one more
result, so a call is a pure function: under `jit`, `grad`, `scan` and `checkpoint` as well.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rsref.recurrence import Recurrence
from rsref_fast import rows as kinds
from rsref_fast.cpu.plan import Plan
from rsref_fast.cuda import xla
from rsref_fast.cuda.arrays import DeviceArray
from rsref_fast.cuda.engine import CudaEngine
from rsref_fast.cuda.masks import Rows
from rsref_fast.cuda.passes import Tape, backward_pass, begin, forward_pass
from rsref_fast.cuda.script import Script

TARGET = "rsref_fast_cuda"
HALVES = (jnp.float16, jnp.bfloat16)
_handlers: list[Any] = []


@cache
def register(platform: str = "CUDA") -> None:
    """Let XLA call the engines of a platform. Errors: ImportError if this JAX says nothing of its interface."""
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    minor = re.search(r"XLA_FFI_API_MINOR (\d+)", header.read_text()) if header.exists() else None
    if minor is None:
        raise ImportError(f"JAX has no {header}: kernels for CUDA cannot be called")
    _handlers.append(xla.handler(int(minor[1]), streams=platform != "cpu"))
    capsule = jax.ffi.pycapsule(ctypes.cast(_handlers[-1], ctypes.c_void_p))
    jax.ffi.register_ffi_target(TARGET, capsule, platform=platform, api_version=1)


def check(recurrence: Recurrence) -> None:
    """See that a step can be run. Errors: NotImplementedError, saying why not."""
    graph = recurrence.graph
    found = kinds.rows_of([*graph.outputs, *graph.new_states])
    if {kinds.Rows.MIXED, kinds.Rows.SUM} & {*found.values()}:
        raise NotImplementedError("a step that mixes samples, which a mask may be given to, is not run on JAX on a GPU")
    for name, tensors in (("state", graph.states), ("output", graph.outputs)):
        for i, tensor in enumerate(tensors):
            if tensor.dtype != "float":
                raise NotImplementedError(f"{name} {i} is of {tensor.dtype}s, which JAX on a GPU has in other sizes")


class _Call:
    """Calls of one engine for some shapes. dtype: of all floats. Values: sequences, constants, states, parameters."""

    def __init__(self, engine: CudaEngine, groups: list[list[Any]], batch: int, steps: int, mask: Any, dtype: Any):
        self.engine, self.batch, self.steps, self.masked = engine, batch, steps, mask is not None
        self.counts = [len(group) for group in groups]
        self.values = [(v.shape, np.dtype(v.dtype)) for group in groups for v in group]
        self.floats = [dtype.kind == "f" for _, dtype in self.values]
        likes = [[np.broadcast_to(np.zeros((), v.dtype), v.shape) for v in group] for group in groups]
        like = None if mask is None else np.broadcast_to(np.zeros((), bool), mask.shape)
        specs = engine.reference.check(likes[0], likes[1], likes[2], likes[3], like, steps, batch)
        shapes = [v.shape[:1] + v.shape[2:] for v in groups[0]] + [v.shape for g in groups[1:3] for v in g]
        self.special = engine.specialised(shapes, dtype)
        self.choice = engine.choice or engine.chosen(self.special.compiled, batch)
        self.outputs = [(batch, steps, *shape[1:]) for shape, _ in specs]
        self.finals = [v.shape for v in groups[2]]

    def plan(self, kind: str) -> Plan:
        packed: Any = True if self.masked else None  # what the deal of rows asks
        return self.engine.plan(Tape(self.special, [], [], self.choice, 0, packed), kind, self.batch, self.steps)

    def asked(self, kind: str, given: Sequence[Any]) -> list[Any]:
        """Return the results of a program; the last one of forward is what it keeps."""
        dtype, plan = self.special.dtype, self.plan(kind)
        results = [jax.ShapeDtypeStruct(shape, dtype) for shape in (*self.outputs, *self.finals)]
        if kind == "backward":
            results = [jax.ShapeDtypeStruct(v[0], dtype) for v, f in zip(self.values, self.floats) if f]
        else:
            results.append(jax.ShapeDtypeStruct((max(1, plan.tape),), jnp.uint8))
        results.append(jax.ShapeDtypeStruct((max(1, plan.scratch),), jnp.uint8))
        number = np.int64(xla.number_of(self.backward if kind == "backward" else self.forward_of(kind)))
        return list(jax.ffi.ffi_call(TARGET, results, vmap_method="sequential")(*given, run=number))[:-1]

    def begin(self, given: Sequence[int], stream: int) -> tuple[Rows, Tape, list[int]]:
        """Return rows and a tape for a call's arguments, and the addresses that are left."""
        rows, arrays = Rows(self.engine, Script(), self.special, stream), iter(given)
        values = iter(self.values)
        groups = [[self.array(next(arrays), *next(values), stream) for _ in range(count)] for count in self.counts]
        mask = self.array(next(arrays), (self.batch, self.steps), np.dtype(bool), stream) if self.masked else None
        return rows, begin(self.engine, rows, groups, mask, self.choice), list(arrays)

    def array(self, address: int, shape: tuple[int, ...], dtype: Any, stream: int) -> DeviceArray:
        return DeviceArray(address, shape, dtype, None, stream)

    def floating(self, addresses: Sequence[int], shapes: Sequence[tuple[int, ...]], stream: int) -> list[DeviceArray]:
        return [self.array(a, shape, self.special.dtype, stream) for a, shape in zip(addresses, shapes, strict=True)]

    def forward_of(self, kind: str) -> xla.Run:
        def run(given: Sequence[int], answers: Sequence[int], stream: int) -> None:
            with self.engine.alone():
                rows, tape, _ = self.begin(given, stream)
                *answers, kept, scratch = answers
                found = self.floating(answers, [*self.outputs, *self.finals], stream)
                tape.outputs, tape.kept, tape.scratch = found[: len(self.outputs)], _bytes(kept), _bytes(scratch)
                forward_pass(self.engine, rows, tape, self.plan(kind), found[len(self.outputs) :])
                rows.finish(self.engine.allocate)

        return run

    def backward(self, given: Sequence[int], answers: Sequence[int], stream: int) -> None:
        with self.engine.alone():
            rows, tape, (kept, *gradients) = self.begin(given, stream)
            *answers, scratch = answers
            tape.kept, tape.scratch = _bytes(kept), _bytes(scratch)
            d = self.floating(gradients, [*self.outputs, *self.finals], stream)
            shapes = [v[0] for v, f in zip(self.values, self.floats) if f]
            found = iter(self.floating(answers, shapes, stream))
            flags = iter(self.floats)
            groups = [[next(found) if next(flags) else None for _ in range(count)] for count in self.counts]
            ends = d[len(self.outputs) :]
            backward_pass(self.engine, rows, tape, self.plan("backward"), d[: len(self.outputs)], ends, groups)
            rows.finish(self.engine.allocate)


def _bytes(address: int) -> DeviceArray:
    return DeviceArray(address, (), np.dtype(np.uint8), None)


def call(engine: CudaEngine, groups: list[list[Any]], batch: int, steps: int, mask: Any = None) -> list[Any]:
    """Return outputs and final states, differentiable. groups: sequences, constants, states and parameters.

    Half precision is computed in float32, and answered as it came. Errors: NotImplementedError for what `check`
    refuses.
    """
    check(engine.recurrence)
    floats = [v.dtype for group in groups for v in group if jnp.issubdtype(v.dtype, jnp.floating)]
    half = next((dtype for dtype in floats if dtype in HALVES), None)
    dtype = np.dtype(np.float64 if any(d == jnp.float64 for d in floats) else np.float32)
    full = [
        [v.astype(dtype) if jnp.issubdtype(v.dtype, jnp.floating) else v for v in map(jnp.asarray, group)]
        for group in groups
    ]  # fmt: skip
    own = _Call(engine, full, batch, steps, mask, dtype)
    values = [v for group in full for v in group] + ([] if mask is None else [jnp.asarray(mask, bool)])

    @jax.custom_vjp
    def run(*given: Any) -> Any:
        return tuple(own.asked("inference", given)[:-1])

    def run_forward(*given: Any) -> Any:
        *found, tape = own.asked("forward", given)
        return tuple(found), (given, tape)

    def run_backward(kept: Any, gradients: Any) -> Any:
        given, tape = kept
        found = iter(own.asked("backward", (*given, tape, *gradients)))
        flags = [*own.floats, *[False] * (len(given) - len(own.floats))]
        return tuple(next(found) if f else np.zeros(v.shape, jax.dtypes.float0) for v, f in zip(given, flags))

    run.defvjp(run_forward, run_backward)
    answers = list(run(*values))
    return answers if half is None else [a.astype(half) for a in answers]
