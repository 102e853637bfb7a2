"""Every misuse is answered before anything is computed, by a fitting exception that names what was given."""

import numpy as np
import pytest

from rsref import (
    Activation,
    AttentionDecoderCell,
    ConvLSTMCell,
    Dense,
    Dropout,
    Embedding,
    Input,
    LayerCell,
    LayerNormGRUCell,
    LSTMCell,
    MinGRUCell,
    MLSTMCell,
    Model,
    Parameter,
    RecurrentModel,
    RecurrentSequential,
    RNNCell,
    RNNCellFromModel,
    SLSTMCell,
    add,
    generation,
    ops,
)
from rsref.plain_data import to_data
from rsref.tensor import Spec, Tensor
from rsref.testing import check_gradients
from tests.rsref.features.test_readout import TanhCell
from tests.rsref.misuse import missing_words


def drawn(**options):
    x, h = Input((3,)), Input((4,))
    new = ops.tanh(Dense(4)(x) + h)
    return RecurrentModel(x, new, h, new, **options)


def built_stack():
    stack = RecurrentSequential([LSTMCell(4)])
    stack.build((None, None, 4))
    return stack


def with_readout(**options):
    x, h, r = Input((3,)), Input((4,)), Input((4,))
    new = ops.tanh(Dense(4)(x) + h + r)
    return RecurrentModel(x, new, h, new, r, **options)


def language():
    token, h = Input((), dtype="int"), Input((8,))
    new = ops.tanh(Embedding(5, 8)(token) + Dense(8)(h))
    return RecurrentModel(token, Dense(5)(new), h, new)


def with_constant():
    x, c = Input((3,)), Input((3,))
    return RecurrentModel(x, x + c, constants=c)


class Forgetful(RNNCell):
    def __init__(self):
        self.units = 3


X = np.zeros((2, 5, 3))
x_t, h_tm1, i_tm1 = Input((3,)), Input((4,)), Input((1,), dtype="int")

