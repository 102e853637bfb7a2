"""First derivatives only, on JAX: a further one is an error that says so, in place of JAX's words on callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from keras_bridge.gradients.words import FIRST_ONLY


def once(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that cannot be differentiated: what a forward or a backward run computes."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError(FIRST_ONLY)

    own = jax.custom_jvp(compute)
    own.defjvp(refuse)
    return own
