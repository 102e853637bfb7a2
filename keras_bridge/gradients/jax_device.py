"""Kernels for CUDA on JAX, where arrays are on a GPU: in XLA's memory, in the order of its stream.

XLA calls Python, which puts launches into the stream and waits for nothing. What forward keeps for backward is one more
result, so a call is a pure function: under `jit`, `grad`, `scan` and `checkpoint` as well.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from keras_bridge.gradients.jax_once import once
from keras_bridge.gradients.jax_parts import in_parts
from keras_bridge.gradients.jax_words import memory, read
from rsref_fast.compiling import shapes_of
from rsref_fast.cpu.plan import Plan
from rsref_fast.cpu.specialised import Specialised
from rsref_fast.cuda import xla
from rsref_fast.cuda.arrays import DeviceArray
from rsref_fast.cuda.engine import CudaEngine
from rsref_fast.cuda.masks import Rows
from rsref_fast.cuda.passes import Tape, backward_pass, begin, forward_pass
from rsref_fast.cuda.script import Address, Piece, Script, Where

TARGET = "rsref_fast_cuda"
Groups = list[list[Any]]
_handlers: list[Any] = []
_calls: dict[Any, _Call] = {}
"""All calls there have been, by what they depend on: what XLA has compiled names them, and nobody says when it goes."""


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


class _Call:
    """Calls of one engine for some shapes, in XLA's memory.

    dtype: of all floats. values: shape, and whether it is floating, of sequences, constants, states and parameters.
    answers: shape and kind of outputs and final states.
    """

    def __init__(
        self, engine: CudaEngine, special: Specialised, groups: Groups, batch: int, steps: int, masked: bool
    ):  # fmt: skip
        self.engine, self.batch, self.steps, self.masked = engine, batch, steps, masked
        self.scripts: dict[tuple[str, int], Script] = {}
        """What was planned, by program and stream."""
        self.numbers: dict[str, int] = {}
        """By which XLA finds a program's runs."""
        self.counts = [len(group) for group in groups]
        self.values = [(v.shape, np.dtype(v.dtype)) for group in groups for v in group]
        self.floats = [dtype.kind == "f" for _, dtype in self.values]
        self.choice = engine.choice or engine.chosen(special, special.samples(batch), masked)
        self.special = engine.of_team(special, self.choice)
        graph = engine.recurrence.graph
        likes = [[np.broadcast_to(np.zeros((), v.dtype), v.shape) for v in group] for group in groups]
        like = np.broadcast_to(np.zeros((), bool), (batch, steps)) if masked else None
        specs = engine.reference.check(likes[0], likes[1], likes[2], likes[3], like, steps, batch)
        self.answers = [((batch, steps, *shape[1:]), kind) for shape, kind in specs]
        self.answers += [(v.shape, state.dtype) for v, state in zip(groups[2], graph.states)]

    def plan(self, kind: str) -> Plan:
        packed: Any = True if self.masked else None  # what the deal of rows asks
        return self.engine.plan(Tape(self.special, [], [], self.choice, 0, packed), kind, self.batch, self.steps)

    def sizes(self, kind: str) -> tuple[int, int]:
        """Return how many bytes a program keeps for backward, and how many it needs while it runs."""
        plan = self.plan(kind)
        return plan.tape, plan.scratch

    def asked(self, kind: str, given: Sequence[Any]) -> list[Any]:
        """Return the results of a program; the last one of forward is what it keeps."""
        dtype, (tape, scratch) = self.special.dtype, self.sizes(kind)
        if kind == "backward":
            results = [jax.ShapeDtypeStruct(v[0], dtype) for v, f in zip(self.values, self.floats) if f]
        else:
            results = [memory(shape, own, dtype) for shape, own in self.answers]
            results.append(jax.ShapeDtypeStruct((max(1, tape),), jnp.uint8))
        results.append(jax.ShapeDtypeStruct((max(1, scratch),), jnp.uint8))
        if kind not in self.numbers:
            self.numbers[kind] = xla.number_of(self.backward if kind == "backward" else self.forward_of(kind))
        number = np.int64(self.numbers[kind])
        call = once(lambda *given: jax.ffi.ffi_call(TARGET, results, vmap_method="sequential")(*given, run=number))
        return list(call(*given))[:-1]

    def forward_of(self, kind: str) -> xla.Run:
        def run(given: Sequence[int], answers: Sequence[int], stream: int) -> None:
            self.run(kind, given, answers, stream, lambda own, found: self.planned(kind, own, found, stream))

        return run

    def backward(self, given: Sequence[int], answers: Sequence[int], stream: int) -> None:
        self.run("backward", given, answers, stream, lambda own, found: self.planned_back(own, found, stream))

    def run(
        self, kind: str, given: Sequence[int], answers: Sequence[int], stream: int,
        plan: Callable[[Sequence[Address], Sequence[Address]], Script],
    ) -> None:  # fmt: skip
        """Run a program in a stream; it is planned the first time, for memory that is elsewhere in each call."""
        addresses = [*given, *answers]
        with self.engine.alone():
            if (kind, stream) not in self.scripts:
                pieces = [Address(i) for i in range(len(addresses))]
                self.scripts[kind, stream] = plan(pieces[: len(given)], pieces[len(given) :])
            script = self.scripts[kind, stream]
            head, _ = script.run(self.engine.device, self.engine.allocate, stream, addresses)
            self.engine.done(head, script, stream)

    def planned(self, kind: str, given: Sequence[Address], answers: Sequence[Address], stream: int) -> Script:
        rows, tape, _ = self.begin(given, len(answers), stream)
        *answers, kept, scratch = answers
        found = self.answered(answers, stream)
        count = len(self.engine.recurrence.graph.outputs)
        tape.outputs, tape.kept, tape.scratch = found[:count], Piece(kept), Piece(scratch)
        forward_pass(self.engine, rows, tape, self.plan(kind), found[count:])
        return rows.script

    def planned_back(self, given: Sequence[Address], answers: Sequence[Address], stream: int) -> Script:
        rows, tape, (kept, *gradients) = self.begin(given, len(answers), stream)
        *answers, scratch = answers
        tape.kept, tape.scratch = Piece(kept), Piece(scratch)
        flowing = zip(self.flowing(gradients, stream), self.answers)
        d = [rows.zeros(shape) if own is None else own for own, (shape, _) in flowing]
        count = len(self.engine.recurrence.graph.outputs)
        found = self.wanted(answers, stream)
        backward_pass(self.engine, rows, tape, self.plan("backward"), d[:count], d[count:], found)
        return rows.script

    # --- arrays at addresses --------------------------------------------------------------------------------------

    def given(self, addresses: Sequence[Where], stream: int) -> tuple[list[list[DeviceArray]], Any, list[Any]]:
        """Return the arguments in groups, the mask if there is one, and the addresses that are left."""
        arrays, values = iter(addresses), iter(self.values)
        groups = [[_array(next(arrays), *next(values), stream) for _ in range(count)] for count in self.counts]
        mask = _array(next(arrays), (self.batch, self.steps), np.dtype(bool), stream) if self.masked else None
        return groups, mask, list(arrays)

    def begin(self, given: Sequence[Address], answers: int, stream: int) -> tuple[Rows, Tape, list[Address]]:
        """Return rows and a tape for a call's arguments, and the pieces that are left. answers: how many there are."""
        rows = Rows(self.engine, Script(len(given) + answers), self.special, stream)
        groups, mask, left = self.given(given, stream)
        return rows, begin(self.engine, rows, groups, mask, self.choice), left

    def answered(self, addresses: Sequence[Where], stream: int) -> list[DeviceArray]:
        """Return arrays for outputs and final states."""
        dtypes = [self.special.dtype_of(kind) for _, kind in self.answers]
        return [_array(a, shape, d, stream) for a, (shape, _), d in zip(addresses, self.answers, dtypes, strict=True)]

    def flowing(self, addresses: Sequence[Where], stream: int) -> list[DeviceArray | None]:
        """Return the gradients of outputs and final states; None for those of what is not floating."""
        left = iter(addresses)
        return [
            _array(next(left), shape, self.special.dtype, stream) if kind == "float" else None
            for shape, kind in self.answers
        ]

    def wanted(self, addresses: Sequence[Where], stream: int) -> list[list[DeviceArray | None]]:
        """Return arrays for the gradients of the arguments, in groups; None for what is not floating."""
        left, values = iter(addresses), iter(zip(self.values, self.floats))

        def following() -> DeviceArray | None:
            (shape, _), floating = next(values)
            return _array(next(left), shape, self.special.dtype, stream) if floating else None

        return [[following() for _ in range(count)] for count in self.counts]


