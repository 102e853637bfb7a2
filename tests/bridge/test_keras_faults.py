"""Where `keras.layers.RNN` is wrong or limited (Keras 3.15), ours is not: on every backend, on every engine."""

from itertools import product

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
import rsref
from keras_bridge.graph_layer import GraphLayer
from tests.bridge.autodiff import PLACE
from tests.covering import examples
from tests.tolerances import assert_close

ENGINES = ("keras", "reference", "fast")
X = np.random.default_rng(0).standard_normal((3, 5, 4)).astype("float32")
MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)


def running_sum(output, **options):
    """A state that sums the input (batch, 4); the output is a function of the new state."""
    x, h = keras.Input((4,)), keras.Input((4,))
    new = h + x
    return kb.RecurrentModel(x, output(new), h, new, return_sequences=True, return_state=True, **options)


def expected(output, x, mask, zero, backwards):
    h, held, outputs = np.zeros((len(x), 4), "float32"), None, []
    order = range(x.shape[1])[::-1] if backwards else range(x.shape[1])
    for t in order:
        valid = mask[:, t, None]
        h = np.where(valid, h + x[:, t], h)
        y = output(h)
        old = np.zeros_like(y) if held is None or zero else held
        held = np.where(valid, y, old)
        outputs.append(held)
    return np.stack(outputs, 1), h


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_held_outputs_that_are_not_the_state(zero, unroll, backwards, engine):
    """On JAX Keras holds states[0] instead; unrolled backwards it forgets flags (TensorFlow), or fails (PyTorch)."""
    options = {"zero_output_for_mask": zero, "unroll": unroll, "go_backwards": backwards}
    layer = running_sum(lambda h: h[:, :2] * 3, engine=engine, **options)
    y, h = layer(X, mask=ops.convert_to_tensor(MASK))
    right = expected(lambda h: h[:, :2] * 3, X, MASK, zero, backwards)
    assert_close(ops.convert_to_numpy(y), right[0], "float32")
    assert_close(ops.convert_to_numpy(h), right[1], "float32")


