"""LSTM and GRU written with jax.lax.scan, jitted, the input products before the loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Run
from benchmarks.problems import Problem, dy_of


def lstm(state: Any, z: Any, recurrent: Any, bias: Any) -> Any:
    h, c = state
    i, f, g, o = jnp.split(z + h @ recurrent, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def gru(state: Any, z: Any, recurrent: Any, bias: Any) -> Any:
    (h,) = state
    xz, xr, xh = jnp.split(z, 3, -1)
    hz, hr, hh = jnp.split(h @ recurrent + bias[1], 3, -1)
    update, reset = jax.nn.sigmoid(xz + hz), jax.nn.sigmoid(xr + hr)
    h = update * h + (1 - update) * jnp.tanh(xh + reset * hh)
    return (h,), h


def run(problem: Problem) -> Run:
    case = problem.case
    step, states = (lstm, 2) if case.stock == "LSTM" else (gru, 1)

    def outputs(x: Any, weights: Any) -> Any:
        y = x  # time first: else it is turned round in every call
        for i in range(case.layers):
            kernel, recurrent, bias = weights[3 * i : 3 * i + 3]
            projected = y @ kernel + (bias if bias.ndim == 1 else bias[0])
            zeros = (jnp.zeros((case.batch, case.units), jnp.float32),) * states
            y = jax.lax.scan(lambda s, z, r=recurrent, b=bias: step(s, z, r, b), zeros, projected)[1]
        return y

    given = jnp.asarray(problem.x.transpose(1, 0, 2)), [jnp.asarray(w) for w in problem.weights]
    compute = jitted(outputs, given, dy_of(problem).transpose(1, 0, 2), case.training)

    def batch_first() -> dict[str, Any]:
        found = compute()
        return found | {
            name: (lambda a=found[name]: np.asarray(a).transpose(1, 0, 2)) for name in "xy" if name in found
        }

    return batch_first


def jitted(outputs: Any, given: Any, dy: Any, training: bool) -> Run:
    """Return a function of no arguments: y of outputs(x, weights) and, for training, the gradients. Compiled here."""
    if not training:
        function = jax.jit(outputs).lower(*given).compile()
        return lambda: {"y": jax.block_until_ready(function(*given))}

    def there_and_back(x: Any, weights: Any, dy: Any) -> Any:
        y, pull = jax.vjp(outputs, x, weights)
        return y, pull(dy)

    arguments = *given, jnp.asarray(dy)
    compiled = jax.jit(there_and_back).lower(*arguments).compile()

    def train() -> dict[str, Any]:
        y, (dx, dw) = jax.block_until_ready(compiled(*arguments))
        return {"y": y, "x": dx, **{f"w{i}": g for i, g in enumerate(dw)}}

    return train
