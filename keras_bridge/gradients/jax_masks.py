"""Masks on JAX with no Python in the call: the tables of a shard's rows, computed by XLA.

What `rsref_fast.cpu.masks_plain.packed` computes of a mask, said with jax.numpy, in arrays as large as any mask needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from keras_bridge.gradients.jax_words import written


@dataclass
class Packed:
    """A mask as the kernels read it.

    order: the samples as the shards have them. words: off, pos and rid of each shard, as kernels have integers. cuts:
    for each row whether the gradient of its state is cut before it, bytes. cut_end: for each sample, in the shards'
    order, whether it is cut after its last step.
    """

    order: Any
    words: Any
    cuts: Any
    cut_end: Any


def of_stepped(constants: list[Any], mask: Any) -> list[Any]:
    """Return constants with those of another sample for each without a step, as `rsref_fast.cpu.masks_plain` does."""
    stepped = mask.any(1)

    def own(value: Any) -> Any:
        other = jax.lax.stop_gradient(value[jnp.argmax(stepped)])
        plain = 1 if jnp.issubdtype(value.dtype, jnp.floating) else 0
        shape = (-1, *(1,) * (value.ndim - 1))
        return jnp.where(stepped.reshape(shape), value, jnp.where(stepped.any(), other, jnp.full_like(other, plain)))

    return [own(jnp.asarray(value)) for value in constants]


def packed(mask: Any, shards: int, truncate: int | None) -> Packed:
    """Return what a mask (batch, time) says, for some shards."""
    lengths = mask.sum(1, dtype=jnp.int32)
    order = jnp.argsort(-lengths, stable=True).astype(jnp.int32)
    times = jnp.argsort(~mask, axis=1, stable=True).astype(jnp.int32)
    parts = [_shard(order[i::shards], lengths, times, truncate) for i in range(shards)]
    orders, words, cuts, ends = zip(*parts)
    tables = written(jnp.concatenate(words), "int", None)
    return Packed(jnp.concatenate(orders), tables, jnp.concatenate(cuts), jnp.concatenate(ends))


def _shard(rows: Any, lengths: Any, times: Any, truncate: int | None) -> tuple[Any, Any, Any, Any]:
    count, time = rows.shape[0], times.shape[1]
    own, when = lengths[rows], times[rows].T
    valid = jnp.arange(time, dtype=jnp.int32)[:, None] < own
    (chosen,) = jnp.nonzero(valid.reshape(-1), size=time * count, fill_value=0)
    off = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(valid.sum(1, dtype=jnp.int32), dtype=jnp.int32)])
    pos = (rows * time + when).reshape(-1)[chosen]
    rid = (chosen % count).astype(jnp.int32)
    cuts, ends = jnp.zeros(time * count, jnp.uint8), jnp.zeros(count, bool)
    if truncate is not None:
        stretch = when // truncate
        before = jnp.concatenate([jnp.zeros((1, count), stretch.dtype), stretch[:-1]])
        cuts = (stretch != before).reshape(-1)[chosen].astype(jnp.uint8)
        last = jnp.take_along_axis(stretch, jnp.maximum(own - 1, 0)[None], axis=0)[0]
        ends = last != (time - 1) // truncate
    return rows, jnp.concatenate([off, pos, rid]), cuts, ends


def held(values: Any, mask: Any) -> Any:
    """Return outputs (batch, time, ...) in which masked steps repeat the last valid one, or zeros before any."""
    steps = jnp.where(mask, jnp.arange(mask.shape[1], dtype=jnp.int32), -1)
    last = jax.lax.cummax(steps, axis=1).reshape(mask.shape + (1,) * (values.ndim - 2))
    return jnp.where(last < 0, 0, jnp.take_along_axis(values, jnp.maximum(last, 0), axis=1))


def restored(values: Any, order: Any) -> Any:
    """Return rows that the shards had in another order as the batch has them."""
    return jnp.zeros_like(values).at[order].set(values, unique_indices=True)
