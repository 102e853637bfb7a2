"""A decoder cell that looks at the whole encoded sequence at every step (Bahdanau 2015)."""

from __future__ import annotations

from typing import Any

from rsref import initializers, ops
from rsref.cells.full import FullCell
from rsref.cells.gru import GRUCell
from rsref.graph import Model
from rsref.layers.base import positive_integer
from rsref.tensor import Input, Shape, Tensor


class AttentionDecoderCell(FullCell):
    """A GRU that reads, at each step, an average of the encoded sequence weighted by what it asks for.

    Input: the whole encoded sequence (batch, time, features): use decode=True. Padded places get no weight, whatever
    they hold; where all are padded, the average is zero.
    scores_t = v tanh(encoded_t W + h U + b); weights = softmax(scores); context = sum_t weights_t encoded_t;
    h' = GRU(context, h). One state (units,).
    attention_units: the length of the scores' hidden layer, units if not given.
    Weights: attention_kernel (features, attention_units), attention_recurrent_kernel (units, attention_units),
    attention_bias and attention_vector (attention_units,), then those of `GRUCell`.
    """

    def __init__(self, units: int | None = None, *, attention_units: int | None = None, **options: Any):
        reset_after = options.pop("reset_after", True)
        super().__init__(units, **options)
        width = self.units if attention_units is None else attention_units
        self.attention_units = positive_integer("attention_units", width)
        self.gru = GRUCell(self.units, reset_after=reset_after, **{**options, "output_dim": None, "input_dim": None})

    def build_model(self, input_shape: Shape) -> Model:
        if len(input_shape) != 3:
            raise ValueError(
                f"{self.name} takes the whole encoded sequence (batch, time, features) at every step: use decode=True; "
                f"got shape {input_shape}"
            )
        self.check_input_dim(input_shape)
        encoded, h = Input(batch_shape=input_shape, name="encoded"), Input((self.units,), name="h")
        mask = Input(batch_shape=input_shape[:2], dtype="bool", name="mask")
        places = ops.where(ops.expand_dims(mask, -1), encoded, 0.0)  # padding may hold NaN, of which no weight rids it
        context = ops.einsum("bt,btf->bf", self._weights(places, h, mask), places)
        new_h, _ = self.gru([context, h])
        return Model([encoded, h], [new_h, new_h], mask_input=mask)

    def _weights(self, encoded: Tensor, h: Tensor, mask: Tensor) -> Tensor:
        width = self.attention_units
        kernel = self.add_weight("attention_kernel", (encoded.shape[-1], width), *self.kernel_options).tensor
        recurrent = self.add_weight("attention_recurrent_kernel", (self.units, width), *self.kernel_options).tensor
        hidden = ops.matmul(encoded, kernel) + ops.expand_dims(ops.matmul(h, recurrent), 1)
        if self.use_bias:
            hidden = hidden + self.add_weight("attention_bias", (width,), *self.bias_options).tensor
        initializer, *others = self.kernel_options
        column = initializers.get(initializer)((width, 1))[:, 0]  # it is a matrix of one column, as initializers see it
        vector = self.add_weight("attention_vector", (width,), column, *others).tensor
        scores = ops.where(mask, ops.matmul(ops.tanh(hidden), vector), -1e30)
        weights: Tensor = ops.where(mask, ops.softmax(scores, -1), 0.0)
        return weights
