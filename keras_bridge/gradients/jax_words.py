"""Numbers as kernels have them in memory: integers of 64 bits, also where JAX has none, and bytes for bools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _wide() -> bool:
    """Whether JAX has integers of 64 bits; else one is a pair of 32 bits, the low half first."""
    return bool(jax.dtypes.canonicalize_dtype(np.int64) == np.int64)


def written(value: Any, kind: str, precision: Any) -> Any:
    """Return an array as kernels read it. kind: "float", "int" or "bool". precision: what kernels use for floats."""
    if kind == "float":
        return value.astype(precision)
    if kind == "bool":
        return value.astype(jnp.uint8)
    if _wide():
        return value.astype(jnp.int64)
    low = value.astype(jnp.int32)
    high = jnp.zeros_like(low) if jnp.issubdtype(value.dtype, jnp.unsignedinteger) else low >> 31  # the sign, 32 times
    return jnp.stack([low, high], -1)


def memory(shape: Sequence[int], kind: str, precision: Any) -> Any:
    """Return the memory for an array that kernels write."""
    if kind == "float":
        return jax.ShapeDtypeStruct(shape, precision)
    if kind == "bool":
        return jax.ShapeDtypeStruct(shape, jnp.uint8)
    return jax.ShapeDtypeStruct(shape, jnp.int64) if _wide() else jax.ShapeDtypeStruct((*shape, 2), jnp.int32)


def read(value: Any, kind: str, dtype: Any) -> Any:
    """Return an array that kernels wrote, in a dtype of JAX."""
    return (value[..., 0] if kind == "int" and not _wide() else value).astype(dtype)
