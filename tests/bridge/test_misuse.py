"""Every misuse of a Keras layer is answered before anything is computed, by an exception that names what was given."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
import rsref
import rsref_fast
from tests.bridge.autodiff import PLACE
from tests.covering import examples

X = np.zeros((2, 5, 3), "float32")


def leaves():
    return keras.Input((3,)), keras.Input((4,))


def drawn(**options):
    x, h = leaves()
    new = ops.tanh(layers.Dense(4)(x) + h)
    return kb.RecurrentModel(x, new, h, new, **options)


class Through(layers.Layer):
    """A layer that cannot be made again: Keras knows no config of a function."""

    def __init__(self, function):
        super().__init__(name="through")
        self.function = function

    def call(self, x):
        return self.function(x)


def with_readout(**options):
    x, h, r = *leaves(), keras.Input((4,))
    new = ops.tanh(layers.Dense(4)(x) + h + r)
    return kb.RecurrentModel(x, new, h, new, r, **options)


def moved_above_one():
    chance = keras.Variable(0.5)
    layer = with_readout(teacher_force=chance)
    chance.assign(1.5)
    return layer


def raw_variable():
    x, h = leaves()
    return kb.RecurrentModel(x, h * keras.Variable(np.ones(4), name="loose"), h, h)


def wrong_readout():
    x, h = leaves()
    return kb.RecurrentModel(x, h * 1, h, h * 1, readout_input=keras.Input((3,)))


def decoder(**options):
    return kb.RecurrentSequential([kb.LSTMCell(4)], decode=True, **options)


def stateful():
    layer = drawn(stateful=True)
    layer(X)
    return layer


class Bare(kb.RNNCell):
    def build_model(self, input_shape):
        return layers.Dense(4)


class OfRsref(rsref.LSTMCell):
    pass


class Subclassed(keras.Model):
    pass


class Forgetful(kb.RNNCell):
    def __init__(self):
        pass


MISUSES = {
    "a readout alone of a layer without a config": (
        lambda: kb.RecurrentSequential([kb.GRUCell(3), Through(np.tanh)], readout="readout_only").build((2, 4, 3)),
        ValueError,
        "found by copies of the layers, and 'through' has no config to make one of: give its class a get_config",
    ),
    "forcing without readout": (lambda: drawn(teacher_force=True), ValueError, "teacher_force needs a readout"),
    "a probability above one": (lambda: with_readout(teacher_force=1.5), ValueError, "teacher_force.*1.5"),
    "a variable above one": (
        lambda: with_readout(teacher_force=keras.Variable(1.5)),
        ValueError,
        "teacher_force must be a probability in .* is 1.5",
    ),
    "a variable that came to be above one": (
        lambda: moved_above_one()(X, ground_truth=np.zeros((2, 5, 4), "float32"), training=True),
        ValueError,
        "teacher_force must be a probability in .* is 1.5",
    ),
    "a word as probability": (lambda: with_readout(teacher_force="often"), TypeError, "teacher_force.*often"),
    "no truth in training": (
        lambda: with_readout(teacher_force=True)(X, training=True),
        ValueError,
        "needs ground_truth",
    ),
    "a truth that nobody reads": (
        lambda: drawn()(X, ground_truth=np.zeros((2, 5, 4), "float32")),
        ValueError,
        "ground_truth is given, but teacher_force is False",
    ),
    "a truth of another length": (
        lambda: with_readout(teacher_force=True)(X, ground_truth=np.zeros((2, 4, 4), "float32"), training=True),
        ValueError,
        r"ground_truth must have shape \(2, 5, 4\); got \(2, 4, 4\)",
    ),
    "decode without length": (lambda: decoder()(X[:, 0]), ValueError, "decode=True needs output_length"),
    "a length without decode": (lambda: drawn(output_length=3), ValueError, "output_length=3 is for decode=True"),
    "a decoder that goes backwards": (lambda: decoder(go_backwards=True), ValueError, "go_backwards=True.*decode=True"),
    "states answered and not": (
        lambda: drawn(return_state=True, return_states=False),
        ValueError,
        "return_state=True and its old name return_states=False contradict",
    ),
    "a length in the call": (lambda: drawn()(X, output_length=3), ValueError, "output_length=3 is for decode=True"),
    "a length of zero": (lambda: decoder(output_length=0), ValueError, "output_length must be a positive integer"),
    "a length that is a word": (lambda: decoder(output_length="3"), TypeError, "output_length must be.*'3'"),
    "a length set later": (
        lambda: setattr(decoder(), "output_length", 0),
        ValueError,
        "output_length must be a positive integer; got 0",
    ),
    "a decoder that is turned later": (
        lambda: setattr(decoder(), "go_backwards", True),
        ValueError,
        "go_backwards=True.*decode=True",
    ),
    "a truncation set later": (lambda: setattr(drawn(), "truncate", -1), ValueError, "truncate must be.*got -1"),
    "a readout that is a number": (lambda: kb.RecurrentSequential(readout=1), ValueError, "readout must be.*got 1"),
    "a word as a state": (lambda: stateful().reset_states("zeros"), TypeError, "reset_states takes tensors.*'zeros'"),
    "truncate": (lambda: drawn(truncate=0), ValueError, "truncate must be a positive number of steps or None"),
    "rank": (lambda: drawn()(X[:, 0]), ValueError, r"shape \(2, 3\).*\(None, None, 3\), \(batch, time"),
    "features": (lambda: drawn()(X[..., :2]), ValueError, r"\(2, 5, 2\).*\(None, None, 3\)"),
    "two sequences for one": (lambda: drawn()([X, X]), ValueError, "takes 1 sequences; got 2"),
    "mask": (lambda: drawn()(X, mask=np.ones((2, 4), bool)), ValueError, r"mask.*\(2, 5\); got \(2, 4\)"),
    "a mask for a decoder": (
        lambda: decoder(output_length=2)(X[:, 0], mask=np.ones((2, 3), bool)),
        ValueError,
        "no mask_input",
    ),
    "strings": (
        lambda: drawn()(np.full((2, 5, 3), "a")),
        TypeError,
        "sequences must hold numbers or booleans; got dtype <U1",
    ),
    "objects": (
        lambda: drawn()(np.full((2, 5, 3), None)),  # of which JAX would make NaN
        TypeError,
        "sequences must hold numbers or booleans; got dtype object",
    ),
    "nothing to run over": (
        lambda: drawn()(None),
        TypeError,
        "sequences must be a tensor, or a list of tensors; got None",
    ),
    "no sequences": (lambda: drawn()([]), TypeError, r"sequences must be a tensor, or a list of tensors; got \[\]"),
    "sequences by name": (lambda: drawn()({"x": X}), TypeError, "sequences must be a tensor, or a list of tensors"),
    "lists for a state": (
        lambda: stateful().reset_states([[0.0] * 4] * 2),
        TypeError,
        r"reset_states takes tensors or arrays, one a state; got 0\.0",
    ),
    "lists for an initial state": (
        lambda: drawn()(X, initial_state=[[0.0] * 4] * 2),
        TypeError,
        r"initial_state must hold tensors; got 0\.0",
    ),
    "complex tensors": (
        lambda: drawn()(ops.convert_to_tensor(X + 1j, "complex64")),
        TypeError,
        "sequences must hold numbers or booleans; got dtype.*complex64",
    ),
    "complex numbers as state": (
        lambda: drawn()(X, initial_state=[np.ones((2, 4), complex)]),
        TypeError,
        "initial_state must hold numbers or booleans; got dtype complex128",
    ),
    "initial state": (lambda: drawn()(X, initial_state=np.ones((2, 9))), ValueError, r"initial_state: shape \(2, 9\)"),
    "a state of another batch": (
        lambda: drawn()(X, initial_state=np.ones((3, 4))),
        ValueError,
        r"initial_state: shape \(3, 4\) is given where \(2, 4\)",
    ),
    "a word as state": (
        lambda: drawn()(X, initial_state="zeros"),
        TypeError,
        "initial_state must hold tensors.*'zeros'",
    ),
    "a layer for a model": (lambda: kb.RNNCellFromModel(layers.Dense(3)), TypeError, "takes a keras.Model; got <Dense"),
    "a word as mask": (lambda: drawn()(X, mask="all"), TypeError, "mask must be a tensor of booleans.*'all'"),
    "rsref's tensors": (
        lambda: (lambda x: kb.RecurrentModel(x, x))(rsref.Input((3,))),
        TypeError,
        "input must hold tensors drawn from keras.Input; got rsref.tensor.Tensor",
    ),
    "rsref's cell": (
        lambda: kb.RecurrentSequential([rsref.LSTMCell(4)]),
        TypeError,
        "keras_bridge has cells of the same",
    ),
    "a cell of one's own for rsref": (
        lambda: kb.RecurrentSequential([OfRsref(4)]),
        TypeError,
        "a cell of your own is drawn with Keras's layers, as a subclass of keras_bridge.RNNCell",
    ),
    "a cell for a list": (
        lambda: kb.RecurrentSequential(kb.LSTMCell(4)),
        TypeError,
        "layers must be a list; got <LSTM",
    ),
    "a cell that does not start its base": (
        lambda: Forgetful().get_layer(),
        TypeError,
        r"Forgetful.__init__ must call super\(\).__init__",
    ),
    "an option of the loop for a cell": (
        lambda: kb.LSTMCell(4, return_sequences=True),
        TypeError,
        "LSTMCell has no option return_sequences.*get_layer",
    ),
    "an unknown engine": (lambda: drawn(engine="numba"), ValueError, "engine must be one of.*'numba'"),
    "initial states": (
        lambda: drawn()(X, initial_state=[np.ones((2, 4))] * 2),
        ValueError,
        "initial_state must hold 1 tensors; got 2",
    ),
    "initial readout": (
        lambda: drawn()(X, initial_readout=np.ones((2, 4))),
        ValueError,
        "has no readout: initial_readout",
    ),
    "constants": (lambda: drawn()(X, constants=np.ones((2, 4))), ValueError, "constants must hold 0 tensors; got 1"),
    "state initializers": (lambda: drawn(state_initializer=["ones"] * 3), ValueError, "3 are given for 1 states"),
    "an array of another length": (
        lambda: kb.LSTMCell(4).get_layer(state_initializer=[None, np.ones(5)])(X),
        ValueError,
        r"state 1 has the shape \(4,\) in each sample; got an array of shape \(5,\)",
    ),
    "a learned array of many samples": (
        lambda: kb.LSTMCell(4).get_layer(state_initializer=[kb.Learned(np.ones((2, 4)))])(X),
        ValueError,
        r"state 0 has the shape \(4,\) in each sample; got an array of shape \(2, 4\)",
    ),
    "an unknown initializer": (lambda: drawn(state_initializer="magic"), ValueError, "magic"),
    "a variable in a bare operation": (raw_variable, ValueError, "loose.*neither trained nor saved"),
    "a readout of another shape": (wrong_readout, ValueError, r"readout_input.*\(None, 3\).*\(None, 4\)"),
    "mask_input without decode": (
        lambda: kb.RecurrentModel(
            *(lambda x, m: (x, ops.sum(x * ops.cast(ops.expand_dims(m, -1), "float32"), 1)))(
                keras.Input((5, 3)), m := keras.Input((5,), dtype="bool")
            ),
            mask_input=m,
        ),
        ValueError,
        "mask_input needs decode=True",
    ),
    "no layers": (lambda: kb.RecurrentSequential()(X), ValueError, "has no layers"),
    "a number as layer": (lambda: kb.RecurrentSequential([3]), TypeError, "takes cells and Keras layers; got 3"),
    "a layer for whole sequences as layer": (
        lambda: kb.RecurrentSequential([layers.Bidirectional(layers.LSTM(4))])(X),
        ValueError,
        r"Bidirectional needs whole sequences, and a step has \(None, 3\)",
    ),
    "a cell of a layer that says where its states start": (
        lambda: kb.LSTMCell(4).get_layer(state_initializer=["ones", "learned"]).get_cell(),
        ValueError,
        "state_initializer=.'ones', 'learned'.*the layer around it",
    ),
    "a recurrent layer as layer": (lambda: kb.RecurrentSequential([drawn()]), TypeError, "get_cell"),
    "an unknown merge": (lambda: kb.RecurrentSequential(readout="glue"), ValueError, "readout must be.*glue"),
    "a readout that does not fit": (
        lambda: kb.RecurrentSequential([kb.LSTMCell(4)], readout=True)(X),
        ValueError,
        r"readout='add'.*\(None, 4\).*\(None, 3\)",
    ),
    "unlike cells in sync": (
        lambda: kb.RecurrentSequential([kb.LSTMCell(4, name="a"), kb.GRUCell(4, name="b")], state_sync=True)(X),
        ValueError,
        r"a has states of shapes \[\(None, 4\), \(None, 4\)\], b of shapes \[\(None, 4\)\]",
    ),
    "a cell without a model": (lambda: kb.RNNCell().get_layer()(X), TypeError, "write its method build_model"),
    "too few tensors for a cell": (
        lambda: kb.LSTMCell(4)([keras.Input((3,)), keras.Input((4,))]),
        ValueError,
        "takes 1 input and 2 states",
    ),
    "a cell called as Keras's": (
        lambda: kb.LSTMCell(4)(keras.Input((3,)), [keras.Input((4,)), keras.Input((4,))]),
        TypeError,
        r"is called on one list, \[x, state, \.\.\.\]",
    ),
    "unlike states of a cell": (
        lambda: kb.RNNCellFromModel((lambda x, h: keras.Model([x, h], [h, x]))(*leaves())),
        ValueError,
        "differ in shape",
    ),
    "units": (lambda: kb.LSTMCell(0), ValueError, "units must be a positive integer"),
    "an unknown option of a cell": (lambda: kb.LSTMCell(4, magic=1), TypeError, "magic"),
    "an unknown activation": (lambda: kb.LSTMCell(4, activation="magic"), ValueError, "magic"),
    "a cell in a wrapper": (lambda: kb.LayerCell(kb.LSTMCell(4)), TypeError, "without states"),
    "a wrapped layer of another shape": (
        lambda: kb.LayerCell(layers.Dense(5)).get_layer()(X),
        ValueError,
        r"\(None, 5\).*\(None, 3\).*state_shape=\(5,\)",
    ),
    "adding after the first call": (
        lambda: (lambda r: (r(X), r.add(kb.LSTMCell(4))))(kb.RecurrentSequential([kb.LSTMCell(4)])),
        ValueError,
        "no layer can be added",
    ),
    "a learned state of integers": (
        lambda: (lambda x, h, n: kb.RecurrentModel(x, x + h, [h, n], [x + h, n + 1], state_initializer="learned"))(
            keras.Input((2,)), keras.Input((2,)), keras.Input((1,), dtype="int32")
        ),
        ValueError,
        "state 1 holds values of dtype int32 and cannot be learned",
    ),
    "states reset too early": (lambda: kb.RecurrentSequential([kb.LSTMCell(4)]).reset_states(), ValueError, "built"),
    "states reset to too many": (
        lambda: stateful().reset_states([np.zeros((2, 4))] * 2),
        ValueError,
        "reset_states takes 1 values; got 2",
    ),
    "states reset to another shape": (
        lambda: stateful().reset_states(np.zeros((2, 9))),
        ValueError,
        r"state 0 of shape \(2, 9\) is given where \(2, 4\)",
    ),
    "two inputs of a stack": (
        lambda: kb.RecurrentSequential([kb.LSTMCell(4)])([X, X]),
        ValueError,
        "takes one input; got 2",
    ),
    "no output": (lambda: kb.RecurrentModel(keras.Input((3,)), []), ValueError, "at least one output tensor; got none"),
    "a tensor named twice": (
        lambda: (lambda x: kb.RecurrentModel([x, x], x * 2))(keras.Input((3,))),
        ValueError,
        "named twice among input",
    ),
    "a regularizer of a step's values": (
        lambda: kb.RecurrentSequential([kb.LSTMCell(4), layers.Dense(2, activity_regularizer="l2", name="read")])(X),
        ValueError,
        "layer 'read' has an activity_regularizer",
    ),
    "a cell that Keras does not have": (
        lambda: kb.to_keras(kb.RWACell(4).get_layer()),
        ValueError,
        "the cell RWACell has no counterpart among Keras's layers",
    ),
    "a subclassed model made fast": (
        lambda: kb.accelerate(Subclassed()),
        ValueError,
        "Functional and Sequential models; Subclassed is neither",
    ),
    "an unknown merge of a wrapped layer": (
        lambda: kb.LayerCell(layers.Dense(4), merge="glue"),
        ValueError,
        "merge must be one of.*'glue'",
    ),
    "a layer as a cell's model": (
        lambda: Bare().get_layer()(X),
        TypeError,
        "build_model must answer a keras.Model; got Dense",
    ),
    "explained too early": (lambda: kb.RecurrentSequential([kb.LSTMCell(4)]).explain(), ValueError, "build the layer"),
}


ALWAYS = {
    *("forcing without readout", "decode without length", "rank", "features", "strings", "objects"),
    *("complex tensors", "initial state"),
}
HERE = [name for i, name in enumerate(MISUSES) if i % 3 == PLACE or name in ALWAYS]
"""The commonest on each backend, of the others, none of which depends on it, a third."""


@pytest.mark.parametrize("name", examples([*MISUSES], HERE))
def test_misuse_is_answered(name):
    misuse, kind, words = MISUSES[name]
    with pytest.raises(kind, match=words):
        misuse()


@pytest.mark.parametrize("engine", ["keras", "reference"])
def test_misuse_in_a_symbolic_call_is_answered_there(engine):
    with pytest.raises(ValueError, match=r"initial_state: shape \(None, 9\)"):
        drawn(engine=engine)(keras.Input((None, 3)), initial_state=keras.Input((9,)))


class AddsToTheLoss(layers.Layer):
    def call(self, x):
        self.add_loss(ops.mean(x))
        return x


def test_a_layer_of_a_step_that_adds_to_the_loss():
    """PyTorch's loop keeps what it adds at each step; compiled ones cannot, and on JAX it was lost beside a dropout."""
    x = keras.Input((3,))
    layer = kb.RecurrentModel(x, layers.Dropout(0.5)(AddsToTheLoss(name="adds")(x)), engine="keras")
    model = keras.Sequential([keras.Input((5, 3)), layer])
    model.compile("sgd", "mse")
    if keras.backend.backend() == "torch":
        assert model.evaluate(X, X[:, 0] + 1, verbose=0) == 1
        model(X + 2)
        assert [float(loss) for loss in model.losses] == [2.0] * 5
    else:
        with pytest.raises(ValueError, match=r"layer 'adds' adds to the loss \(add_loss\).*compiled loop"):
            model.fit(X, X[:, 0], verbose=0)
    if keras.backend.backend() == "jax":  # whose loop is compiled in a plain call too
        with pytest.raises(ValueError, match="layer 'adds' adds to the loss"):
            layer(X)


def test_a_keras_layer_has_no_arrays_engine():
    layer = kb.RecurrentSequential([kb.MinGRUCell(4)])
    with pytest.raises(TypeError, match=r"keras_bridge\S+RecurrentSequential; draw the step with rsref's names"):
        rsref_fast.compile(layer, target="interpreter")
