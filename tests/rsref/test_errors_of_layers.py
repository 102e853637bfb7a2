"""Misuse of layers and cells, in a step that is being drawn: see test_errors."""

import numpy as np
import pytest

from rsref import (
    Activation,
    AttentionDecoderCell,
    Conv,
    ConvLSTMCell,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GaussianDropout,
    GaussianNoise,
    GRUCell,
    Input,
    LayerCell,
    LayerNormalization,
    LSTMCell,
    Model,
    Recurrence,
    RecurrentModel,
    RecurrentSequential,
    RNNCell,
    StepGraph,
    Subtract,
    add,
    constraints,
    ops,
    regularizers,
)
from rsref.layers.base import Layer
from tests.rsref.misuse import missing_words

x_t, h_tm1, images, mask = Input((3,)), Input((4,)), Input((4, 6)), Input((None,), dtype="bool")


def drawing(draw):
    """Build a cell that draws its model so."""

    class Cell(RNNCell):
        def build_model(self, input_shape):
            return draw(Input(batch_shape=input_shape), Input((4,)))

    Cell().build((None, 4))


def built(*shapes):
    layer = RecurrentSequential([GRUCell(4)])
    layer.build(*(shapes or [(None, None, 3)]))
    return layer


def decoder():
    return RecurrentModel(x_t, x_t * 2, decode=True, output_length=2)


