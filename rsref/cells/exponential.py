"""LSTM with exponential gates: sLSTM and mLSTM (Beck 2024, xLSTM, arXiv 2405.04517), in stabilised form."""

from __future__ import annotations

import math
from typing import Any

from rsref import activations, ops
from rsref.cells.full import FullCell, refuse_options
from rsref.graph import Model
from rsref.layers.base import positive_integer
from rsref.tensor import Input, Shape, Tensor

FORGET_GATES = ("sigmoid", "exp")


class ExponentialCell(FullCell):
    """What both share: heads of equal size, and the choice of the forget gate.

    heads: units are cut into so many heads that do not see each other's state.
    forget_gate: "sigmoid" or "exp"; the input gate is always exp.
    """

    def __init__(self, units: int | None = None, *, heads: int = 1, forget_gate: str = "sigmoid", **options: Any):
        super().__init__(units, **options)
        self.heads = positive_integer("heads", heads)
        if self.units % self.heads:
            raise ValueError(f"{self.name}: {self.units} units cannot be cut into {heads} equal heads")
        if forget_gate not in FORGET_GATES:
            raise ValueError(f"forget_gate must be one of {FORGET_GATES}; got {forget_gate!r}")
        self.forget_gate = forget_gate

    def log_forget(self, z: Tensor) -> Tensor:
        """Return the logarithm of the forget gate."""
        return activations.log_sigmoid(z) if self.forget_gate == "sigmoid" else z


class SLSTMCell(ExponentialCell):
    """sLSTM: c' = f c + i g, n' = f n + i, h' = o c' / n', with i = exp(z_i) (Beck 2024, equations 8 to 18).

    With the running maximum m' = max(log f + m, z_i), c and n are kept divided by exp(m'), which changes no output.
    States h, c, n and m, (units,) each; they start from zeros, and a zero n marks the empty memory.
    Weights: kernel (features, 4 * units), recurrent_kernel (units / heads, 4 * units): a block (units / heads,
    units / heads) a head and gate; bias (4 * units,). Order i, f, g, o.
    heads: units are cut into so many equal parts, 1 by default, that do not see each other's state. forget_gate:
    "sigmoid", the default, or "exp".
    """

    gates = 4
    state_names = ("h", "c", "n", "m")

    def build_model(self, input_shape: Shape) -> Model:
        x, h, c, n, m = self.leaves(input_shape)
        z = ops.matmul(self.dropped_input(x), self.kernel(x.shape[-1])) + self._from_state(self.dropped_state(h))
        z_i, z_f, z_g, z_o = ops.split(self.biased(z), 4, -1)
        log_f = self.log_forget(z_f)
        new_m = ops.where(n <= 0, z_i, ops.maximum(log_f + m, z_i))  # an empty memory has no maximum yet
        kept, added = _decay(log_f + m - new_m), ops.exp(z_i - new_m)
        new_c = kept * c + added * self.activation(z_g)
        new_n = kept * n + added
        new_h = self.recurrent_activation(z_o) * new_c / new_n
        return Model([x, h, c, n, m], [new_h, new_h, new_c, new_n, new_m])

    def _from_state(self, h: Tensor) -> Tensor:
        size = self.units // self.heads
        blocks = self.add_weight("recurrent_kernel", (size, 4 * self.units), *self.recurrent_options).tensor
        if self.heads == 1:
            return ops.matmul(h, blocks)
        split = ops.reshape(h, (-1, self.heads, size))
        product = ops.einsum("bhd,dghe->bghe", split, ops.reshape(blocks, (size, 4, self.heads, size)))
        joined: Tensor = ops.reshape(product, (-1, 4 * self.units))
        return joined


class MLSTMCell(ExponentialCell):
    """mLSTM: a matrix memory a head, C' = f C + i v k^T, n' = f n + i k (Beck 2024, equations 19 to 27).

    h' = o C' q / max(|n' q|, 1), with q = x W_q + b_q, k = (x W_k + b_k) / sqrt(size), v = x W_v + b_v of one head's
    size = units / heads, scalar gates i = exp(z_i) and f a head, and the vector gate o.
    With m' = max(log f + m, z_i, 0), C and n are kept divided by exp(m'), and so is the 1: no output changes.
    States C (heads, size, size), n (heads, size) and m (heads,), from zeros.
    Weights: kernel (features, 4 * units) and bias (4 * units,) in the order q, k, v, o; gate_kernel
    (features, 2 * heads) and gate_bias (2 * heads,) in the order i, f. No recurrent product.
    heads: units are cut into so many equal parts, 1 by default, that do not see each other's state. forget_gate:
    "sigmoid", the default, or "exp".
    """

    gates = 4
    state_names = ()

    def __init__(self, units: int | None = None, **options: Any):
        for part in ("recurrent kernel", "candidate with an activation"):
            refuse_options(type(self).__name__, part, options)
        super().__init__(units, **options)

    def build_model(self, input_shape: Shape) -> Model:
        heads, size = self.heads, self.units // self.heads
        (x,) = self.leaves(input_shape)
        memory, n = Input((heads, size, size), name="C"), Input((heads, size), name="n")
        m = Input((heads,), name="m")
        read = self.dropped_input(x)
        z = ops.matmul(read, self.kernel(x.shape[-1]))
        q, k, v, z_o = ops.split(self.biased(z), 4, -1)
        q, k, v = (ops.reshape(part, (-1, heads, size)) for part in (q, k / math.sqrt(size), v))
        z_i, z_f = self._gates(read)
        log_f = self.log_forget(z_f)
        own_m = ops.maximum(z_i, 0.0)
        empty = ops.sum(ops.absolute(n), -1) <= 0  # a memory with nothing in it has no maximum yet
        new_m = ops.where(empty, own_m, ops.maximum(log_f + m, own_m))
        kept, added = _decay(log_f + m - new_m), ops.exp(z_i - new_m)
        outer = ops.expand_dims(v, -1) * ops.expand_dims(k, -2)
        new_memory = _wide(kept, 2) * memory + _wide(added, 2) * outer
        new_n = _wide(kept, 1) * n + _wide(added, 1) * k
        weight = ops.maximum(ops.absolute(ops.sum(new_n * q, -1)), ops.exp(-new_m))
        weight = ops.where(weight > 0, weight, 1.0)  # all of it underflowed: what is read is zero, not 0 / 0
        found = ops.einsum("bhij,bhj->bhi", new_memory, q) / _wide(weight, 1)
        new_h = self.recurrent_activation(z_o) * ops.reshape(found, (-1, self.units))
        return Model([x, memory, n, m], [new_h, new_memory, new_n, new_m])

    def _gates(self, x: Tensor) -> list[Tensor]:
        kernel = self.add_weight("gate_kernel", (x.shape[-1], 2 * self.heads), *self.kernel_options).tensor
        z = ops.matmul(x, kernel)
        if self.use_bias:
            z = z + self.add_weight("gate_bias", (2 * self.heads,), *self.bias_options).tensor
        parts: list[Tensor] = ops.split(z, 2, -1)
        return parts


def _decay(logarithm: Tensor) -> Tensor:
    """Return exp of what is at most 0, but where the memory is empty: there it may not overflow, as 0 * inf."""
    kept: Tensor = ops.exp(ops.minimum(logarithm, 80.0))
    return kept


def _wide(x: Tensor, axes: int) -> Tensor:
    wide: Tensor = ops.reshape(x, (-1, *x.shape[1:], *(1,) * axes))
    return wide
