"""Token sequences from a recurrent layer: greedy, sampled, or by beam search, with an end token.

The layer's step takes one token (an integer input of shape ()) and its states, and gives out logits (vocabulary,).
What it conditions on, such as an encoded sequence, are its constants and its initial states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rsref import arguments, initializers, ops
from rsref.layers.base import positive_integer
from rsref.loop import RecurrentLayer
from rsref.tensor import array_of

Array = np.ndarray


class Generated(NamedTuple):
    """tokens: (batch, length) of int, the end token repeated once it has come; scores: (batch,) log-probabilities."""

    tokens: Array
    scores: Array


def greedy(layer: RecurrentLayer, start: Any, length: int, *, end: int | None = None, **given: Any) -> Generated:
    """Take the likeliest token at every step.

    start: first tokens, (batch,) of int. length: how many tokens to generate. end: the token that ends a sequence.
    given: `initial_state` and `constants`, as in the layer's `forward`.
    Errors: TypeError or ValueError if the layer's step is not one from token to logits, or end is no token;
    IndexError for a first token that an Embedding does not have.
    """
    return _chain(layer, start, length, end, given, lambda log_p: log_p.argmax(axis=-1))


def sample(
    layer: RecurrentLayer,
    start: Any,
    length: int,
    *,
    end: int | None = None,
    temperature: float = 1.0,
    seed: int | None = None,
    **given: Any,
) -> Generated:
    """Draw every token from the softmax of logits / temperature; scores are those at temperature 1. See `greedy`."""
    if isinstance(temperature, bool) or not isinstance(temperature, int | float | np.number):
        raise TypeError(f"temperature must be a positive number; got {temperature!r}")
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be positive and finite; got {temperature!r}")
    generator = initializers.new_generator(seed)

    def draw(log_p: Array) -> Array:
        # the greatest of logits with Gumbel noise is a draw from their softmax
        drawn: Array = (log_p / temperature + generator.gumbel(size=log_p.shape)).argmax(axis=-1)
        return drawn

    return _chain(layer, start, length, end, given, draw)


def beam_search(
    layer: RecurrentLayer, start: Any, length: int, *, width: int, end: int | None = None, **given: Any
) -> Generated:
    """Keep the `width` likeliest beginnings at every step and answer the likeliest sequence. See `greedy`."""
    width = positive_integer("width", width)
    step = _Stepper(layer, start, length, end, given)
    batch, first = len(step.start), np.arange(len(step.start))
    states, constants = step.states, step.constants
    last, finished = step.start, np.zeros(batch, bool)
    scores = np.zeros((batch, 1))  # (batch, beginnings); rows of all arrays are beginnings, sample after sample
    tokens = np.zeros((batch, 1, 0), np.int64)
    for _ in range(step.length):
        log_p, states = step.advance(last, states, constants, finished)
        beginnings, vocabulary = scores.shape[1], log_p.shape[-1]
        totals = scores[..., None] + log_p.reshape(batch, beginnings, vocabulary)
        totals = totals.reshape(batch, beginnings * vocabulary)
        kept = np.argsort(-totals, axis=-1, kind="stable")[:, : min(width, totals.shape[1])]
        scores = np.take_along_axis(totals, kept, -1)
        origin, new = kept // vocabulary, kept % vocabulary
        tokens = np.concatenate([tokens[first[:, None], origin], new[..., None]], axis=-1)
        rows = (first[:, None] * beginnings + origin).ravel()
        states = [s[rows] for s in states]
        constants = [np.repeat(c, kept.shape[1], axis=0) for c in step.constants]
        last = new.ravel()
        finished = finished[rows] | (last == end)
    return Generated(tokens[:, 0], scores[:, 0])


def _chain(layer: RecurrentLayer, start: Any, length: int, end: int | None, given: Any, choose: Any) -> Generated:
    step = _Stepper(layer, start, length, end, given)
    states, last, finished = step.states, step.start, np.zeros(len(step.start), bool)
    tokens, scores = np.zeros((len(last), step.length), np.int64), np.zeros(len(last))
    for t in range(step.length):
        log_p, states = step.advance(last, states, step.constants, finished)
        last = choose(log_p)
        scores += np.take_along_axis(log_p, last[:, None], -1)[:, 0]
        tokens[:, t] = last
        finished |= last == end
    return Generated(tokens, scores)


def _check_token(name: str, token: Any, vocabulary: int | None) -> None:
    if token is None:
        return
    if isinstance(token, bool) or not isinstance(token, int | np.integer):
        raise TypeError(f"{name} must be a token, an integer, or None; got {token!r}")
    if token < 0 or (vocabulary is not None and token >= vocabulary):
        raise ValueError(f"{name} must be a token, one of the {vocabulary or 'step'} logits; got {token}")


class _Stepper:
    """One step of a layer at a time, on rows of tokens."""

    def __init__(self, layer: RecurrentLayer, start: Any, length: int, end: int | None, given: dict[str, Any]):
        if not isinstance(layer, RecurrentLayer):
            raise TypeError(f"generation runs a recurrent layer of rsref; got {layer!r}")
        unknown = set(given) - {"initial_state", "constants"}
        if unknown:
            raise TypeError(
                f"generation takes initial_state and constants besides its own options; got {sorted(unknown)}"
            )
        self.start = array_of("start", start)
        self.start = self.start if self.start.size else self.start.astype(int)  # an empty list's dtype says nothing
        if self.start.ndim != 1 or self.start.dtype.kind not in "iu":
            raise ValueError(f"start must be integers (batch,); got {self.start.dtype} of shape {self.start.shape}")
        self.length, self.end, self.layer = positive_integer("length", length), end, layer
        if not layer.built:
            layer.build((None, None))
        drawn = layer.drawn
        specs = [(t.shape, t.dtype) for t in drawn.sequences]
        if layer.decode or specs != [((None,), "int")] or len(drawn.outputs) != 1 or drawn.outputs[0].ndim != 2:
            raise ValueError(
                f"{layer.name}: generation needs a step from one token (an integer input of shape ()) to logits "
                f"(vocabulary,); this one goes from {specs} to {[t.shape for t in drawn.outputs]}"
            )
        if self.start.size and self.start.min() < 0:
            raise IndexError(f"start must hold tokens, from 0 on; got {self.start.min()}")
        _check_token("end", end, drawn.outputs[0].shape[-1])
        batch = len(self.start)
        fixed = arguments.numeric_arrays("constants", given.get("constants"))
        self.constants = arguments.cast_inputs("constants", fixed, drawn.constants, layer.dtype, time=False)
        arguments.check_batch("constants", self.constants, batch)
        self.states = layer.memory.start(given.get("initial_state"), None, None, batch)
        self.engine = layer.make_engine(layer.recurrence)

    def advance(
        self, last: Array, states: Sequence[Array], constants: Sequence[Array], finished: Array
    ) -> tuple[Array, list[Array]]:
        """Return the next token's log-probabilities and the new states; an ended row goes on with the end token."""
        inputs = [last[:, None].astype(np.int64)]
        step_masks, sequence_masks = self.layer.resting_masks(inputs, constants, states, len(last))
        weights = [p.value.astype(self.layer.dtype) for p in self.layer.recurrence.graph.parameters]
        leaves = [*inputs, *step_masks], [*constants, *sequence_masks], states, weights
        outputs, new, _ = self.engine.forward(*leaves, taped=False)
        log_p = np.array(ops.log_softmax(outputs[0][:, 0]))
        if self.end is not None:
            log_p[finished] = -np.inf
            log_p[finished, self.end] = 0
        return log_p, new