class _StepByStep(_Call):
    """Calls of a step that mixes samples, of which a mask leaves some out: the engine's own, and answers are copied.

    How much there is to keep depends on the mask, so forward keeps nothing, and backward runs it again.
    """

    def sizes(self, kind: str) -> tuple[int, int]:
        return 0, 0

    def forward_of(self, kind: str) -> xla.Run:
        def run(given: Sequence[int], answers: Sequence[int], stream: int) -> None:
            with self.engine.alone():
                (outputs, finals, _), _ = self.ran(given, False, stream)
                self.copy([*outputs, *finals], self.answered(answers[:-2], stream), stream)

        return run

    def backward(self, given: Sequence[int], answers: Sequence[int], stream: int) -> None:
        with self.engine.alone():
            (outputs, _, tape), (_, *gradients) = self.ran(given, True, stream)
            d = self.flowing(gradients, stream)
            found = self.engine.backward(tape, d[: len(outputs)], d[len(outputs) :], stream)
            own = [*found.sequences, *found.constants, *found.states, *found.parameters]
            self.copy(own, [d for group in self.wanted(answers[:-1], stream) for d in group], stream)

    def ran(self, addresses: Sequence[int], taped: bool, stream: int) -> tuple[Any, list[int]]:
        """Run the engine; return its answer, and the addresses that are left."""
        (sequences, constants, states, parameters), mask, left = self.given(addresses, stream)
        return self.engine.forward(sequences, constants, states, parameters, mask, self.steps, taped, stream), left

    def copy(self, sources: Sequence[Any], targets: Sequence[DeviceArray | None], stream: int) -> None:
        for source, target in zip(sources, targets, strict=True):
            if target is not None:
                self.engine.device.copy(target.address, source.address, target.nbytes, stream)


