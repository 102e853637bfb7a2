"""Misuse of what is handed in as arrays, to layers and to engines: see test_errors."""

import numpy as np
import pytest

from rsref import (
    Dropout,
    GRUCell,
    Input,
    Parameter,
    RecurrentSequential,
    ReferenceEngine,
    constant,
    generation,
    initializers,
    set_random_seed,
)
from tests.rsref.misuse import missing_words
from tests.rsref.test_errors import X, drawn, language

H = np.zeros((2, 4))
UNEQUAL = [[1.0, 2.0], [3.0]]
x_t = Input((3,))


def engine(**changed):
    """Run the reference engine on arrays of which one is changed."""
    layer = drawn()
    given = {"sequences": [X], "constants": [], "states": [H], "parameters": layer.get_weights(), **changed}
    return ReferenceEngine(layer.recurrence).forward(**given)


def noisy():
    layer = RecurrentSequential([Dropout(0.5)])
    layer.build(X.shape)
    return ReferenceEngine(layer.recurrence)


def forced(answer):
    layer = RecurrentSequential([GRUCell(3)], readout=True, teacher_force=lambda: answer)
    return layer(X, ground_truth=X, training=True)


def one_weight(value):
    layer = drawn()
    layer.set_weights([layer.get_weights()[0], value])


MISUSES = {
    "a mask of unequal rows": (lambda: drawn()(X, mask=UNEQUAL), TypeError, ["mask must be a numeric array; got list"]),
    "unequal lengths": (lambda: drawn()(X, lengths=UNEQUAL), TypeError, ["lengths must be a numeric array; got list"]),
    "real lengths": (lambda: drawn()(X, lengths=[1.0, 2.0]), ValueError, ["lengths must be integers", "float64"]),
    "an input of unequal rows": (lambda: drawn()(UNEQUAL), TypeError, ["x must be a numeric array; got list"]),
    "a symbolic gradient": (
        lambda: (lambda layer: layer.backward(layer.forward(X)[1], x_t))(drawn()),
        TypeError,
        ["dy must be a numeric array; got Tensor", "symbolic"],
    ),
    "a symbolic state": (lambda: drawn()(X, initial_state=x_t), TypeError, ["initial_state", "symbolic"]),
    "a mask for a list of masks": (
        lambda: RecurrentSequential([Dropout(0.5)])(X, dropout_masks=X),
        TypeError,
        ["dropout_masks must be a list of arrays; got ndarray"],
    ),
    "too few dropout masks": (
        lambda: RecurrentSequential([Dropout(0.5)])(X, dropout_masks=[]),
        ValueError,
        ["has 1 masks", "got 0"],
    ),
    "a probability too large, later": (lambda: forced(2), ValueError, ["teacher_force", "it answered 2.0"]),
    "no probability, later": (lambda: forced(None), TypeError, ["teacher_force", "it answered None"]),
    "complex weights": (lambda: one_weight(np.ones(4) * 1j), TypeError, ["weights.1. holds real", "complex128"]),
    "words as weights": (lambda: one_weight(["1"] * 4), TypeError, ["weights.1. holds real numbers; got dtype <U1"]),
    "a weight of unequal rows": (lambda: one_weight(UNEQUAL), TypeError, ["weights.1. must be a numeric array"]),
    "a number for weights": (lambda: drawn().set_weights(5), TypeError, ["weights must be a list of arrays; got 5"]),
    "weights by name": (
        lambda: drawn().set_weights({"kernel": np.ones((3, 4)), "bias": np.ones(4)}),
        TypeError,
        ["weights must be a list of arrays in the layer's order; got dict: list its values"],
    ),
    "a word as parameter": (lambda: Parameter("w", "b"), TypeError, ["parameter 'w' holds real numbers"]),
    "a value of another shape": (
        lambda: Parameter("w", [1.0]).assign([1.0, 2.0]),
        ValueError,
        ["'w' has shape", r"\(1,\)", r"\(2,\)"],
    ),
    "nothing in a step": (lambda: x_t + None, TypeError, ["numbers and arrays of them; got None"]),
    "a word in a step": (lambda: constant("a"), TypeError, ["numbers and arrays of them; got 'a'"]),
    "unequal rows in a step": (lambda: x_t + UNEQUAL, TypeError, ["a value in a step must be a numeric array"]),
    "an initializer of unequal rows": (lambda: initializers.get(UNEQUAL), TypeError, ["an initializer that is no"]),
    "a dictionary as initializer": (lambda: initializers.get({}), TypeError, ["an initializer that is no name"]),
    "first tokens of unequal rows": (lambda: generation.greedy(language(), UNEQUAL, 3), TypeError, ["start must be"]),
    "real first tokens": (
        lambda: generation.greedy(language(), [0.0], 3),
        ValueError,
        ["start must be int", "float64"],
    ),
    "a word as seed": (lambda: drawn(seed="a"), TypeError, ["seed must be an integer, at least 0; got 'a'"]),
    "a negative seed": (lambda: set_random_seed(-1), ValueError, ["seed must be an integer, at least 0; got -1"]),
    "a seed of tokens": (lambda: generation.sample(language(), [0], 3, seed=0.5), TypeError, ["seed must be .* 0.5"]),
    "a layer for the engine": (lambda: ReferenceEngine(drawn()), TypeError, ["takes a Recurrence", "RecurrentModel"]),
    "a list for an array": (
        lambda: engine(states=[H.tolist()]),
        TypeError,
        ["states.0. must be a NumPy array", "list"],
    ),
    "no dropout masks": (
        lambda: noisy().forward([X], [], [], []),
        ValueError,
        ["2 sequence arrays are needed; got 1, for <Tensor.*noise", "ones, unless in training, for noise"],
    ),
    "no list of constants": (lambda: engine(constants=None), TypeError, ["constants must be a list of arrays"]),
    "a list for a mask": (
        lambda: engine(mask=[[True] * 5] * 2),
        TypeError,
        ["mask must be a NumPy array; got builtins"],
    ),
    "masks of a layer that is not built": (
        lambda: RecurrentSequential([Dropout(0.5)]).noise_shapes,
        AttributeError,
        ["'noise_shapes' is known once the layer is built"],
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_answered(name):
    assert missing_words(*MISUSES[name]) == []


def test_empty_lists_for_an_empty_batch():
    assert drawn()(X[:0], lengths=[]).shape == (0, 4)
    none = generation.greedy(language(), [], 3)
    assert (none.tokens.shape, none.scores.shape) == ((0, 3), (0,))
    assert generation.beam_search(language(), [], 3, width=2).tokens.shape == (0, 3)
