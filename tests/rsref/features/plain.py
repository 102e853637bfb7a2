"""The judge of the features: a plain loop that a test writes itself, differentiated by complex steps."""

import numpy as np

from tests.tolerances import assert_close


def factor(shape):
    """Fixed numbers by which answers are weighed in the loss, so that no gradient is like another."""
    return np.cos(1.0 + np.arange(np.prod(shape, dtype=int))).reshape(shape)


def complex_gradients(function, leaves):
    """Return the gradients of the weighed sum of a function's answers with respect to every leaf."""
    gradients = []
    for i, leaf in enumerate(leaves):
        gradient = np.zeros(np.shape(leaf))
        for place in np.ndindex(*np.shape(leaf)):
            moved = [np.asarray(v, complex) for v in leaves]
            moved[i] = moved[i].copy()
            moved[i][place] += 1e-30j
            gradient[place] = sum((factor(v.shape) * v).sum() for v in function(*moved)).imag / 1e-30
        gradients.append(gradient)
    return gradients


def check(layer, plain, *, x, arguments=None, leaves=None, read=None):
    """Compare a layer with a plain loop: answers, and gradients of x, of the weights and of further leaves.

    plain(x, *leaves, *weights) -> list of answers. arguments: of `forward`. leaves: further arrays that the loop takes.
    read: the gradients of these leaves, from the layer's gradients.
    """
    answer, tape = layer.forward(x, **(arguments or {}))
    answers = answer if isinstance(answer, list) else [answer]
    gradients = layer.backward(tape, [factor(v.shape) for v in answers])
    leaves = list(leaves or [])
    taken = [x, *leaves, *layer.get_weights()]
    expected = plain(*taken)
    assert len(answers) == len(expected)
    for one, other in zip(answers, expected, strict=True):
        assert_close(one, other)
    found = [gradients.x, *(read(gradients) if read else []), *gradients.weights]
    for one, other in zip(found, complex_gradients(plain, taken), strict=True):
        assert_close(one, other)


def greater(a, b):
    """The greater of two arrays by their real parts."""
    return np.where(np.real(a) > np.real(b), a, b)
