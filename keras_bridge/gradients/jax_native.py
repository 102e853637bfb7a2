"""Compiled kernels on JAX with no Python in the call: through XLA's foreign function interface.

Used where all is known beforehand: floats of one precision, batch and steps fixed, as they are inside `jit`. What
forward keeps for backward is one more result; what a mask says is two more arguments.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from keras_bridge.gradients.jax_masks import Packed, held, packed, restored

TARGET = "rsref_fast_run"
_kept: list[Any] = []
"""Plans whose addresses stand in what XLA has compiled."""


@cache
def _registered() -> bool:
    """Register the handler; whether that was possible."""
    import ctypes

    from rsref_fast.cpu import crew

    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    minor = re.search(r"XLA_FFI_API_MINOR (\d+)", header.read_text()) if header.exists() else None
    if minor is None:
        return False
    capsule = jax.ffi.pycapsule(ctypes.c_void_p(crew.xla_handler(int(minor[1]))))
    jax.ffi.register_ffi_target(TARGET, capsule, platform="cpu", api_version=1)
    return True


def call(engine: Any, groups: list[list[Any]], batch: int, steps: int, mask: Any = None) -> list[Any] | None:
    """Return outputs and final states of the fast engine, differentiable; None where it must be called with Python.

    groups: sequences, constants, states and parameters. mask: (batch, steps) of bool, or None.
    """
    from rsref_fast.cpu.kernels import Interpreted

    values = [value for group in groups for value in group]
    dtypes = {value.dtype for value in values}
    if engine.kernels is Interpreted or dtypes not in ({jnp.dtype("float32")}, {jnp.dtype("float64")}):
        return None
    from rsref_fast.cpu.splitting import split_of
    from rsref_fast.packing import masked_batch, whole_batch

    dtype = np.dtype(dtypes.pop())
    shapes = [[np.empty(v.shape, dtype) for v in group] for group in groups[:3]]
    special = engine.specialised(*shapes, dtype)
    if not special.in_floats or not batch or not steps or not _registered():
        return None
    if mask is not None and special.compiled.mixes:
        return None
    split = split_of(engine.split, engine.threads, special, batch, batch * steps)
    truncate = engine.recurrence.truncate
    tabled = mask is not None
    if tabled:  # room for the most that a mask can leave
        shards, _ = masked_batch(np.ones((batch, steps), bool), split.shards, None)
    else:
        shards = whole_batch(batch, steps, split.shards, truncate)
    specs = engine.reference.check(*shapes, [np.empty(v.shape, dtype) for v in groups[3]], None, steps, batch)
    answers = [jax.ShapeDtypeStruct((batch, steps, *shape[1:]), dtype) for shape, _ in specs]
    answers += [jax.ShapeDtypeStruct(s.shape, dtype) for s in groups[2]]

    def ran(kind: str, results: list[Any], given: Any) -> list[Any]:
        plan = special.plan(kind, shards, steps, split.team, (batch, steps, split.shards, truncate), tabled)
        _kept.append(plan)
        own = [*results, _bytes(plan.tape), _bytes(plan.scratch_bytes)]
        place = np.int64(plan.address)
        return list(jax.ffi.ffi_call(TARGET, own, vmap_method="sequential")(*given, plan=place))[:-1]

    @jax.custom_vjp
    def run(*given: Any) -> Any:
        return tuple(ran("inference", answers, given)[:-1])

    def run_forward(*given: Any) -> Any:
        *found, tape = ran("forward", answers, given)
        return tuple(found), (given, tape)

    def run_backward(kept: Any, gradients: Any) -> Any:
        given, tape = kept
        results = [jax.ShapeDtypeStruct(v.shape, dtype) for v in given[: len(values)]]
        found = ran("backward", results, (*given, tape, *gradients))[:-1]
        return (*found, *[None] * (len(given) - len(found)))

    run.defvjp(run_forward, run_backward)
    if mask is None:
        return list(run(*values))
    return _masked(engine.recurrence, run, groups, packed(mask, split.shards, truncate), mask)


def _masked(recurrence: Any, run: Any, groups: list[list[Any]], rows: Packed, mask: Any) -> list[Any]:
    """Run with the samples in the shards' order, and answer in the batch's."""
    sequences, constants, states, parameters = groups
    mixed = [v[rows.order] for v in (*constants, *states)]
    found = run(*sequences, *mixed, *parameters, rows.words, rows.cuts)
    outputs, finals = list(found[: -len(states) or None]), found[len(found) - len(states) :]
    if not recurrence.zero_output_for_mask:
        outputs = [held(y, mask) for y in outputs]
    if recurrence.truncate is not None:
        ends = [rows.cut_end.reshape(-1, *[1] * (s.ndim - 1)) for s in finals]
        finals = [jnp.where(end, jax.lax.stop_gradient(s), s) for s, end in zip(finals, ends)]
    return [*outputs, *(restored(s, rows.order) for s in finals)]


def _bytes(size: int) -> Any:
    return jax.ShapeDtypeStruct((max(1, size),), jnp.uint8)