@pytest.mark.parametrize("other", [(True, False), (False, True)], ids=["zero", "backwards"])
def test_the_loop_sees_an_ignored_flag(other):
    y, _ = running_sum(lambda h: h[:, :2] * 3, engine="reference")(X, mask=ops.convert_to_tensor(MASK))
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(ops.convert_to_numpy(y), expected(lambda h: h[:, :2] * 3, X, MASK, *other)[0], "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_rank_3_states_with_a_mask(engine):
    x, h = keras.Input((2, 2)), keras.Input((2, 2))
    new = h + x
    layer = kb.RecurrentModel(x, ops.sum(new, axis=1), h, new, return_sequences=True, return_state=True, engine=engine)
    y, h = layer(X.reshape(3, 5, 2, 2), mask=ops.convert_to_tensor(MASK))
    right = expected(lambda h: h.reshape(-1, 2, 2).sum(axis=1), X, MASK, False, False)
    assert_close(ops.convert_to_numpy(y), right[0], "float32")
    assert_close(ops.convert_to_numpy(h).reshape(3, 4), right[1], "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_lists_of_sequences_and_outputs_of_other_sizes(engine):
    x, u, h = keras.Input((4,)), keras.Input((1,)), keras.Input((4,))
    new = h + x * u
    layer = kb.RecurrentModel([x, u], [new[:, :1], new * 2], h, new, return_sequences=True, engine=engine)
    first, second = layer([X, X[..., :1]])
    sums = np.cumsum(X * X[..., :1], axis=1)
    assert_close(ops.convert_to_numpy(first), sums[..., :1], "float32")
    assert_close(ops.convert_to_numpy(second), sums * 2, "float32")


@pytest.mark.parametrize("shape", [(3, 3), (3, 3, 1), (3, 3, 2)], ids=str)
def test_a_column_added_to_as_many_samples_as_units_is_no_bias(shape):
    """Of the cells that rsref draws; on TensorFlow Keras's own add takes it for a bias."""
    ones = (1,) * (len(shape) - 1)
    a, b = rsref.Input(shape[1:]), rsref.Input(ones)
    layer = GraphLayer(rsref.Model([a, b], [a + b]))
    values = X[:, :, :2][:, : shape[1]].reshape(3, -1)[:, : np.prod(shape[1:])].reshape(shape)
    column = X[:, 0, 0].reshape(3, *ones)
    (found,) = layer([ops.convert_to_tensor(values), ops.convert_to_tensor(column)])
    assert_close(ops.convert_to_numpy(found), values + column, "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_no_steps_and_no_samples(engine):
    layer = running_sum(lambda h: h[:, :2], engine=engine)
    y, h = layer(X[:, :0])
    assert tuple(y.shape) == (3, 0, 2)
    assert_close(ops.convert_to_numpy(h), np.zeros((3, 4)), "float32")
    y, h = layer(X[:0])
    assert tuple(y.shape) == (0, 5, 2)
    assert tuple(h.shape) == (0, 4)


@pytest.mark.parametrize("layer_in_step", [lambda: layers.Dropout(0.3), lambda: layers.BatchNormalization()])
def test_random_and_moving_layers_inside_a_compiled_step(layer_in_step):
    """keras.layers.RNN raises UnexpectedTracerError on JAX."""
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, kb.RecurrentSequential([layer_in_step(), kb.SimpleRNNCell(3)])(inputs))
    model.compile("sgd", "mse")
    history = model.fit(X, np.zeros((3, 3)), epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_float32_step_under_a_mixed_policy(engine):
    x, h = keras.Input((4,), dtype="float32"), keras.Input((3,), dtype="float32")
    new = ops.tanh(layers.Dense(3, dtype="float32")(x) + h)
    layer = kb.RecurrentModel(x, new, h, new, dtype="mixed_float16", engine=engine, return_state=True)
    for y in layer(X):
        assert keras.backend.standardize_dtype(y.dtype) == "float16"
        assert np.isfinite(ops.convert_to_numpy(y)).all()


def test_float32_kernels_under_a_mixed_policy_are_not_rounded():
    """By Keras's ops, beside a variable that is written back: 1.001 is 1 in bfloat16. Kernels have one precision."""
    x, h = keras.Input((1,), dtype="float32"), keras.Input((1,), dtype="float32")
    grown = layers.Dense(1, dtype="float32", kernel_initializer=keras.initializers.Constant(1.001))(x)
    y = 1000.0 * (layers.Dropout(0.1, dtype="float32")(grown) - x)
    layer = kb.RecurrentModel(x, y, h, h, dtype="mixed_bfloat16", engine="keras")
    found = ops.convert_to_numpy(ops.cast(layer(np.ones((1, 1, 1), "float32")), "float32"))
    np.testing.assert_allclose(found, 1, atol=0.01)


@pytest.mark.parametrize("engine", ENGINES)
def test_bidirectional_with_states_of_rank_3(engine):
    x, h = keras.Input((2, 2)), keras.Input((2, 2))
    new = h + x
    inner = kb.RecurrentModel(x, ops.sum(new, axis=1), h, new, return_sequences=True, engine=engine)
    y = layers.Bidirectional(inner)(X.reshape(3, 5, 2, 2), mask=ops.convert_to_tensor(MASK))
    assert tuple(y.shape) == (3, 5, 4)
    forward = expected(lambda h: h.reshape(-1, 2, 2).sum(axis=1), X, MASK, True, False)[0]
    backward = expected(lambda h: h.reshape(-1, 2, 2).sum(axis=1), X, MASK, True, True)[0][:, ::-1]
    assert_close(ops.convert_to_numpy(y), np.concatenate([forward, backward], -1), "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mask_of_the_layers_before_counts_beside_other_tensors(engine):
    """Keras hands such a mask on only where a call has one tensor: keras.layers.RNN with initial_state drops it."""
    x, r, h = keras.Input((4,)), keras.Input((4,)), keras.Input((4,))
    new = h + x + r
    layer = kb.RecurrentModel(x, x, h, new, readout_input=r, teacher_force=True, return_state=True, engine=engine)
    sequence, start, truth = keras.Input((None, 4)), keras.Input((4,)), keras.Input((None, 4))
    masked = layers.Masking()(sequence)
    model = keras.Model([sequence, start, truth], layer(masked, initial_state=start, ground_truth=truth)[1])
    model.compile("sgd", "mse")
    padded = np.where(MASK[..., None], X, 0)
    state = _forced_sum(padded, X[:, 0], -X, MASK)
    loss = model.train_on_batch([padded, X[:, 0], -X], np.zeros_like(state))
    assert_close(loss, (state**2).mean(), "float32")
    called = layer(layers.Masking()(padded), initial_state=X[:, 0], ground_truth=-X, training=True)
    assert_close(ops.convert_to_numpy(called[1]), state, "float32")
    other = np.roll(MASK, 1, axis=0)
    called = layer(
        layers.Masking()(padded),
        initial_state=X[:, 0],
        ground_truth=-X,
        mask=ops.convert_to_tensor(other),
        training=True,
    )
    assert_close(ops.convert_to_numpy(called[1]), _forced_sum(padded, X[:, 0], -X, other), "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mask_is_passed_on_in_the_order_of_the_outputs(engine):
    """Keras passes it on as it came, so that the next layer skips steps that count: right for each sample alone."""
    first = kb.SimpleRNNCell(3).get_layer(return_sequences=True, go_backwards=True, engine=engine)
    second = kb.SimpleRNNCell(3).get_layer(engine=engine)
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, second(first(layers.Masking()(inputs))))
    lengths = [5, 2, 1]
    found = model.predict(np.where((np.arange(5) < np.array(lengths)[:, None])[..., None], X, 0), verbose=0)
    for i, n in enumerate(lengths):
        assert_close(found[i : i + 1], model.predict(X[i : i + 1, :n], verbose=0), "float32")


def test_the_mask_of_a_decoder_is_the_steps_own(recwarn):
    """Layers within are not handed it too: none of them warns that it drops it."""
    decoder = kb.AttentionDecoderCell(4).get_layer(decode=True, output_length=3, engine="keras")
    decoder.build((None, None, 4))
    padded = np.where(np.arange(5) < np.array([5, 2, 1])[:, None], 1.0, 0.0)[..., None] * X
    found = ops.convert_to_numpy(decoder(layers.Masking()(padded)))
    assert_close(found[1:2], ops.convert_to_numpy(decoder(X[1:2, :2])), "float32")
    assert not [one for one in recwarn if "mask" in str(one.message)]


def _forced_sum(x, h, truth, mask):
    """The last state of h' = h + x + r, r the truth of the valid step before."""
    read = np.zeros_like(h)
    for t in range(x.shape[1]):
        valid = mask[:, t, None]
        h = np.where(valid, h + x[:, t] + read, h)
        read = np.where(valid, truth[:, t], read)
    return h


@pytest.mark.parametrize("engine", ENGINES)
def test_masks_of_several_sequences_are_joined_beside_an_initial_state(engine):
    x, u, h = keras.Input((4,)), keras.Input((4,)), keras.Input((4,))
    new = h + x * u
    layer = kb.RecurrentModel([x, u], new, h, new, engine=engine)
    other = np.roll(MASK, 1, axis=0)
    first, second = (np.where(mask[..., None], X, 0) for mask in (MASK, other))
    inputs = [keras.Input((None, 4)), keras.Input((None, 4)), keras.Input((4,))]
    y = layer([layers.Masking()(inputs[0] + 0.0), layers.Masking()(inputs[1])], initial_state=inputs[2])
    found = keras.Model(inputs, y).predict([first, second, X[:, 0]], verbose=0)
    # an output whose steps are all masked is zero, not the state
    both = MASK & other
    total = X[:, 0] + (X * X * both[..., None]).sum(axis=1)
    assert_close(found, np.where(both.any(axis=1)[:, None], total, 0), "float32")


CELLS = [name for name in kb.cells.__all__ if name.endswith("Cell") and name not in ("RNNCell", "FullCell")]


HERE = examples(CELLS, CELLS[PLACE::3])
"""Each cell on one backend, or on all: little of what Keras checks of a layer depends on both."""

KINDS = [*product(("LSTMCell", "ConvLSTMCell", "AttentionDecoderCell"), ENGINES)]
CHECKED = sorted(
    {(name, ENGINES[i // 3 % 3]) for i, name in enumerate(CELLS) if name in HERE}
    | set(examples(KINDS, [pair for i, pair in enumerate(KINDS) if (i // 3 + i) % 3 == PLACE]))
)
"""Each cell on one engine likewise, and each backend has cells on every engine; one of each kind is on all three, on
each backend another."""


@pytest.mark.parametrize(("cell", "engine"), CHECKED)
def test_keras_own_layer_checks(cell, engine):
    """Keras's own checks of a layer: serialisation, dtype, symbolic shape, build, training, masks."""
    from keras.src.testing import TestCase

    made = {
        "KerasCell": lambda: kb.KerasCell(layers.LSTMCell(4)),
        "LayerCell": lambda: kb.LayerCell(layers.Dense(4)),
        "ConvLSTMCell": lambda: kb.ConvLSTMCell(4, 2, padding="same"),
    }
    make = made.get(cell) or (lambda: getattr(kb, cell)(4))
    options = {"decode": True, "output_length": 3} if cell == "AttentionDecoderCell" else {}
    shape = (2, 5, 3, 3) if cell == "ConvLSTMCell" else (2, 5, 4)
    trial = kb.RecurrentSequential([make()], **options)
    trial.build(shape)
    TestCase().run_layer_test(
        kb.RecurrentSequential,
        init_kwargs={"layers": [make()], "engine": engine, **options},
        input_shape=shape,
        expected_output_shape={"ConvLSTMCell": (2, 3, 4), "AttentionDecoderCell": (2, 3, 4)}.get(cell, (2, 4)),
        expected_num_trainable_weights=len(trial.trainable_weights),
        supports_masking=True,
        assert_built_after_instantiation=False,
    )


@pytest.mark.parametrize("engine", examples(ENGINES, ENGINES[PLACE : PLACE + 1]))
def test_keras_own_layer_checks_of_a_drawn_step(engine):
    from keras.src.testing import TestCase

    x, h = keras.Input((4,)), keras.Input((3,))
    new = ops.tanh(layers.Dense(3)(x) + h)
    drawn = {"input": x, "output": new, "initial_states": h, "final_states": new}
    TestCase().run_layer_test(
        kb.RecurrentModel,
        init_kwargs={**drawn, "engine": engine, "return_sequences": True},
        input_shape=(2, 5, 4),
        expected_output_shape=(2, 5, 3),
        expected_num_trainable_weights=2,
        supports_masking=True,
        assert_built_after_instantiation=False,
    )


OTHERWISE = ("KerasCell", "LayerCell", "ConvLSTMCell", "AttentionDecoderCell")  # more arguments, or a mask among them


@pytest.mark.parametrize("cell", [name for name in HERE if name not in OTHERWISE])
def test_keras_own_layer_checks_of_a_cell(cell):
    """A cell alone is a layer too: input and states in, output and new states out."""
    from keras.src.testing import TestCase

    made = getattr(kb, cell)(4)
    made.build((None, 3))
    TestCase().run_layer_test(
        getattr(kb, cell),
        init_kwargs={"units": 4},
        input_shape=tuple(tuple(2 if n is None else n for n in leaf.shape) for leaf in made.model.inputs),
        expected_num_trainable_weights=len(made.trainable_weights),
        supports_masking=None,
        assert_built_after_instantiation=False,
    )