def _array(address: Where, shape: tuple[int, ...], dtype: Any, stream: int) -> DeviceArray:
    return DeviceArray(address, shape, dtype, None, stream)


def _call_of(
    engine: CudaEngine, special: Specialised, groups: Groups, batch: int, steps: int, masked: bool
) -> _Call:  # fmt: skip
    """Return the call of these sizes, the same each time, so that JAX finds what it has compiled for it."""
    kinds = tuple(tuple((v.shape, np.dtype(v.dtype)) for v in group) for group in groups)
    key = engine, engine.strategy, engine.products, engine.choice, kinds, batch, steps, masked
    if key not in _calls:
        kind = _StepByStep if masked and special.compiled.mixes else _Call
        _calls[key] = kind(engine, special, groups, batch, steps, masked)
    return _calls[key]


def _read_by_kernels(value: Any, dtype: Any) -> Any:
    """Return an array of numbers that kernels read. dtype: of all floats."""
    if jnp.issubdtype(value.dtype, jnp.floating):
        return value.astype(dtype)
    return value.astype(jnp.int64) if value.dtype == jnp.uint64 else value


def call(
    engine: CudaEngine, groups: Groups, dtypes: Sequence[Any], batch: int, steps: int, mask: Any = None,
    least: Any = np.float32,
) -> list[Any]:  # fmt: skip
    """Return outputs and final states, differentiable. groups: sequences, constants, states and parameters.

    dtypes: of the answers. Half precision is computed in float32. least: in which floats are computed at least.
    """
    floats = [least, *(v.dtype for group in groups for v in group if jnp.issubdtype(v.dtype, jnp.floating))]
    dtype = np.dtype(np.float64 if any(d == jnp.float64 for d in floats) else np.float32)
    if engine.parted is not None:
        found = in_parts(call, engine.parted, groups, dtypes, batch, steps, mask, dtype)
        assert found is not None
        return found
    full = [[_read_by_kernels(jnp.asarray(v), dtype) for v in group] for group in groups]
    special = engine.specialised(shapes_of(*full[:3]), dtype)
    own = _call_of(engine, special, full, batch, steps, mask is not None)
    values = [v for group in full for v in group] + ([] if mask is None else [jnp.asarray(mask, bool)])

    @jax.custom_vjp
    def run(*given: Any) -> Any:
        return tuple(own.asked("inference", given)[:-1])

    def run_forward(*given: Any) -> Any:
        *found, tape = own.asked("forward", given)
        return tuple(found), (given, tape)

    def run_backward(kept: Any, gradients: Any) -> Any:
        given, tape = kept
        special.compiled.derivative.check(gradients)
        flowing = [g for g, (_, kind) in zip(gradients, own.answers) if kind == "float"]
        found = iter(own.asked("backward", (*given, tape, *flowing)))
        flags = [*own.floats, *[False] * (len(given) - len(own.floats))]
        return tuple(next(found) if f else np.zeros(v.shape, jax.dtypes.float0) for v, f in zip(given, flags))

    run.defvjp(run_forward, run_backward)
    return [read(y, kind, dtype) for y, (_, kind), dtype in zip(run(*values), own.answers, dtypes, strict=True)]
