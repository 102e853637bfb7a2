"""The time loop on JAX: one `lax.scan`, whose compile time does not depend on the number of steps."""

from typing import Any

import jax


def scan(
    step: Any, carry: list[Any], sequences: list[Any], length: Any, like: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Run `step` over the leading axis; see `keras_bridge.loops`."""

    def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        new, outputs = step(carry, slices)
        return new, outputs if like else []

    # arrays say their length themselves, also one that is symbolic while a model is exported
    return jax.lax.scan(body, carry, sequences, None if sequences else length)
