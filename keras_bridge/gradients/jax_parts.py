"""Steps on JAX of which a part depends on no step: that part is called by itself, and its answers are constants.

See `rsref_fast.prologue`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp


def in_parts(
    call: Callable[..., list[Any] | None], parted: Any, groups: list[list[Any]], dtypes: Sequence[Any], batch: int,
    steps: int, mask: Any, precision: Any,
) -> list[Any] | None:  # fmt: skip
    """Return what a call of the whole step would.

    call: of an engine, groups, dtypes, batch, steps, the mask, and in which precision floats are computed at least.
    """
    sequences, constants, states, parameters = groups
    constants = [v.astype(precision) if jnp.issubdtype(v.dtype, jnp.floating) else v for v in constants]
    parameters = [v.astype(precision) for v in parameters]
    first, step = ([parameters[i] for i in own] for own in (parted.parts.of_first, parted.parts.of_step))
    kinds = [precision] * len(parted.parts.first.outputs)
    once = call(parted.first, [[], constants, [], first], kinds, batch, 1, None, least=precision)
    if once is None:
        return None
    every = [*constants, *(v[:, 0] for v in once)]
    return call(parted.step, [sequences, every, states, step], dtypes, batch, steps, mask)
