"""An engine for device arrays called with JAX's arrays, against the oracle: on a fake device, or on a GPU."""

import jax
import jax.numpy as jnp
import numpy as np

from keras_bridge.gradients import jax as jax_gradients
from rsref.engine import ReferenceEngine
from tests.fast.agreement import assert_agree
from tests.tolerances import TOLERANCES

GROUPS = ("sequences", "constants", "states", "parameters")


def groups_of(arguments):
    kinds = {"f": jnp.float32, "i": jnp.int32, "b": jnp.bool_}
    return [[jnp.asarray(a, kinds[a.dtype.kind]) for a in getattr(arguments, name)] for name in GROUPS]


def dtypes_of(engine, kind=jnp.float32):
    """Return in which dtypes JAX is to have outputs and final states."""
    kinds = {"float": kind, "int": jnp.int32, "bool": jnp.bool_}
    graph = engine.recurrence.graph
    return [kinds[tensor.dtype] for tensor in (*graph.outputs, *graph.states)]


def cotangent(weight, value):
    """Return a gradient to start with: JAX has another type for those of what is not floating."""
    return jnp.asarray(weight) if value.dtype.kind == "f" else np.zeros(value.shape, jax.dtypes.float0)


def compare(engine, arguments, batch, steps):
    """Compare values, without and with gradients, and gradients with the oracle's, under jit."""
    arguments = arguments.cast(np.float32).cast(np.float64)
    oracle = ReferenceEngine(engine.recurrence)
    ys, ends, tape = arguments.forward(oracle)
    mask = None if arguments.mask is None else jnp.asarray(arguments.mask)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=y.shape).astype(np.float32) for y in (*ys, *ends)]

    def answers(groups, mask):
        return jax_gradients.native(engine, groups, batch, steps, mask, dtypes_of(engine))

    @jax.jit
    def both(groups, mask):
        found, pull = jax.vjp(lambda groups: answers(groups, mask), groups)
        return found, pull([cotangent(*pair) for pair in zip(weights, found)])[0]

    groups = groups_of(arguments)
    plain, (found, gradients) = jax.jit(answers)(groups, mask), both(groups, mask)
    for i, expected in enumerate((*ys, *ends)):
        assert_agree(f"value {i}, inference", np.asarray(plain[i]), expected, TOLERANCES["float32"])
        assert_agree(f"value {i}", np.asarray(found[i]), expected, TOLERANCES["float32"])
    exact = [w.astype(np.float64) if y.dtype.kind == "f" else None for w, y in zip(weights, (*ys, *ends))]
    right = oracle.backward(tape, exact[: len(ys)], exact[len(ys) :])
    for name, group in zip(GROUPS, gradients, strict=True):
        for i, (own, d) in enumerate(zip(group, getattr(right, name), strict=True)):
            own = None if own.dtype == jax.dtypes.float0 else np.asarray(own)
            assert_agree(f"gradient of {name} {i}", own, d, TOLERANCES["float32"])
