"""Noise in a traced step: of random layers, of cells that keep it for a sequence, and how its numbers are drawn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from keras_bridge.rules.noise import RANDOM_LAYERS, leaf_of
from keras_bridge.trace_error import TraceError
from rsref.tensor import NoiseSource, Shape, Tensor, noise


def source_of(leaf: Tensor) -> NoiseSource:
    """Return what is to be drawn for a leaf."""
    assert isinstance(leaf.source, NoiseSource)
    return leaf.source


def drawn(leaf: Tensor, shape: tuple[Any, ...], dtype: str, seed: Any) -> Any:
    """Return numbers of a shape for a leaf that stands for noise. seed: a keras.random.SeedGenerator."""
    source = source_of(leaf)
    if source.width is not None:
        low, high = source.mean - source.width / 2, source.mean + source.width / 2
        return keras.random.uniform(shape, low, high, dtype, seed)
    if source.stddev is None:
        return keras.random.dropout(ops.ones(shape, dtype), source.rate, seed=seed)
    return keras.random.normal(shape, source.mean, source.stddev, dtype, seed)


def in_training(layer: Any, x: Tensor, path: str) -> tuple[Tensor, list[Tensor]]:
    """Return what a random layer answers in training, and the noise in it, which comes from outside.

    Errors: TraceError if the noise is the same for all samples, or its shape is not known.
    """
    if (layer.stddev if isinstance(layer, keras.layers.GaussianNoise) else layer.rate) == 0:
        return x, []
    with _named(path):
        y, leaf = RANDOM_LAYERS[type(layer)](layer, x)
    return y, [leaf]


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise TraceError(f'{path}: {error}; engine="keras" runs it') from error
    except ZeroDivisionError as error:
        raise TraceError(f"{path}: what rate=1 leaves of a number is divided by zero, as in Keras") from error


MASKS = ("_dropout_mask", "_recurrent_dropout_mask")
"""Attributes by which a cell of Keras's own keeps masks: of its input, and of its first state."""


@dataclass
class Held:
    """Noise that the cells of a sequence keep for all of its steps: each cell the same wherever it stands in a step.

    per: how long that is in the traced step: "sequence", or "step" for a recurrent layer within a step.
    """

    per: str = "sequence"
    by_layer: dict[int, Any] = field(default_factory=dict)

    def of_graph(self, layer: Any) -> list[Tensor]:
        """Return the noise of a layer that rsref drew; what lives for a step only is new for each drawing."""
        kept = self.by_layer.setdefault(id(layer), {})
        found = []
        for leaf in layer.noise:
            source = source_of(leaf)
            if source.per == "step":
                found.append(noise(leaf.shape, *source))
                continue
            if leaf not in kept:
                kept[leaf] = noise(leaf.shape, *source._replace(per=self.per))
            found.append(kept[leaf])
        return found

    def of_cell(self, cell: Any, x: Tensor, state: Tensor, path: str) -> dict[str, Any]:
        """Return noise for each mask that a cell of Keras's own keeps, by the attribute that holds it.

        One tensor for each attribute, or as many as the cell's implementation keeps; None where nothing is dropped,
        though a mask may be left from when something was. Errors: as `in_training`.
        """
        if id(cell) not in self.by_layer:
            rates = cell.dropout, cell.recurrent_dropout
            with _named(path):
                self.by_layer[id(cell)] = {
                    name: self._masks(cell, rate, (x.shape[0], *scaled.shape[1:]))
                    for name, rate, scaled in zip(MASKS, rates, (x, state))
                }
        found: dict[str, Any] = self.by_layer[id(cell)]
        return found

    def _masks(self, cell: Any, rate: float, shape: Shape) -> Any:
        if not rate:
            return None
        count = getattr(cell, "dropout_mask_count", None)
        leaves = [leaf_of(shape, rate=rate, per=self.per) for _ in range(count or 1)]
        return leaves if count else leaves[0]


def keeps_masks(layer: Any) -> bool:
    """Whether a layer is a cell of Keras's own that may have dropout."""
    return isinstance(layer, DropoutRNNCell)


@contextlib.contextmanager
def resting(layer: Any) -> Iterator[None]:
    """Let the cells of Keras's own in a layer have masks of ones: some ask for masks even where they do not use them.

    So do those within another one, of which only the shape of the answer is asked while that one is opened.
    """
    cells = [one for one in layer._flatten_layers() if keeps_masks(one)]
    kept = [{name: vars(cell).get(name) for name in MASKS} for cell in cells]
    for cell in cells:
        count = getattr(cell, "dropout_mask_count", None)
        vars(cell).update(dict.fromkeys(MASKS, [1.0] * count if count else 1.0))
    try:
        yield
    finally:
        for cell, own in zip(cells, kept):
            vars(cell).update(own)
