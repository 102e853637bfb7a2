"""The custom-gradient call on JAX: `custom_vjp` around `pure_callback`; works under jit, grad and scan."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from keras_bridge.gradients.jax_masks import of_stepped
from keras_bridge.gradients.jax_once import once

Arrays = list[np.ndarray]
Forward = Callable[[Arrays, bool], tuple[Arrays, int]]
Backward = Callable[[Arrays, Arrays, int], Arrays]


def call(forward: Forward, backward: Backward, tensors: list[Any], specs: Any, training: bool) -> tuple[Any, ...]:
    """Return forward(tensors), with backward as its gradient; see `keras_bridge.gradients`.

    Errors: NotImplementedError if a length is not known, which no callback can answer.
    """
    if any(None in shape for shape, _ in specs):
        raise NotImplementedError(
            'JAX traces with an open batch or number of steps, as an export does: that needs engine="keras", which '
            "keras_bridge.export takes by itself, or known lengths"
        )
    # without x64 JAX has no numbers of 64 bits
    shapes = tuple(jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype)) for shape, dtype in specs)

    def narrowed(answers: Arrays) -> tuple[np.ndarray, ...]:
        return tuple(y.astype(spec.dtype, copy=False) for y, spec in zip(answers, shapes))

    @jax.custom_vjp
    def run(*values: Any) -> Any:
        return jax.pure_callback(
            lambda *a: narrowed(forward(_arrays(a), False)[0]), shapes, *values, vmap_method="sequential"
        )

    def run_forward(*values: Any) -> Any:
        def host(*arrays: Any) -> Any:
            answers, ticket = forward(_arrays(arrays), True)
            return narrowed(answers), np.int32(ticket)

        ticket = jax.ShapeDtypeStruct((), np.int32)
        ahead = once(lambda *a: jax.pure_callback(host, (shapes, ticket), *a, vmap_method="sequential"))
        answers, number = ahead(*values)
        return answers, (values, number)

    def run_backward(kept: Any, gradients: Any) -> Any:
        values, number = kept
        floating = [jnp.issubdtype(v.dtype, jnp.floating) for v in values]

        def host(values: Any, gradients: Any, number: Any) -> Any:
            found = backward(_arrays(values), _arrays(gradients), int(number))
            return tuple(g for g, wanted in zip(found, floating) if wanted)

        wanted = tuple(jax.ShapeDtypeStruct(v.shape, v.dtype) for v, f in zip(values, floating) if f)
        back = once(lambda *a: jax.pure_callback(host, wanted, *a, vmap_method="sequential"))
        found = iter(back(values, gradients, number))
        return tuple(next(found) if f else np.zeros(v.shape, jax.dtypes.float0) for v, f in zip(values, floating))

    run.defvjp(run_forward, run_backward)
    return run(*tensors)


def native(
    engine: Any, groups: list[list[Any]], batch: int, steps: int, mask: Any, dtypes: Sequence[Any] = ()
) -> list[Any] | None:
    """Return outputs and final states, computed on the arrays as they are; None where that cannot be.

    dtypes: of the answers.
    """
    if mask is not None and batch and steps:
        groups = [groups[0], of_stepped(groups[1], mask), *groups[2:]]
    if getattr(engine, "on_device", False):
        from keras_bridge.gradients import jax_device

        return jax_device.call(engine, groups, dtypes, batch, steps, mask)
    if not hasattr(engine, "specialised"):
        return None
    from keras_bridge.gradients import jax_native

    return jax_native.call(engine, groups, [*dtypes], batch, steps, mask)


def _arrays(values: Any) -> Arrays:
    return [np.asarray(value) for value in values]
