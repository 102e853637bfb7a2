"""Misuse of what is handed in as arrays, to layers and to engines: see test_errors."""

import numpy as np
import pytest

from rsref import (
    Dropout,
    GRUCell,
    Input,
    Parameter,
    Recurrence,
    RecurrentModel,
    RecurrentSequential,
    ReferenceEngine,
    RNNCell,
    StepGraph,
    constant,
    generation,
    initializers,
    ops,
    set_random_seed,
)
from tests.rsref.misuse import missing_words
from tests.rsref.test_errors import X, drawn, language

H = np.zeros((2, 4))
UNEQUAL = [[1.0, 2.0], [3.0]]
x_t, word, anything = Input((3,)), Input((), dtype="int"), Input((None,))


def engine(**changed):
    """Run the reference engine on arrays of which one is changed."""
    layer = drawn()
    given = {"sequences": [X], "constants": [], "states": [H], "parameters": layer.get_weights(), **changed}
    return ReferenceEngine(layer.recurrence).forward(**given)


def looped(**parts):
    return ReferenceEngine(Recurrence(StepGraph(**parts)))


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
    "real numbers for integers": (
        lambda: looped(sequences=[word], outputs=[word]).forward([np.zeros((2, 5))], [], [], []),
        TypeError,
        ["<Tensor .* int> takes int values; got dtype float64"],
    ),
    "a state that grows": (
        lambda: looped(states=[anything], new_states=[ops.tile(anything[:, :4], (1, 2))], outputs=[anything]).forward(
            [], [], [H], [], steps=2
        ),
        ValueError,
        [r"state <Tensor .*shape \(2, 4\) becomes \(2, 8\) after a step"],
    ),
    "an output for the tape": (
        lambda: looped(sequences=[x_t], outputs=[x_t]).backward(X, [None], []),
        TypeError,
        ["takes the tape that forward answered; got numpy.ndarray"],
    ),
    "a masked array": (
        lambda: drawn()(np.ma.masked_greater(X, 1.0)),
        TypeError,
        ["x must be a numeric array; got a masked one of numpy.ma: give its data, and a mask"],
    ),
    "a masked array as a mask": (
        lambda: drawn()(X, mask=np.ma.masked_less(np.ones(X.shape[:2], bool), 0)),
        TypeError,
        ["mask must be a numeric array; got a masked one of numpy.ma"],
    ),
    "a place beyond 64 bits": (
        lambda: language()(np.full((2, 3), 2**64 - 1, np.uint64)),
        ValueError,
        ["x: <Tensor", "takes whole numbers up to 9223372036854775807; got 18446744073709551615"],
    ),
    "a place beyond 64 bits for an engine": (
        lambda: looped(sequences=[word], outputs=[word]).forward([np.full((2, 3), 2**63, np.uint64)], [], [], []),
        ValueError,
        ["takes whole numbers up to 9223372036854775807; got 9223372036854775808"],
    ),
    "a tape of another recurrence": (
        lambda: looped(sequences=[x_t], outputs=[x_t]).backward(
            looped(sequences=[x_t], outputs=[x_t + x_t]).forward([X], [], [], [])[2], [X], []
        ),
        TypeError,
        ["takes the tape that forward answered; got that of another recurrence"],
    ),
    "no list of gradients": (
        lambda: (lambda e: e.backward(e.forward([X], [], [], [])[2], None, []))(looped(sequences=[x_t], outputs=[x_t])),
        TypeError,
        ["output gradients must be a list of arrays and None; got NoneType"],
    ),
    "a gradient of words": (
        lambda: (lambda e: e.backward(e.forward([X], [], [], [])[2], [X.astype(str)], []))(
            looped(sequences=[x_t], outputs=[x_t])
        ),
        TypeError,
        ["the gradient of output 0 must hold numbers; got dtype <U"],
    ),
    "a mask of numbers": (
        lambda: looped(sequences=[x_t], outputs=[x_t]).forward([X], [], [], [], X[..., 0]),
        TypeError,
        ["mask must hold booleans; got dtype float64"],
    ),
    "an array with a mask of its own": (
        lambda: looped(sequences=[x_t], outputs=[x_t]).forward([np.ma.array(X)], [], [], []),
        TypeError,
        [r"sequences\[0\] must be a NumPy array; got numpy.ma"],
    ),
    "a complex gradient": (
        lambda: (lambda e: e.backward(e.forward([X], [], [], [])[2], [X * 1j], []))(
            looped(sequences=[x_t], outputs=[x_t])
        ),
        TypeError,
        ["output 0 is real; its gradient has dtype complex128"],
    ),
    "no start for a state of any length": (
        lambda: RecurrentModel(x_t, x_t * 2, anything, anything * 2)(X),
        ValueError,
        [r"initial_state 0 needs a known shape after the batch axis; got \(None,\): give it in the call"],
    ),
    "a truth of other steps, at inference": (
        lambda: RecurrentSequential([GRUCell(3)], readout=True, teacher_force=True)(X, ground_truth=X[:, :4]),
        ValueError,
        [r"ground_truth must have shape \(2, 5\)", r"got \(2, 4, 3\)"],
    ),
    "a matrix of rank 1": (
        lambda: initializers.get("identity")((3,)),
        ValueError,
        ["identity needs a shape of rank 2"],
    ),
    "a vector of orthonormal rows": (lambda: initializers.get("orthogonal")((3,)), ValueError, ["orthogonal needs"]),
    "complex numbers in a step": (lambda: Input((3,), dtype="complex64"), ValueError, ["'complex64' is not accepted"]),
    "a word as dtype": (lambda: Input((3,), dtype="number"), ValueError, ["dtype 'number' is not accepted"]),
    "a cell of no step": (lambda: RNNCell().build((None, 3)), TypeError, ["write its method build_model"]),
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


def test_a_truth_that_fits_changes_nothing_at_inference():
    layer = RecurrentSequential([GRUCell(3)], readout=True, teacher_force=True)
    np.testing.assert_array_equal(layer(X, ground_truth=X + 1), layer(X))
