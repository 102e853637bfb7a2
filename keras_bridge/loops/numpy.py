"""The time loop on Keras's NumPy backend, which is for inference: a plain Python loop."""

from typing import Any

import numpy as np


def scan(
    step: Any, carry: list[Any], sequences: list[Any], length: Any, like: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Run `step` over the leading axis; see `keras_bridge.loops`. At least one step is needed to stack outputs."""
    kept: list[list[Any]] = []
    for t in range(int(length)):
        carry, outputs = step(carry, [s[t] for s in sequences])
        if like:
            kept.append(outputs)
    return carry, [np.stack(values) for values in zip(*kept)]
