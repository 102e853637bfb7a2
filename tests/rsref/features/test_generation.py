"""Generation against a plain loop, exhaustive enumeration and the softmax's own frequencies."""

import itertools
from functools import partial

import numpy as np
import pytest

from rsref import Dense, Embedding, Input, RecurrentModel, generation, ops, set_random_seed

WORDS = 4


@pytest.fixture
def layer():
    set_random_seed(3)
    token, h, fixed = Input((), dtype="int"), Input((5,)), Input((5,))
    new = ops.tanh(Embedding(WORDS, 5, "glorot_uniform")(token) * 2 + Dense(5)(h) + fixed)
    return RecurrentModel(token, Dense(WORDS, kernel_initializer="orthogonal")(new) * 2, h, new, constants=fixed)


@pytest.fixture
def given():
    rng = np.random.default_rng(0)
    return {"initial_state": rng.standard_normal((3, 5)), "constants": rng.standard_normal((3, 5))}


START = np.array([0, 1, 2])


def score_of(layer, row, tokens, given, end):
    """Return the log-probability of one sequence, by a plain loop over the layer's weights."""
    table, w, b, v, d = layer.get_weights()
    h, last, total = given["initial_state"][row], START[row], 0.0
    for token in tokens:
        h = np.tanh(table[last] * 2 + h @ w + b + given["constants"][row])
        logits = (h @ v + d) * 2
        total += logits[token] - np.log(np.exp(logits).sum())
        last = token
        if token == end:
            break
    return total


def sequences(length, end):
    """Return all sequences of a length in which nothing but the end token follows the end token."""
    every = itertools.product(range(WORDS), repeat=length)
    return [s for s in every if end not in s or set(s[s.index(end) :]) == {end}]


@pytest.mark.parametrize("end", [None, 2])
def test_wide_beam_search_is_exhaustive(layer, given, end):
    found = generation.beam_search(layer, START, 4, width=WORDS**4, end=end, **given)
    for row in range(3):
        best = max(sequences(4, end), key=lambda s: score_of(layer, row, s, given, end))
        assert tuple(found.tokens[row]) == best
        assert abs(found.scores[row] - score_of(layer, row, best, given, end)) < 1e-10


@pytest.mark.parametrize("end", [None, 0, 2])
def test_greedy_takes_the_likeliest_token(layer, given, end):
    found = generation.greedy(layer, START, 5, end=end, **given)
    for row in range(3):
        tokens = []
        for _ in range(5):
            ended = end in tokens
            following = range(WORDS) if not ended else [end]
            tokens.append(max(following, key=lambda w: score_of(layer, row, [*tokens, w], given, end)))
        assert found.tokens[row].tolist() == tokens
        assert abs(found.scores[row] - score_of(layer, row, tokens, given, end)) < 1e-10
    narrow = generation.beam_search(layer, START, 5, width=1, end=end, **given)
    assert (narrow.tokens == found.tokens).all()
    wide = generation.beam_search(layer, START, 5, width=3, end=end, **given)
    assert (wide.scores >= found.scores - 1e-12).all()


def test_the_loop_sees_other_weights(layer, given):
    found = generation.beam_search(layer, START, 4, width=WORDS**4, **given)
    layer.set_weights([1.1 * w for w in layer.get_weights()])
    assert all(abs(found.scores[row] - score_of(layer, row, found.tokens[row], given, None)) > 1e-3 for row in range(3))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_have_the_softmax_frequencies(layer, temperature):
    many, rng = 4000, np.random.default_rng(1)
    given = {"initial_state": np.zeros((many, 5)), "constants": np.tile(rng.standard_normal(5), (many, 1))}
    found = generation.sample(layer, np.zeros(many, int), 1, temperature=temperature, seed=0, **given)
    one = {name: value[:3] for name, value in given.items()}
    log_p = np.array([score_of(layer, 0, [w], one, None) for w in range(WORDS)]) / temperature
    expected = np.exp(log_p) / np.exp(log_p).sum()
    counts = np.bincount(found.tokens[:, 0], minlength=WORDS) / many
    assert np.abs(counts - expected).max() < 4 * np.sqrt(0.25 / many)
    again = generation.sample(layer, np.zeros(many, int), 1, temperature=temperature, seed=0, **given)
    assert (again.tokens == found.tokens).all()


def test_samples_without_a_seed_follow_the_global_one(layer, given):
    def drawn():
        set_random_seed(5)
        return [generation.sample(layer, START, 20, **given).tokens for _ in range(2)]

    (first, second), again = drawn(), drawn()
    np.testing.assert_array_equal([first, second], again)
    assert (first != second).any()


def test_nothing_is_answered_by_nothing(layer):
    given = {"initial_state": np.zeros((0, 5)), "constants": np.zeros((0, 5))}
    for generate in (generation.greedy, generation.sample, partial(generation.beam_search, width=2)):
        found = generate(layer, START[:0], 3, **given)
        assert (found.tokens.shape, found.scores.shape) == ((0, 3), (0,))


def test_misuse_is_answered(layer, given):
    with pytest.raises(ValueError, match="start must be integers"):
        generation.greedy(layer, [0.5], 2, **given)
    for temperature in (0, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"temperature must be positive and finite; got {temperature}"):
            generation.sample(layer, START, 2, temperature=temperature, **given)
    with pytest.raises(ValueError, match="width"):
        generation.beam_search(layer, START, 2, width=0, **given)
    with pytest.raises(TypeError, match="mask"):
        generation.greedy(layer, START, 2, mask=None, **given)
    x = Input((3,))
    with pytest.raises(ValueError, match="from one token"):
        generation.greedy(RecurrentModel(x, x), START, 2)


def test_a_step_of_two_outputs_is_refused():
    token = Input((), dtype="int")
    logits = Dense(WORDS)(Embedding(WORDS, 5)(token))
    with pytest.raises(ValueError, match=r"generation needs a step from one token .*\[\(None, 4\), \(None, 4\)\]"):
        generation.greedy(RecurrentModel(token, [logits, 2 * logits]), START, 3)
