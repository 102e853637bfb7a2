"""A Keras layer that computes a step drawn with rsref: how rsref's cells come to Keras, defined once."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bridge.emission import evaluate, standard_dtype
from keras_bridge.noise import drawn, source_of
from rsref.graph import Model, noise_leaves, substitute
from rsref.tensor import Parameter, Tensor


class GraphLayer(keras.layers.Layer):
    """[tensors] -> [tensors], as an rsref Model says; its parameters are this layer's weights.

    Computed in float32 at least, whatever the dtype policy; answers are in the policy's compute dtype.
    Dropout masks of a whole sequence are held by the loop that runs the step (`hold_masks`), else drawn anew.
    """

    def __init__(self, model: Model, seed: int | None = None, **options: Any):
        super().__init__(**options)
        self.drawn = model
        self.parameters: list[Parameter] = model.parameters
        self.variables_of_parameters = [
            self.add_weight(
                shape=parameter.shape,
                initializer=_given(parameter.value),
                regularizer=getattr(parameter.regularizer, "of_keras", parameter.regularizer),
                constraint=parameter.constraint,
                trainable=parameter.trainable,
                autocast=False,
                name=parameter.name.rsplit("/", 1)[-1],
            )
            for parameter in self.parameters
        ]
        self.seed = seed
        self.noise: list[Tensor] = noise_leaves(model.outputs)
        self.seed_generator = keras.random.SeedGenerator(seed) if self.noise else None
        self._held: list[Any] | None = None
        self.built = True

    @property
    def leaves(self) -> list[Tensor]:
        """The model's inputs, its mask input last."""
        return [*self.drawn.inputs, *([] if self.drawn.mask_input is None else [self.drawn.mask_input])]

    def call(self, inputs: list[Any], training: bool | None = None) -> list[Any]:
        precision = standard_dtype(self.compute_dtype)
        values: dict[Tensor, Any] = {}
        for leaf, value in zip(self.leaves, inputs):
            values[leaf] = ops.cast(value, {"float": precision, "int": "int32", "bool": "bool"}[leaf.dtype])
        for parameter, variable in zip(self.parameters, self.variables_of_parameters):
            values[parameter.tensor] = ops.cast(variable, precision)
        batch = ops.shape(inputs[0])[0]
        for i, leaf in enumerate(self.noise):
            if training:
                values[leaf] = self._noise(i, leaf, batch, precision)
            else:
                values[leaf] = ops.full((), source_of(leaf).mean, precision)
        found = evaluate(self.drawn.outputs, values, precision)
        return [
            ops.cast(y, self.compute_dtype) if drawn.dtype == "float" else y
            for y, drawn in zip(found, self.drawn.outputs)
        ]

    def compute_output_spec(self, inputs: list[Any], training: bool | None = None) -> list[Any]:
        batch = inputs[0].shape[0]
        dtypes = {"float": self.compute_dtype, "int": "int32", "bool": "bool"}
        return [keras.KerasTensor((batch, *y.shape[1:]), dtypes[y.dtype]) for y in self.drawn.outputs]

    # --- noise --------------------------------------------------------------------------------------------------------
    def hold_masks(self, batch: Any) -> None:
        """Draw the masks that last for a sequence, and keep them until `drop_masks`."""
        precision = standard_dtype(self.compute_dtype)
        self._held = [
            self._draw(leaf, batch, precision) if source_of(leaf).per == "sequence" else None for leaf in self.noise
        ]

    def drop_masks(self) -> None:
        """Forget the masks kept by `hold_masks`."""
        self._held = None

    def _noise(self, i: int, leaf: Tensor, batch: Any, precision: str) -> Any:
        held = None if self._held is None else self._held[i]
        return self._draw(leaf, batch, precision) if held is None else held

    def _draw(self, leaf: Tensor, batch: Any, precision: str) -> Any:
        return drawn(leaf, (batch, *leaf.shape[1:]), precision, self.seed_generator)

    # --- tracing ------------------------------------------------------------------------------------------------------
    def draw(self, inputs: list[Tensor], parameter_of: Any, noise: list[Tensor]) -> list[Tensor]:
        """Return the outputs drawn on rsref tensors; parameter_of(variable) is the tensor that stands for a weight.

        noise: what stands for the model's.
        """
        replacements = {**dict(zip(self.leaves, inputs)), **dict(zip(self.noise, noise))}
        for parameter, variable in zip(self.parameters, self.variables_of_parameters):
            replacements[parameter.tensor] = parameter_of(variable)
        return substitute(self.drawn.outputs, replacements)


def _given(value: np.ndarray) -> Any:
    return lambda shape, dtype=None: ops.convert_to_tensor(value, dtype)