MISUSES = {
    "an option of a kernel that is not there": (
        lambda: MinGRUCell(4, recurrent_dropout=0.5),
        TypeError,
        ["MinGRUCell has no recurrent kernel", "recurrent_dropout"],
    ),
    "images of other channels": (
        lambda: ConvLSTMCell(4, 3, input_dim=2).get_layer().build((None, None, 8, 8, 3)),
        ValueError,
        ["input_dim=2", "8, 8, 3"],
    ),
    "an encoded sequence of other features": (
        lambda: AttentionDecoderCell(4, input_dim=2).get_layer(decode=True).build((None, None, 3)),
        ValueError,
        ["input_dim=2", "None, 3"],
    ),
    "a normalised GRU that resets before": (
        lambda: LayerNormGRUCell(4, reset_after=False),
        ValueError,
        ["reset_after"],
    ),
    "a cell of a step without an input": (
        lambda: RecurrentModel(None, h_tm1 + 1, h_tm1, h_tm1 + 1, decode=True).get_cell(),
        ValueError,
        ["a cell has one output, an input", "0 inputs"],
    ),
    "a cell of a layer that says where its states start": (
        lambda: RecurrentSequential([TanhCell(4)], state_initializer="learned").get_cell(),
        ValueError,
        ["state_initializer='learned'", "the layer around it"],
    ),
    "a cell's model without its new state": (
        lambda: RNNCellFromModel(Model([x_t, h_tm1], Dense(4)(x_t) + h_tm1)).get_layer()(X),
        ValueError,
        ["takes 2 inputs and 0 states", "a stack gives it one input"],
    ),
    "a weight that is not its tensor": (
        lambda: x_t * Parameter("scale", np.ones(3)),
        TypeError,
        ["Parameter scale", "stands in a step as its .tensor"],
    ),
    "a weight that is not its tensor in a product": (
        lambda: ops.matmul(x_t, Parameter("kernel", np.ones((3, 3)))),
        TypeError,
        ["Parameter kernel", "its .tensor"],
    ),
    "a layer that is not called": (lambda: x_t + Dense(3), TypeError, ["Tensors, numbers and arrays", "Dense"]),
    "a number for a sequence": (lambda: RecurrentSequential([TanhCell(4)])(3.0), ValueError, [r"got \(\)"]),
    "a number for a readout": (lambda: RecurrentSequential(readout=1), ValueError, ["readout must be", "got 1"]),
    "a state without its new value, beside a readout": (
        lambda: RecurrentModel(x_t, x_t, h_tm1, readout_input=Input((3,))),
        ValueError,
        ["equally many; got 1 and 0"],
    ),
    "truncation after True steps": (lambda: drawn(truncate=True), ValueError, ["truncate", "got True"]),
    "the greatest of nothing": (
        lambda: RecurrentModel(*(lambda x: (x, ops.max(x, 1)))(Input((None,))), decode=True, output_length=1)(
            np.zeros((2, 0))
        ),
        ValueError,
        ["max", r"\(2, 0\) holds no values"],
    ),
    "the place of the least of nothing": (lambda: ops.argmin(Input((0,)), 1), ValueError, ["argmin", "no values"]),
    "floats for a model of integers": (
        lambda: Model(i_tm1, i_tm1 + 1)(Input((1,))),
        TypeError,
        ["takes int values", "float"],
    ),
    "heads that do not divide": (lambda: MLSTMCell(4, heads=3), ValueError, ["4 units", "3 equal heads"]),
    "an unknown forget gate": (lambda: SLSTMCell(4, forget_gate="relu"), ValueError, ["forget_gate", "relu"]),
    "images of unknown size": (
        lambda: ConvLSTMCell(4, 3).get_layer().build((None, None, None, 8, 3)),
        ValueError,
        ["known lengths", "None, 8, 3"],
    ),
    "a window of another rank": (
        lambda: ConvLSTMCell(4, (3, 3)).get_layer().build((None, None, 8, 3)),
        ValueError,
        ["kernel_size", r"\(3, 3\)"],
    ),
    "a wrapped layer of another shape": (
        lambda: LayerCell(Dense(5)).get_layer()(X),
        ValueError,
        [r"\(None, 5\)", r"\(None, 3\)", "state_shape"],
    ),
    "a wrapped cell": (lambda: LayerCell(MinGRUCell(4)), TypeError, ["wraps a layer"]),
    "an unknown merge": (lambda: LayerCell(Dense(5), merge="glue"), ValueError, ["merge", "glue"]),
    "unequal numbers of states": (
        lambda: RecurrentModel(x_t, h_tm1, [h_tm1], []),
        ValueError,
        ["initial_states", "1 and 0"],
    ),
    "state shapes differ": (
        lambda: RecurrentModel(x_t, h_tm1, h_tm1, Dense(5)(h_tm1)),
        ValueError,
        ["state 0", r"\(None, 4\)", r"\(None, 5\)"],
    ),
    "a final state from elsewhere": (
        lambda: RecurrentModel(x_t, h_tm1, h_tm1, Input((4,), name="stranger")),
        ValueError,
        ["final state", "not computed from the step's inputs", "stranger"],
    ),
    "an output from elsewhere": (lambda: RecurrentModel(x_t, Dense(2)(h_tm1)), ValueError, ["output", "not computed"]),
    "no output": (lambda: RecurrentModel(x_t), ValueError, ["output", "none"]),
    "a number as output": (lambda: RecurrentModel(x_t, 3.0), TypeError, ["output must hold Tensors", "3.0"]),
    "a computed state": (
        lambda: RecurrentModel(x_t, h_tm1, h_tm1 * 2, h_tm1),
        ValueError,
        ["state", "computed tensor"],
    ),
    "a leaf named twice": (lambda: RecurrentModel(x_t, x_t, x_t, x_t), ValueError, ["named twice"]),
    "readout of another shape": (
        lambda: RecurrentModel(x_t, h_tm1 + 0, h_tm1, h_tm1 + 0, readout_input=x_t),
        ValueError,
        ["readout_input", r"\(None, 3\)", r"\(None, 4\)"],
    ),
    "forcing without readout": (lambda: drawn(teacher_force=True), ValueError, ["teacher_force needs a readout"]),
    "a probability above one": (lambda: with_readout(teacher_force=1.5), ValueError, ["teacher_force", "1.5"]),
    "a word as probability": (lambda: with_readout(teacher_force="often"), TypeError, ["teacher_force", "often"]),
    "a truth of another length, not in training": (
        lambda: with_readout(teacher_force=True)(X, ground_truth=np.zeros((2, 4, 4))),
        ValueError,
        ["ground_truth", r"\(2, 5\)", r"\(2, 4, 4\)"],
    ),
    "no truth in training": (lambda: with_readout(teacher_force=True)(X, training=True), ValueError, ["ground_truth"]),
    "a truth of another length": (
        lambda: with_readout(teacher_force=True)(X, ground_truth=np.zeros((2, 4, 4)), training=True),
        ValueError,
        ["ground_truth", r"\(2, 5\)", r"\(2, 4, 4\)"],
    ),
    "decoding without a length": (lambda: drawn(decode=True)(X[:, 0]), ValueError, ["decode=True needs output_length"]),
    "a negative length": (lambda: drawn(decode=True, output_length=-1), ValueError, ["output_length", "-1"]),
    "a length without decoding": (lambda: drawn(output_length=3), ValueError, ["output_length=3", "decode"]),
    "a wrong rank": (lambda: drawn()(X[0]), ValueError, ["x", r"\(5, 3\)", "batch, time"]),
    "a wrong width": (lambda: drawn()(np.zeros((2, 5, 9))), ValueError, ["x", r"\(2, 5, 9\)", r"3"]),
    "strings": (lambda: drawn()(np.array([[["a", "b", "c"]]])), TypeError, ["x must be a numeric array", "dtype"]),
    "objects": (lambda: drawn()(np.array([[[None, 1, 2]]])), TypeError, ["x must be a numeric array", "object"]),
    "a symbolic tensor": (lambda: drawn()(x_t), TypeError, ["runs on arrays", "get_cell"]),
    "a state of another shape": (
        lambda: drawn()(X, initial_state=np.zeros((2, 5))),
        ValueError,
        ["initial_state", r"\(2, 5\)", r"\(None, 4\)"],
    ),
    "a state of another batch": (
        lambda: drawn()(X, initial_state=np.zeros((3, 4))),
        ValueError,
        ["initial_state", "batch size 3", "2"],
    ),
    "too many states": (
        lambda: drawn()(X, initial_state=[np.zeros((2, 4))] * 2),
        ValueError,
        ["initial_state", "got 2"],
    ),
    "a readout that is not there": (lambda: drawn()(X, initial_readout=np.zeros((2, 4))), ValueError, ["no readout"]),
    "a mask of another shape": (
        lambda: drawn()(X, mask=np.ones((2, 4), bool)),
        ValueError,
        ["mask", r"\(2, 5\)", r"\(2, 4\)"],
    ),
    "a mask of numbers": (lambda: drawn()(X, mask=np.full((2, 5), 0.5)), TypeError, ["mask", "booleans"]),
    "lengths too long": (lambda: drawn()(X, lengths=[9, 1]), ValueError, ["lengths", "9"]),
    "mask and lengths": (lambda: drawn()(X, lengths=[1, 1], mask=np.ones((2, 5))), ValueError, ["mask and lengths"]),
    "a mask that a decoder cannot use": (
        lambda: drawn(decode=True, output_length=2)(X[:, 0], mask=np.ones((2, 2), bool)),
        ValueError,
        ["mask_input"],
    ),
    "a half-precision layer": (lambda: drawn(dtype="float16"), ValueError, ["dtype", "float32", "float16"]),
    "an unknown initializer": (lambda: drawn(state_initializer="tens"), ValueError, ["tens", "zeros"]),
    "too many initializers": (
        lambda: drawn(state_initializer=["ones"] * 2),
        ValueError,
        ["state_initializer", "2", "1"],
    ),
    "no cells": (lambda: RecurrentSequential()(X), ValueError, ["no layers"]),
    "a layer in a stack": (lambda: RecurrentSequential([drawn()]), TypeError, ["get_cell"]),
    "a number in a stack": (lambda: RecurrentSequential([3]), TypeError, ["3"]),
    "an unknown readout": (
        lambda: RecurrentSequential([TanhCell(3)], readout="plus"),
        ValueError,
        ["readout", "plus", "add"],
    ),
    "a readout that does not fit": (
        lambda: RecurrentSequential([TanhCell(5)], readout=True)(X),
        ValueError,
        ["readout", r"\(None, 5\)", r"\(None, 3\)"],
    ),
    "cells that cannot share states": (
        lambda: RecurrentSequential([TanhCell(5), TanhCell(6)], state_sync=True)(X),
        ValueError,
        ["state_sync", "tanh_cell", r"\(None, 5\)", r"\(None, 6\)"],
    ),
    "weights of another number": (lambda: drawn().set_weights([np.zeros((3, 4))]), ValueError, ["2 weights", "got 1"]),
    "weights of another shape": (
        lambda: drawn().set_weights([np.zeros((4, 3)), np.zeros(4)]),
        ValueError,
        ["kernel", r"\(3, 4\)", r"\(4, 3\)"],
    ),
    "an unknown activation": (lambda: Activation("reluu"), ValueError, ["reluu", "relu"]),
    "no units": (lambda: Dense(0), ValueError, ["units", "0"]),
    "units that are not a number": (lambda: Dense("ten"), TypeError, ["units", "ten"]),
    "shapes that cannot be added": (lambda: add([x_t, h_tm1]), ValueError, ["add", r"\(None, 3\)", r"\(None, 4\)"]),
    "lengths that cannot be multiplied": (
        lambda: ops.matmul(x_t, np.zeros((5, 2))),
        ValueError,
        ["matmul", r"\(5, 2\)"],
    ),
    "a layer on an array": (lambda: Dense(2)(X), TypeError, ["Tensors", "ndarray"]),
    "a question to a tensor": (lambda: bool(x_t > 0), TypeError, ["where"]),
    "a NumPy function without op": (lambda: np.fft.fft(x_t), TypeError, ["fft"]),
    "too few tensors for a cell": (lambda: TanhCell(4)([x_t]), ValueError, ["1 states", "got 1"]),
    "a model that is no cell": (
        lambda: RNNCellFromModel(Model([x_t], [x_t, x_t])),
        ValueError,
        ["1 inputs", "2 outputs"],
    ),
    "a shape that is a number": (lambda: Input(5), TypeError, ["shape", "5"]),
    "an input of strings": (lambda: Input((5,), dtype="str"), ValueError, ["dtype", "float, int and bool"]),
    "a gradient of another shape": (
        lambda: (lambda layer: layer.backward(layer.forward(X)[1], np.zeros((2, 9))))(drawn()),
        ValueError,
        ["dy", r"\(2, 9\)", r"\(2, 4\)"],
    ),
    "too many gradients": (
        lambda: (lambda layer: layer.backward(layer.forward(X)[1], [None, None]))(drawn()),
        ValueError,
        ["dy", "1", "got 2"],
    ),
    "a gradient without a tape": (lambda: drawn().backward(X, X), TypeError, ["tape", "forward"]),
    "another layer's tape": (
        lambda: drawn().backward(drawn().forward(X)[1], np.zeros((2, 4))),
        ValueError,
        ["another layer's"],
    ),
    "a tape that kept nothing": (
        lambda: (lambda layer: layer.backward(layer.forward(X, taped=False)[1], np.zeros((2, 4))))(drawn()),
        ValueError,
        ["nothing was kept for backward", "taped=False"],
    ),
    "a mask of other numbers": (lambda: drawn()(X, mask=np.full((2, 5), 2)), TypeError, ["mask", "0 and 1", "value 2"]),
    "constants of another batch": (
        lambda: with_constant()(X, constants=np.zeros((7, 3))),
        ValueError,
        ["constants", "batch size 7", "2"],
    ),
    "a truth that nobody reads": (
        lambda: drawn()(X, ground_truth=np.zeros((2, 5, 4))),
        ValueError,
        ["ground_truth is given", "teacher_force is False"],
    ),
    "the name of an engine": (lambda: drawn(engine="fast"), TypeError, ["engine", "rsref_fast.compile", "'fast'"]),
    "a cell for a list": (lambda: RecurrentSequential(MinGRUCell(4)), TypeError, ["must be a list", "MinGRUCell"]),
    "an option of the loop for a cell": (
        lambda: LSTMCell(4, return_sequences=True),
        TypeError,
        ["LSTMCell has no option return_sequences", "get_layer"],
    ),
    "a word as rate": (lambda: Dropout("half"), TypeError, ["rate must be a number", "half"]),
    "a cell that does not start its base": (
        lambda: Forgetful().get_layer()(X),
        AttributeError,
        [r"Forgetful.__init__ must call super\(\).__init__"],
    ),
    "states of a cell that is not built": (lambda: LSTMCell(4).states, AttributeError, ["once it is built", "call it"]),
    "a step that is not drawn yet": (
        lambda: RecurrentSequential([MinGRUCell(4)]).recurrence,
        AttributeError,
        ["recurrence", "once the layer is built"],
    ),
    **{
        f"{name} that is set once the step is drawn": (
            lambda name=name, value=value: setattr(drawn(), name, value),
            AttributeError,
            [f"the step was drawn with {name}=", "make a new layer"],
        )
        for name, value in (("decode", True), ("dtype", "float32"), ("state_initializer", "ones"))
    },
    **{
        f"{name} that is set once the stack is drawn": (
            lambda name=name, value=value: setattr(built_stack(), name, value),
            AttributeError,
            [f"the step was drawn with {name}=", "make a new layer"],
        )
        for name, value in (("readout", True), ("state_sync", True), ("readout_activation", "tanh"))
    },
    "an engine that is set later and is none": (
        lambda: setattr(drawn(), "make_engine", "fast"),
        TypeError,
        ["engine must be a function from a Recurrence"],
    ),
    "a bad truncate that is set later": (
        lambda: setattr(drawn(), "truncate", 0),
        ValueError,
        ["truncate must be a positive number of steps or None; got 0"],
    ),
    "no attribute of a layer": (lambda: drawn().recurence, AttributeError, ["'recurence' is no attribute"]),
    "a method of arrays": (lambda: x_t.sum(), AttributeError, ["symbolic", r"numpy.sum\(x\) or rsref.ops.sum"]),
    "a Tensor of a dtype of its own": (lambda: Tensor(Spec((3,), "float32")), ValueError, ["'float32'", '"float"']),
    "equality with a number": (lambda: x_t == 0, TypeError, ["symbolic", r"rsref.ops.equal\(x, 0\)"]),
    **{
        f"equality with {other!r}": (lambda other=other: x_t == other, TypeError, ["symbolic", "rsref.ops.equal"])
        for other in (np.int64(3), np.float32(0), np.zeros(3), [0.0], (0.0,))
    },
    "bits of integers": (lambda: i_tm1 & 1, TypeError, ["& is drawn of booleans only", "rsref.ops.logical_and"]),
    "bits of the other": (lambda: (x_t > 0) | i_tm1, TypeError, ["is drawn of booleans only", "rsref.ops.logical_or"]),
    "inverted integers": (lambda: ~i_tm1, TypeError, ["~ is drawn of booleans only", "rsref.ops.logical_not"]),
    "products over axes that are not there": (
        lambda: ops.tensordot(Input((3, 4)), np.ones((3, 5)), ((3,), (0,))),
        ValueError,
        ["tensordot: axis 3 is out of range"],
    ),
    "products over unequal lists of axes": (
        lambda: ops.tensordot(np.ones((2, 3, 4)), np.ones((3, 5)), ((1, 2), (0,))),
        ValueError,
        ["tensordot: axes=", "as many axes"],
    ),
    "products over too many axes": (
        lambda: ops.tensordot(np.ones((3, 3)), np.ones((3, 3)), 3),
        ValueError,
        ["tensordot: axes=3", "ranks 2 and 2"],
    ),
    "a layer for a model": (lambda: RNNCellFromModel(Dense(3)), TypeError, ["takes a Model", "<Dense"]),
    "a number for a shape": (lambda: RecurrentSequential([MinGRUCell(4)]).build(3), TypeError, ["takes shapes", "3"]),
    "an initializer of another shape": (
        lambda: drawn(state_initializer=lambda shape: np.zeros(3))(X),
        ValueError,
        ["state_initializer: state 0", r"\(2, 4\); got \(3,\)"],
    ),
    "an integer state to learn": (
        lambda: RecurrentModel(x_t, h_tm1, [h_tm1, i_tm1], [h_tm1, i_tm1 + 1], state_initializer="learned"),
        ValueError,
        ["state_initializer: state 1", "dtype int", "cannot be learned"],
    ),
    "a word as temperature": (
        lambda: generation.sample(language(), [0], 3, temperature="hot"),
        TypeError,
        ["temperature", "hot"],
    ),
    "a cell to generate": (lambda: generation.greedy(MinGRUCell(4), [0], 3), TypeError, ["recurrent layer", "MinGRU"]),
    "an attribute of arrays": (lambda: x_t.T, AttributeError, ["rsref.ops.transpose"]),
    "an index out of range": (
        lambda: language()(np.full((2, 3), 7)),
        IndexError,
        ["take: index 7 is out of range", "size 5"],
    ),
    "an end that is no token": (
        lambda: generation.greedy(language(), [0], 3, end=5),
        ValueError,
        ["end must be a token, one of the 5 logits; got 5"],
    ),
    "a first token below 0": (lambda: generation.greedy(language(), [1, -1], 3), IndexError, ["start", "got -1"]),
    "an end of another kind": (lambda: generation.greedy(language(), [0], 3, end="."), TypeError, ["end", "'.'"]),
    "a layer for its data": (lambda: to_data(drawn()), TypeError, ["to_data takes a Recurrence", "RecurrentModel"]),
    "an unknown way to check": (
        lambda: check_gradients(drawn().recurrence, method="forward"),
        ValueError,
        ["method must be 'complex' or 'difference'; got 'forward'"],
    ),
    "the name of an engine to check": (
        lambda: check_gradients(drawn().recurrence, engine="fast"),
        TypeError,
        ["engine must be a function from a Recurrence to an Engine; got 'fast'"],
    ),
    "a layer for its recurrence": (lambda: check_gradients(drawn()), TypeError, ["takes a Recurrence", "RecurrentM"]),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_answered(name):
    assert missing_words(*MISUSES[name]) == []
