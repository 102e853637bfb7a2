"""The layer on both engines against plain NumPy loops and Keras's own layers, values and gradients, in float64."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.layers import Activation, Dense, add

from keras_bridge import RecurrentModel, RecurrentSequential
from tests.bridge.autodiff import KIND, PLACE, gradients_of_calls, values_and_gradients
from tests.covering import examples
from tests.tolerances import assert_close

ENGINES = ("keras", "reference", "fast")
MASKS = {
    "none": None,
    "right": np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool),
    "left and middle": np.array([[0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]], bool),
}


pytestmark = pytest.mark.usefixtures("float64")


def drawn_layer(engine, **options):
    """One step with a readout, two states and an output unlike the states."""
    x_t, h, c = keras.Input((3,)), keras.Input((4,)), keras.Input((4,))
    z = add([Dense(4, bias_initializer="random_normal")(x_t), Dense(4, use_bias=False)(h)])
    new_c = c * 0.5 + ops.tanh(z)
    new_h = Activation("sigmoid")(z) * new_c
    y = Dense(2)(new_h)
    return RecurrentModel(x_t, y, [h, c], [new_h, new_c], return_state=True, engine=engine, **options)


def plain_loop(weights, x, h, c, mask, zero, backwards):
    """The same step in NumPy; returns outputs of all steps and the final states."""
    w, b, u, v, d = weights
    x, mask = (x[:, ::-1], mask if mask is None else mask[:, ::-1]) if backwards else (x, mask)
    held, outputs = np.zeros((len(x), 2), x.dtype), []
    for t in range(x.shape[1]):
        valid = np.ones((len(x), 1), bool) if mask is None else mask[:, t, None]
        z = x[:, t] @ w + b + h @ u
        new_c = 0.5 * c + np.tanh(z)
        new_h = new_c / (1 + np.exp(-z))
        h, c = np.where(valid, new_h, h), np.where(valid, new_c, c)
        held = np.where(valid, new_h @ v + d, 0 * held if zero else held)
        outputs.append(held)
    return np.stack(outputs, 1), h, c


def expected_results(weights, x, states, mask, options):
    """Return answers and gradients of the plain loop; the gradients by complex steps."""

    def answers(x, states, weights):
        y, h, c = plain_loop(weights, x, *states, mask, options["zero_output_for_mask"], options["go_backwards"])
        return [y if options["return_sequences"] else y[:, -1], h, c]

    leaves = [x, *states, *weights]
    gradients = []
    for i, leaf in enumerate(leaves):
        gradient = np.zeros(leaf.shape)
        for place in np.ndindex(*leaf.shape):
            moved = [v.astype(complex) for v in leaves]
            moved[i][place] += 1e-30j
            found = answers(moved[0], moved[1:3], moved[3:])
            gradient[place] = sum((factor(v.shape) * v).sum() for v in found).imag / 1e-30
        gradients.append(gradient)
    return [*answers(x, states, weights), *gradients]


def factor(shape):
    """Fixed numbers by which answers are weighed in the loss, so that no gradient is like another."""
    return np.cos(np.arange(np.prod(shape, dtype=int))).reshape(shape)


def weigh(answers):
    return sum(ops.sum(ops.convert_to_tensor(factor(tuple(v.shape)), "float64") * v) for v in answers)


def sample():
    rng = np.random.default_rng(3)
    return rng.standard_normal((3, 5, 3)), [rng.standard_normal((3, 4)) for _ in range(2)]


def check(layer, mask, options):
    """Of a masked step nothing is read: there an input may be no number."""
    x, states = sample()
    x = x if mask is None else np.where(mask[..., None], x, np.nan)
    found = values_and_gradients(layer, x, states, mask, weigh)
    weights = [np.asarray(w) for w in layer.get_weights()]
    for one, other in zip(found, expected_results(weights, x, states, mask, options), strict=True):
        assert_close(one, other, KIND[layer.engine])


@pytest.mark.covering("pairs")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("flags", ["", "sequences", "sequences zero", "sequences backwards", "zero backwards"])
def test_values_and_gradients(engine, mask, flags):
    options = {
        "return_sequences": "sequences" in flags,
        "zero_output_for_mask": "zero" in flags,
        "go_backwards": "backwards" in flags,
    }
    check(drawn_layer(engine, **options), MASKS[mask], options)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_check_sees_a_dropped_mask(engine):
    options = {"return_sequences": True, "zero_output_for_mask": False, "go_backwards": False}
    layer = drawn_layer(engine, **options)
    layer._mask = lambda mask: None
    with pytest.raises(AssertionError, match="relative error"):
        check(layer, MASKS["right"], options)


@pytest.mark.parametrize("engine", ENGINES)
def test_readout_is_the_previous_output(engine):
    x_t, h, readout = keras.Input((3,)), keras.Input((4,)), keras.Input((2,))
    new_h = ops.tanh(Dense(4)(ops.concatenate([x_t, h, readout], -1)))
    layer = RecurrentModel(x_t, Dense(2)(new_h), h, new_h, readout, return_sequences=True, engine=engine)
    x, states = sample()
    start = np.ones((3, 2))
    y = keras.ops.convert_to_numpy(layer(x, initial_state=states[0], initial_readout=start))
    w, b, v, d = layer.get_weights()
    h_now, read, expected = states[0], start, []
    for t in range(5):
        h_now = np.tanh(np.concatenate([x[:, t], h_now, read], -1) @ w + b)
        read = h_now @ v + d
        expected.append(read)
    assert_close(y, np.stack(expected, 1), KIND[engine])


@pytest.mark.parametrize("engine", ENGINES)
def test_states_keep_their_kind(engine):
    """Integers stay integers; a state of integers that gets a new value with a fraction loses it."""
    x, count, total = keras.Input((1,)), keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    new_count, new_total = ops.mod(count + 2, 3), 1.6 * ops.cast(total, "float64") + x
    layer = RecurrentModel(x, new_total, [count, total], [new_count, new_total], return_state=True, engine=engine)
    assert [y.dtype for y in layer(keras.Input((None, 1)))] == ["float64", "int32", "int32"]
    given = np.random.default_rng(0).uniform(1, 9, (3, 5, 1))
    found = [ops.convert_to_numpy(y) for y in layer(given)]
    held = np.zeros((3, 1), int)
    for t in range(5):
        y = 1.6 * held + given[:, t]
        held = y.astype(int)
    for one, other in zip(found, [y, np.full((3, 1), 10 % 3), held], strict=True):
        assert_close(one.astype(float), other, KIND[engine])


@pytest.mark.parametrize("engine", examples(ENGINES, ENGINES[PLACE : PLACE + 1]))
def test_fit_save_and_load(engine, tmp_path):
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")
    x = np.random.default_rng(0).standard_normal((24, 6, 3)).astype("float32")
    x[:, 4:] = 0
    target = x[:, :4].mean(axis=(1, 2), keepdims=False)[:, None]
    inputs = keras.Input((None, 3))
    x_t, h = keras.Input((3,)), keras.Input((4,))
    new_h = ops.tanh(Dense(4)(x_t) + Dense(4, use_bias=False)(h))
    layer = RecurrentModel(x_t, new_h, h, new_h, engine=engine)
    y = keras.layers.Bidirectional(layer)(keras.layers.Masking()(inputs))
    model = keras.Model(inputs, Dense(1)(y))
    assert model.output_shape == (None, 1)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    losses = model.fit(x, target, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again.predict(x, verbose=0), model.predict(x, verbose=0), "float32")
    shorter = model.predict(x[:5, :4], verbose=0)
    assert_close(shorter, model.predict(x, verbose=0)[:5], "float32")


def test_dropout_in_the_step_draws_a_mask_a_step():
    x_t, h = keras.Input((50,)), keras.Input((50,))
    new_h = h + keras.layers.Dropout(0.5)(x_t)
    layer = RecurrentModel(x_t, new_h - h, h, new_h, return_sequences=True)
    y = keras.ops.convert_to_numpy(layer(np.ones((1, 4, 50)), training=True))
    assert set(np.unique(y).round(6)) == {0.0, 2.0}
    assert len({tuple(step) for step in y[0]}) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_no_steps_answer_zeros(engine):
    x, states = sample()
    for sequences, shape in ((True, (3, 0, 2)), (False, (3, 2))):
        layer = drawn_layer(engine, return_sequences=sequences)
        y, h, _ = layer(x[:, :0], initial_state=states)
        assert_close(keras.ops.convert_to_numpy(y), np.zeros(shape))
        assert_close(keras.ops.convert_to_numpy(h), states[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_output_whose_length_the_call_tells(engine):
    """A decoder's weights over the steps of its input, against a plain loop."""
    encoded, h = keras.Input((None, 3)), keras.Input((3,))
    weights = ops.softmax(ops.einsum("btf,bf->bt", encoded, h))
    new = ops.einsum("bt,btf->bf", weights, encoded)
    layer = RecurrentModel(encoded, [new, weights], h, new, decode=True, output_length=2, engine=engine)
    x, state = np.random.default_rng(0).standard_normal((2, 5, 3)), np.ones((2, 3))
    y, found = (ops.convert_to_numpy(one) for one in layer(x, initial_state=state))
    for t in range(2):
        e = np.exp(np.einsum("btf,bf->bt", x, state))
        state = np.einsum("bt,btf->bf", e / e.sum(-1, keepdims=True), x)
        assert_close(found[:, t], e / e.sum(-1, keepdims=True), KIND["keras"])
        assert_close(y[:, t], state, KIND["keras"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_of_a_decoder_keeps_its_kind(engine):
    """Whole numbers, beside an input of floats."""
    x, token, h = keras.Input((3,)), keras.Input((), dtype="int32"), keras.Input((3,))
    embedding = keras.layers.Embedding(9, 3)
    new = h + x + embedding(token)
    layer = RecurrentModel(x, new, h, new, constants=token, decode=True, output_length=2, engine=engine)
    given, tokens = sample()[0][:, 0], np.array([0, 8, 3])
    y = ops.convert_to_numpy(layer(given, constants=tokens))
    read = given + ops.convert_to_numpy(embedding.embeddings)[tokens]
    assert_close(y, np.stack([read, 2 * read], 1))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_of_whole_numbers(engine):
    """Of a masked step nothing is read: there an index may be anything."""
    token, total = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    new = total + ops.take(np.array([1, 10, 100], "int32"), token)
    layer = RecurrentModel(token, new, total, new, engine=engine)
    tokens = np.array([[0, 1, 1000], [2, 2, 2]], "int32")
    y = ops.convert_to_numpy(layer(tokens, mask=tokens < 3))
    assert y.tolist() == [11, 300]


class Greatest(keras.layers.Layer):
    """Where the greatest number is."""

    def call(self, x):
        return ops.argmax(x, -1)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape[:-1], "int32")


READS_TOKENS = {
    "embedding": lambda: keras.layers.Embedding(1000, 1000, embeddings_initializer="identity"),
    "one hot": lambda: keras.layers.CategoryEncoding(1000, output_mode="one_hot"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("first", READS_TOKENS)
def test_a_stack_reads_tokens_as_they_are_in_half_precision(first, engine):
    """Which has neither 257 nor 999."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layers = [READS_TOKENS[first](), Greatest()]
        layer = RecurrentSequential(layers, return_sequences=True, engine=engine)
        y = ops.convert_to_numpy(layer(np.array([[1, 257, 300, 999]])))
    finally:
        keras.config.set_dtype_policy(policy)
    assert y.ravel().tolist() == [1, 257, 300, 999]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_saved_decoder_with_a_mask_and_a_readout(engine):
    whole, valid, r = keras.Input((5, 3)), keras.Input((5,), dtype="bool"), keras.Input((3,))
    y = ops.einsum("btf,bt->bf", whole, ops.cast(valid, "float64")) + 2 * r
    layer = RecurrentModel(whole, y, readout_input=r, mask_input=valid, decode=True, output_length=2, engine=engine)
    again, x = RecurrentModel.from_config(layer.get_config()), sample()[0]
    for mask in (None, MASKS["right"]):
        total = (x if mask is None else x * mask[..., None]).sum(axis=1)
        assert_close(ops.convert_to_numpy(again(x, mask=mask)), np.stack([total, 3 * total], 1))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_gradient_of_the_first_of_two_calls(engine):
    layer, (x, _) = drawn_layer(engine), sample()
    (alone,), (first, _) = gradients_of_calls(layer, x), gradients_of_calls(layer, x, -x)
    assert_close(first, alone)


def two_inputs():
    return keras.Input((3,)), keras.Input((4,))


MISUSES = {
    "numbers of states": (lambda x, h: RecurrentModel(x, h, h, []), ValueError, "initial_states and final_states"),
    "state shapes": (
        lambda x, h: RecurrentModel(x, h, h, Dense(5)(h)),
        ValueError,
        r"state 0.*\(None, 4\).*\(None, 5\)",
    ),
    "foreign tensor": (lambda x, h: RecurrentModel(x, Dense(2)(h)), ValueError, "not computed from the step's inputs"),
    "not a tensor": (lambda x, h: RecurrentModel([1.0], h, h, h), TypeError, "input must hold tensors"),
    "computed state": (lambda x, h: RecurrentModel(x, h, h * 2, h), ValueError, "initial_states.*not computed"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_answered(name):
    misuse, kind, words = MISUSES[name]
    with pytest.raises(kind, match=words):
        misuse(*two_inputs())
