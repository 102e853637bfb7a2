"""The custom-gradient call on JAX: `custom_vjp` around `pure_callback`; works under jit, grad and scan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Arrays = list[np.ndarray]


def call(
    forward: Callable[[Arrays], Arrays], backward: Callable[[Arrays, Arrays], Arrays], tensors: list[Any], specs: Any
) -> tuple[Any, ...]:
    """Return forward(tensors), with backward as its gradient; see `keras_bridge.gradients`."""
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in specs]

    @jax.custom_vjp
    def run(*values: Any) -> Any:
        return tuple(
            jax.pure_callback(lambda *a: tuple(forward(_arrays(a))), tuple(shapes), *values, vmap_method="sequential")
        )

    def run_forward(*values: Any) -> Any:
        return run(*values), values

    def run_backward(values: Any, gradients: Any) -> Any:
        floating = [jnp.issubdtype(v.dtype, jnp.floating) for v in values]

        def host(values: Any, gradients: Any) -> Any:
            found = backward(_arrays(values), _arrays(gradients))
            return tuple(g for g, wanted in zip(found, floating) if wanted)

        wanted = tuple(jax.ShapeDtypeStruct(v.shape, v.dtype) for v, f in zip(values, floating) if f)
        found = iter(jax.pure_callback(host, wanted, values, gradients, vmap_method="sequential"))
        return tuple(next(found) if f else np.zeros(v.shape, jax.dtypes.float0) for v, f in zip(values, floating))

    run.defvjp(run_forward, run_backward)
    return run(*tensors)


def _arrays(values: Any) -> Arrays:
    return [np.asarray(value) for value in values]