MISUSES = {
    **{
        f"two tensors for {layer.name}": (
            lambda layer=layer: layer([x_t, h_tm1]),
            ValueError,
            [f"{layer.name} takes 1 tensors; got 2"],
        )
        for layer in (Dense(4), Activation("elu"), LayerNormalization(), Dropout(0.5), Embedding(2, 3))
    },
    "three tensors to subtract": (lambda: Subtract()([x_t] * 3), ValueError, ["subtract.* takes 2 tensors; got 3"]),
    "no tensor for a layer": (lambda: Dense(4)([]), ValueError, ["takes 1 tensors; got 0"]),
    # what is asked of weights, and sizes
    **{
        f"an unknown {option} of {make.__name__}": (
            lambda make=make, option=option: make(4, **{option: "tens"}),
            ValueError,
            [f"{option.split('_')[-1]} 'tens' is unknown"],
        )
        for make in (Dense, GRUCell)
        for option in ("kernel_initializer", "bias_regularizer", "kernel_constraint")
    },
    "an unknown table": (lambda: Embedding(3, 4, "tens"), ValueError, ["initializer 'tens' is unknown"]),
    "a list as activation": (lambda: Dense(3, activation=[]), ValueError, [r"activation \[\] is unknown"]),
    "a list as constraint": (lambda: Dense(3, kernel_constraint=[]), ValueError, [r"constraint \[\] is unknown"]),
    "an initializer of one number": (
        lambda: Dense(4, bias_initializer=lambda _: 0.1)(x_t),
        ValueError,
        [r"the initializer of 'bias' answers shape \(\) where \(4,\) is needed"],
    ),
    "an array of another shape": (
        lambda: Dense(4, kernel_initializer=np.zeros((9, 9)))(x_t),
        ValueError,
        [r"an initial value of shape \(9, 9\)", r"\(3, 4\)"],
    ),
    "an orthogonal vector": (lambda: Dense(4, bias_initializer="orthogonal")(x_t), ValueError, ["rank 2 or more"]),
    "an identity of one axis": (lambda: Dense(4, bias_initializer="identity")(x_t), ValueError, ["rank 2; got"]),
    "an input of unknown width": (lambda: Dense(4)(Input((None,))), ValueError, ["'kernel' needs a known shape"]),
    "a window of another rank": (lambda: Conv(3, (3, 3))(images), ValueError, [r"kernel_size \(3, 3\)", "4, 6"]),
    "a real window": (lambda: Conv(3, 1.5), TypeError, ["kernel_size must be a positive integer; got 1.5"]),
    "units of filters": (lambda: ConvLSTMCell(units=3), TypeError, ["ConvLSTMCell has filters; got units=3"]),
    "no window": (lambda: ConvLSTMCell(3, (0, 3)), ValueError, ["kernel_size must be a positive integer; got 0"]),
    "real strides": (lambda: Conv(3, 3, strides=1.5)(images), TypeError, ["strides must be an integer; got 1.5"]),
    "groups that do not fit": (lambda: Conv(3, 3, groups=4)(images), ValueError, ["6 channels and 3 filters in 4"]),
    "a state of half a unit": (lambda: LayerCell(Dense(5), 2.5), TypeError, ["state_shape", "2.5"]),
    "an unknown width to flatten": (lambda: Flatten()(Input((None, 3))), ValueError, ["axes after the batch must be"]),
    "an unknown life time": (lambda: Dropout(0.5, per="epoch"), ValueError, ["per must be", "'epoch'"]),
    "noise for an age": (lambda: GaussianNoise(0.5, per="epoch"), ValueError, ["per must be", "'epoch'"]),
    "noise below nothing": (lambda: GaussianNoise(-1), ValueError, ["stddev must be at least 0 and finite; got -1"]),
    "noise without end": (lambda: GaussianNoise(np.inf), ValueError, ["stddev must be at least 0 and finite; got inf"]),
    "a word as noise": (lambda: GaussianNoise("much"), TypeError, ["stddev must be a number, at least 0; got 'much'"]),
    "everything scaled": (lambda: GaussianDropout(1.0), ValueError, ["rate must be at least 0 and less than 1"]),
    "everything dropped": (lambda: Dropout(1.0), ValueError, ["rate must be at least 0 and less than 1; got 1.0"]),
    "one tensor to merge": (lambda: add([x_t]), ValueError, ["merges a list of two or more"]),
    # cells and models
    "two numbers of units": (lambda: GRUCell(4, output_dim=5), ValueError, ["units=4 and output_dim=5"]),
    "images for a GRU": (lambda: GRUCell(4).build((None, 4, 5)), ValueError, [r"an input \(batch, features\) a step"]),
    "features for an attention": (lambda: AttentionDecoderCell(4).build((None, 4)), ValueError, ["use decode=True"]),
    "a cell that draws nothing": (lambda: RNNCell().build((None, 3)), TypeError, ["write its method build_model"]),
    "a layer that draws nothing": (lambda: Layer()(x_t), TypeError, ["write its method call"]),
    "a cell that draws a number": (lambda: drawing(lambda x, h: 5), TypeError, ["must answer a Model; got int"]),
    "a cell without an input": (
        lambda: drawing(lambda x, h: Model([x], [x, x])),
        ValueError,
        ["1 inputs and 2 outputs"],
    ),
    "a state that changes its shape": (
        lambda: drawing(lambda x, h: Model([x, h], [x, h[:, :2]])),
        ValueError,
        ["the state .* and its new value .* differ in shape"],
    ),
    "a cell called as Keras's": (
        lambda: LSTMCell(4)(Input((3,)), [Input((4,)), Input((4,))]),
        TypeError,
        ["in one list", "a mask, a Tensor; got list"],
    ),
    "a drawn step built for other features": (
        lambda: RecurrentModel(x_t, h_tm1, h_tm1, h_tm1).build((None, None, 5)),
        ValueError,
        [r"drawn for inputs \[\(None, 3\)\]", r"built for \[\(None, 5\)\]"],
    ),
    "a model called on two": (
        lambda: (lambda x: Model(x, ops.tanh(x))(x, [x]))(Input((3,))),
        TypeError,
        ["in one list", "got list"],
    ),
    "an array for a cell": (lambda: GRUCell(4)([np.zeros((2, 3))] * 2), TypeError, ["draws on Tensors", "ndarray"]),
    "an array for a model": (lambda: Model(x_t, x_t * 2)(np.zeros(3)), TypeError, ["takes Tensors; got ndarray"]),
    "two tensors for a model": (lambda: Model(x_t, x_t * 2)([x_t, x_t]), ValueError, ["takes 1 tensors; got 2"]),
    "another width for a model": (lambda: Model(x_t, x_t * 2)(h_tm1), ValueError, ["does not accept", "None, 4"]),
    "a mask for a model": (lambda: Model(x_t, x_t * 2)(x_t, mask=mask), ValueError, ["has no mask_input"]),
    "a step of numbers": (lambda: StepGraph(outputs=[1]), TypeError, ["must be Tensors; got 1"]),
    "an input that is a word": (lambda: Model("x", x_t), TypeError, ["must be a Tensor made by rsref.Input"]),
    "states of a step": (lambda: StepGraph(states=[h_tm1], outputs=[h_tm1]), ValueError, ["equally many; got 1 and 0"]),
    "a loop of a number": (lambda: Recurrence(5), TypeError, ["a StepGraph in a loop; got int"]),
    # recurrent layers, as early as they can know
    "no truncation of a recurrence": (
        lambda: Recurrence(StepGraph(sequences=[x_t], outputs=[x_t]), truncate=0),
        ValueError,
        ["truncate must be a positive", "got 0"],
    ),
    "a word as precision": (
        lambda: RecurrentSequential(dtype="double precision"),
        ValueError,
        ['dtype must be "float32" or "float64"; got .double precision.'],
    ),
    "one axis to build for": (
        lambda: RecurrentSequential([GRUCell(4)]).build((3,)),
        ValueError,
        [r"takes inputs \(batch, time, ...\), or \(batch, ...\) to decode; got \(3,\)"],
    ),
    "no truncation": (lambda: RecurrentSequential(truncate=0), ValueError, ["truncate must be a positive", "got 0"]),
    "an unknown start": (lambda: RecurrentSequential(state_initializer="tens"), ValueError, ["'tens' is unknown"]),
    "forcing without readout": (lambda: RecurrentSequential(teacher_force=0.5), ValueError, ["teacher_force needs"]),
    "a mask without decoding": (
        lambda: RecurrentModel(x_t, x_t * 2, mask_input=mask),
        ValueError,
        ["mask_input needs decode=True"],
    ),
    "a mask of no input": (
        lambda: RecurrentModel(None, h_tm1, h_tm1, h_tm1, mask_input=mask, decode=True),
        ValueError,
        ["mask_input needs an input"],
    ),
    "more readouts than outputs": (
        lambda: RecurrentModel(x_t, h_tm1, readout_input=[Input((4,)), Input((4,))]),
        ValueError,
        ["readout_input: 2 are given for 1 outputs"],
    ),
    "a layer on a stack that has run": (lambda: built().add(GRUCell(4)), ValueError, ["no layer can be added"]),
    "two inputs for a stack": (lambda: built((None, None, 3), (None, None, 3)), ValueError, ["takes one input; got 2"]),
    "states of a stack that is not built": (
        lambda: RecurrentSequential([GRUCell(4)], stateful=True).reset_states(np.zeros((2, 4))),
        ValueError,
        ["once the layer is built"],
    ),
    "steps without an input": (
        lambda: RecurrentModel(None, h_tm1 * 2, h_tm1, h_tm1)(),
        ValueError,
        ["no input to take its steps from"],
    ),
    "a length for a layer that does not decode": (
        lambda: RecurrentModel(x_t, x_t * 2)(np.zeros((2, 5, 3)), output_length=3),
        ValueError,
        ["output_length=3 is for decode=True"],
    ),
    "a decoder that goes backwards": (
        lambda: RecurrentModel(x_t, x_t * 2, decode=True, output_length=3, go_backwards=True),
        ValueError,
        ["go_backwards=True runs sequences from their end", "decode=True"],
    ),
    "states that are answered, and are not": (
        lambda: RecurrentModel(x_t, x_t * 2, return_state=True, return_states=False),
        ValueError,
        ["return_state=True", "return_states=False", "contradict"],
    ),
    "states beside the input": (
        lambda: GRUCell(4)(x_t, h_tm1),
        ValueError,
        [r"got 1 tensors and a mask: all tensors stand in one list, cell\(\[x, h\]\)"],
    ),
    "a start that is misspelt": (
        lambda: RecurrentSequential(state_initializer="learnd"),
        ValueError,
        ["state_initializer 'learnd' is unknown; known are", "learned"],
    ),
    "no tensor for a cell": (lambda: GRUCell(4)([]), ValueError, ["an input and its states; got no tensors"]),
    "an option that is misspelt": (
        lambda: RecurrentModel(x_t, x_t * 2, return_sequence=True),
        TypeError,
        ["RecurrentModel has no argument 'return_sequence'; did you mean 'return_sequences'"],
    ),
    "an option that there is not": (
        lambda: RecurrentSequential([Dense(3)], weather="fine"),
        TypeError,
        ["RecurrentSequential has no argument 'weather'"],
    ),
    "a bad output_length that is set later": (
        lambda: setattr(decoder(), "output_length", 0),
        ValueError,
        ["output_length must be a positive integer; got 0"],
    ),
    "a decoder that is turned later": (
        lambda: setattr(decoder(), "go_backwards", True),
        ValueError,
        ["go_backwards=True runs sequences from their end; with decode=True none"],
    ),
    "a bad probability that is set later": (
        lambda: setattr(RecurrentModel(x_t, x_t * 2), "teacher_force", 7),
        ValueError,
        ["teacher_force must be a probability in \\[0, 1\\]; got 7"],
    ),
    "teacher forcing later without a readout": (
        lambda: setattr(RecurrentModel(x_t, x_t * 2), "teacher_force", 0.5),
        ValueError,
        ["teacher_force needs a readout"],
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_answered(name):
    assert missing_words(*MISUSES[name]) == []


def test_numbers_of_numpy_are_numbers():
    """As they come out of a file: np.int64 is no int."""
    three = np.int64(3)
    assert Conv(4, three)(images).shape == (None, 2, 4)
    assert LayerCell(Dense(3), three).get_layer()(np.zeros((2, 5, 4))).shape == (2, 3)
    assert ConvLSTMCell(4, (three,)).get_layer()(np.zeros((2, 5, 4, 6))).shape == (2, 2, 4)
    recurrence = RecurrentModel(x_t, x_t * 2, truncate=three).recurrence
    assert type(recurrence.truncate) is int


def test_a_class_stands_for_its_defaults():
    """As in Keras: a class, called on a weight, would answer an object instead of an array."""
    layer = RecurrentSequential([Dense(2, kernel_constraint=constraints.NonNeg, bias_regularizer=regularizers.L1L2)])
    layer.build((None, None, 1))
    layer.set_weights([[[-1.0, 2.0]], [3.0, 4.0]])
    layer.apply_constraints()
    assert layer.get_weights()[0].tolist() == [[0, 2]]
    assert layer.regularization()[0] == 0
