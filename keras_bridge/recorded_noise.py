"""Random numbers that a layer's call draws by keras.random, recorded as what random layers draw."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops
from keras.src import backend

from keras_bridge.batch_sized import for_batch
from keras_bridge.replaced import replaced
from keras_bridge.rules.noise import Uniform


@contextlib.contextmanager
def recording_noise() -> Iterator[None]:
    """Let noise that is new for each sample and call be recorded; a whole number as seed draws the same each time."""
    drawn = {name: _recorded(name, function) for name, (function, _) in RECORDED.items()}
    with replaced(backend.random, **drawn), replaced(backend, convert_to_tensor=_converted):
        yield


CONVERT = backend.convert_to_tensor


def _converted(value: Any, *arguments: Any, **options: Any) -> Any:
    """Convert a value to a tensor, as keras.random.categorical does with what may be symbolic."""
    return value if isinstance(value, keras.KerasTensor) else CONVERT(value, *arguments, **options)


def _recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    is_symbolic = RECORDED[name][1]

    def draw(first: Any, *arguments: Any, seed: Any = None, **options: Any) -> Any:
        if isinstance(seed, int) or not is_symbolic(first):
            return _own[name](first, *arguments, seed=seed, **options)
        return function(first, *arguments, seed=seed, **options)

    return draw


def _dropout(inputs: Any, rate: Any, noise_shape: Any = None, seed: Any = None) -> Any:
    layer = keras.layers.Dropout(0.0, noise_shape, name="dropout", dtype=inputs.dtype)
    layer.rate = float(rate)
    return _drawn(layer, inputs, seed)


def _normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    zeros = ops.zeros(shape, dtype)
    layer = keras.layers.GaussianNoise(0.0, name="normal", dtype=zeros.dtype)
    layer.stddev = 1.0
    return _drawn(layer, zeros, seed) * stddev + mean


def _uniform(shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None, seed: Any = None) -> Any:
    zeros = ops.zeros(shape, dtype)
    return _drawn(Uniform(name="uniform", dtype=zeros.dtype), zeros, seed) * (maxval - minval) + minval


def _whole(shape: Any, minval: Any, maxval: Any, dtype: Any = "int32", seed: Any = None) -> Any:
    """A whole number from an interval without its end."""
    count = maxval - minval
    return ops.cast(ops.minimum(ops.floor(_uniform(shape, seed=seed) * count), count - 1), dtype) + minval


def _binomial(shape: Any, counts: Any, probabilities: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Whether a number below 1 is less than the probability; how many of so many are."""
    if not isinstance(counts, int):
        raise TypeError(f"keras.random.binomial is traced for a number of trials that is an int; got {counts!r}")
    trials = _uniform((*shape, counts), seed=seed)
    chosen = ops.less(trials, ops.expand_dims(ops.broadcast_to(probabilities, shape), -1))
    return ops.sum(ops.cast(chosen, dtype or keras.config.floatx()), -1)


def _categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Where logits with noise of Gumbel's distribution are greatest (Maddison 2014, "A* Sampling", section 2)."""
    batch, n = logits.shape
    uniform = _uniform((batch, num_samples, n), dtype=logits.dtype, seed=seed)
    return ops.cast(ops.argmax(ops.expand_dims(logits, 1) - ops.log(-ops.log(uniform)), axis=-1), dtype)


def _drawn(layer: Any, inputs: Any, seed: Any) -> Any:
    """Return what a random layer answers in every mode, with the generator of the layer that asks for it."""
    own = 0 if isinstance(seed, keras.random.SeedGenerator) else None
    vars(layer).update(seed=own, seed_generator=seed)  # past Keras: what a layer holds is its own
    return layer(inputs, training=True)


def _is_symbol(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


RECORDED: dict[str, tuple[Callable[..., Any], Callable[[Any], bool]]] = {
    "dropout": (_dropout, _is_symbol),
    "normal": (_normal, for_batch),
    "uniform": (_uniform, for_batch),
    "randint": (_whole, for_batch),
    "binomial": (_binomial, for_batch),
    "categorical": (_categorical, _is_symbol),
}
"""Functions of the backend under those of keras.random, and of which first argument they stand in a step."""

_own = {name: getattr(backend.random, name) for name in RECORDED}
