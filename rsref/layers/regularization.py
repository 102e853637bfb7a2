"""Noise that acts in training alone: it is an input of an engine, drawn for each call (see `rsref.noise`)."""

from __future__ import annotations

import math

from rsref.layers.base import Layer, dropout_rate, standard_deviation
from rsref.tensor import Tensor, noise


class _Noisy(Layer):
    """What layers of noise share. per: "step" draws anew at every timestep, "sequence" once for all steps."""

    takes = 1

    def __init__(self, per: str, name: str | None):
        super().__init__(name)
        if per not in ("step", "sequence"):
            raise ValueError(f'per must be "step" or "sequence"; got {per!r}')
        self.per = per


class Dropout(_Noisy):
    """x times an inverted-dropout mask in training, x elsewhere (Srivastava 2014).

    per: "step" draws a new mask at every timestep, "sequence" one for all steps (variational dropout, Gal 2016).
    """

    def __init__(self, rate: float, per: str = "step", name: str | None = None):
        super().__init__(per, name)
        self.rate = dropout_rate("rate", rate)

    def call(self, *tensors: Tensor) -> Tensor:
        return tensors[0] * noise(tensors[0].shape, self.rate, self.per) if self.rate else tensors[0]


class GaussianDropout(_Noisy):
    """x times normally distributed numbers in training, x elsewhere (Srivastava 2014, section 10).

    Their mean is 1, their standard deviation sqrt(rate / (1 - rate)), that of Dropout's mask. per: as in `Dropout`.
    """

    def __init__(self, rate: float, per: str = "step", name: str | None = None):
        super().__init__(per, name)
        self.rate = dropout_rate("rate", rate)

    def call(self, *tensors: Tensor) -> Tensor:
        (x,) = tensors
        return x * noise(x.shape, per=self.per, stddev=math.sqrt(self.rate / (1 - self.rate))) if self.rate else x


class GaussianNoise(_Noisy):
    """x plus normally distributed numbers with the mean 0 in training, x elsewhere.

    stddev: their standard deviation. per: as in `Dropout`.
    """

    def __init__(self, stddev: float, per: str = "step", name: str | None = None):
        super().__init__(per, name)
        self.stddev = standard_deviation("stddev", stddev)

    def call(self, *tensors: Tensor) -> Tensor:
        (x,) = tensors
        return x + noise(x.shape, per=self.per, stddev=self.stddev, mean=0.0) if self.stddev else x
