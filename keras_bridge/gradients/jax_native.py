"""Compiled kernels on JAX with no Python in the call: through XLA's foreign function interface.

Used where batch and steps are known beforehand, as they are inside `jit`. What forward keeps for backward is one more
result; what a mask says is two more arguments; integers and bools go as kernels have them in memory.
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
from keras_bridge.gradients.jax_once import once
from keras_bridge.gradients.jax_parts import in_parts
from keras_bridge.gradients.jax_words import memory, read, written

TARGET = "rsref_fast_run"
_kept: dict[int, Any] = {}
"""Plans by their addresses, which stand in what XLA has compiled."""


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


def call(
    engine: Any,
    groups: list[list[Any]],
    dtypes: list[Any],
    batch: int,
    steps: int,
    mask: Any = None,
    least: Any = np.float32,
) -> list[Any] | None:
    """Return outputs and final states of the fast engine, differentiable; None where it must be called with Python.

    groups: sequences, constants, states and parameters. dtypes: of the answers. mask: (batch, steps) of bool, or None.
    least: in which floats are computed at least.
    Errors: XLA's own, when it runs, for an index out of range.
    """
    from rsref_fast.compiling import shapes_of
    from rsref_fast.cpu.kernels import Interpreted
    from rsref_fast.cpu.splitting import split_of
    from rsref_fast.packing import most_rows, whole_batch

    if engine.kernels is Interpreted or not _registered():
        return None
    floating = [v.dtype for group in groups for v in group if jnp.issubdtype(v.dtype, jnp.floating)]
    precision = np.result_type(least, *floating)
    if engine.parted is not None:
        return in_parts(call, engine.parted, groups, dtypes, batch, steps, mask, precision)
    shapes = [[np.empty(v.shape, precision) for v in group] for group in groups]
    special = engine.specialised(shapes_of(*shapes[:3]), precision)
    tabled = mask is not None and batch > 0 and steps > 0
    if special.whole or special.compiled.derivative.blocked or (tabled and special.compiled.mixes):
        return None
    split = split_of(engine.split, engine.threads, special, batch, batch * steps)
    truncate = engine.recurrence.truncate
    graph = special.compiled.graph
    kinds = [[leaf.dtype for leaf in leaves] for leaves in (graph.sequences, graph.constants, graph.states)]
    kinds.append(["float"] * len(groups[3]))
    specs = [((batch, steps, *s[1:]), kind) for s, kind in engine.reference.check(*shapes, None, steps, batch)]
    specs += [(state.shape, kind) for state, kind in zip(groups[2], kinds[2])]

    deal = most_rows if tabled else whole_batch
    plans = special.call(deal, (batch, steps, split.shards, truncate), split, tabled)
    run = _differentiable(plans, [kind for group in kinds for kind in group], specs, precision)
    arrays = [[written(v, k, precision) for v, k in zip(*pair)] for pair in zip(groups, kinds)]
    if tabled:
        found = _masked(engine.recurrence, run, arrays, packed(mask, split.shards, truncate), mask)
    else:
        found = run(*(value for group in arrays for value in group))
    return [read(y, kind, dtype) for y, (_, kind), dtype in zip(found, specs, dtypes)]


def _differentiable(plans: Any, kinds: list[str], specs: list[Any], precision: Any) -> Any:
    """Return the function that XLA runs, of arrays as kernels read them, with what backward computes as its gradient.

    plans: those of all programs, by name. kinds: of sequences, constants, states and parameters; a mask's tables may
    follow them. specs: shapes and kinds of the answers.
    """

    def ran(program: str, results: list[Any], given: Any) -> list[Any]:
        plan = getattr(plans, program)
        _kept[plan.address] = plan
        own = [*results, _bytes(plan.tape), _bytes(plan.scratch_bytes)]
        place = np.int64(plan.address)
        call = once(lambda *given: jax.ffi.ffi_call(TARGET, own, vmap_method="sequential")(*given, plan=place))
        return list(call(*given))[:-1]

    answers = [memory(shape, kind, precision) for shape, kind in specs]

    @jax.custom_vjp
    def run(*given: Any) -> Any:
        return tuple(ran("inference", answers, given)[:-1])

    def run_forward(*given: Any) -> Any:
        *found, tape = ran("forward", answers, given)
        return tuple(found), (given, tape)

    def run_backward(kept: Any, gradients: Any) -> Any:
        """Where there is no gradient, one byte stands for it, which nobody reads or writes."""
        given, tape = kept
        flowing = [g if kind == "float" else jnp.zeros(1, jnp.uint8) for g, (_, kind) in zip(gradients, specs)]
        results = [memory(v.shape, kind, precision) if kind == "float" else _bytes(1) for v, kind in zip(given, kinds)]
        found = ran("backward", results, (*given, tape, *flowing))
        own = [d if kind == "float" else None for d, kind in zip(found, kinds)]
        return (*own, *[None] * (len(given) - len(own)))

    run.defvjp(run_forward, run_backward)
    return run


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
