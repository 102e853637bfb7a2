"""Initial, learned, carried and reset states; unknown batch sizes; forcing by chance; what explain says."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_bridge as kb
import rsref
from tests.tolerances import assert_close

ENGINES = ("keras", "reference", "fast")
X = np.random.default_rng(0).standard_normal((4, 6, 3)).astype("float32")


def numpy(value):
    return ops.convert_to_numpy(value)


def counting(**options):
    """A step whose state counts the steps: h' = h + 1; the output is the state."""
    x, h = keras.Input((3,)), keras.Input((1,))
    new = h + 1.0 + 0.0 * x[:, :1]
    return kb.RecurrentModel(x, new, h, new, **options)


@pytest.mark.covering("values")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("initializer", "start"),
    [
        (None, 0),
        ("ones", 1),
        (keras.initializers.Constant(3), 3),
        (2.5, 2.5),
        (np.array([2.5]), 2.5),
        (["learned"], 0),
        (kb.Learned("ones"), 1),
    ],
)
def test_states_start_where_they_are_told_with_an_unknown_batch(initializer, start, engine):
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, counting(state_initializer=initializer, engine=engine)(inputs))
    for batch, steps in ((4, 6), (2, 3)):
        assert_close(model.predict(X[:batch, :steps], verbose=0), np.full((batch, 1), start + steps), "float32")


@pytest.mark.parametrize("initializer", [2.5, np.array([2.5]), kb.Learned(2.5), kb.Learned(np.array([2.5]))])
def test_numbers_and_arrays_that_start_states_are_saved(initializer, tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), counting(state_initializer=[initializer], engine="keras")])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(numpy(again(X)), np.full((len(X), 1), 2.5 + X.shape[1]), "float32")


def test_an_array_may_start_every_sample_by_itself():
    starts = np.arange(float(len(X)))[:, None]
    layer = counting(state_initializer=[starts], engine="keras")
    assert_close(numpy(layer(X)), starts + X.shape[1], "float32")


@pytest.mark.parametrize(("initializer", "start"), [(kb.Learned, 0), ([keras.initializers.Ones], 1)])
def test_an_initializer_may_be_named_by_its_class(initializer, start):
    layer = counting(state_initializer=initializer, engine="keras")
    again = type(layer).from_config(layer.get_config())
    assert_close(numpy(again(X)), np.full((len(X), 1), start + X.shape[1]), "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_learned_state_is_trained(engine):
    layer = counting(state_initializer="learned", engine=engine)
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(X, np.full((4, 1), 9.0), epochs=3, batch_size=4, verbose=0)
    assert_close(numpy(layer.trainable_variables[0]), [3.0], "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_stateful_layers_go_on_and_forget(engine):
    layer = counting(stateful=True, engine=engine, return_sequences=True)
    assert_close(numpy(layer(X))[0, :, 0], np.arange(1, 7), "float32")
    assert_close(numpy(layer(X))[0, :, 0], np.arange(7, 13), "float32")
    layer.reset_states()
    assert_close(numpy(layer(X[:, :2]))[0, :, 0], [1, 2], "float32")
    layer.reset_states(np.full((4, 1), 10.0, "float32"))
    assert_close(numpy(layer(X[:, :2]))[0, :, 0], [11, 12], "float32")
    assert_close(numpy(layer(X[:, :1], initial_state=np.zeros((4, 1), "float32")))[0, :, 0], [1], "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_stateful_layers_take_another_batch_size_after_a_reset(engine):
    layer = counting(stateful=True, engine=engine)
    layer(X)
    with pytest.raises(ValueError, match=r"holds the states of 4 samples; it got 2.*reset_states"):
        layer(X[:2])
    layer.reset_states()
    assert_close(numpy(layer(X[:2])), np.full((2, 1), 6.0), "float32")
    layer.reset_states(np.full((3, 1), 10.0, "float32"))
    assert_close(numpy(layer(X[:3])), np.full((3, 1), 16.0), "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_stateful_models_carry_over_between_batches(engine):
    inputs = keras.Input((None, 3), batch_size=4)
    layer = counting(stateful=True, engine=engine, state_initializer="ones")
    model = keras.Model(inputs, layer(inputs))
    twice = np.concatenate([X, X])
    assert_close(model.predict(twice, batch_size=4, verbose=0)[:, 0], [7.0] * 4 + [13.0] * 4, "float32")
    layer.reset_states()
    for batch in (2, 4):  # other variables, which code that is compiled does not know, and the old ones again
        layer(X[:batch])
        layer.reset_states()
    assert_close(model.predict(X, batch_size=4, verbose=0)[:, 0], [7.0] * 4, "float32")
    layer.reset_states(np.full((4, 1), 10.0, "float32"))
    assert_close(model.predict(X, batch_size=4, verbose=0)[:, 0], [16.0] * 4, "float32")
    assert_close(numpy(layer(X))[:, 0], [22.0] * 4, "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stateful_layer_without_states_needs_no_batch_size(engine):
    """There is nothing to keep, in compiled code either."""
    x = keras.Input((3,))
    layer = kb.RecurrentModel(x, 2.0 * x, stateful=True, return_sequences=True, engine=engine)
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layer(inputs))
    for batch in (4, 2):
        assert_close(model.predict(X[:batch], verbose=0), 2 * X[:batch], "float32")
    layer.reset_states()
    assert_close(numpy(layer(X[:3])), 2 * X[:3], "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_learned_state_of_a_stateful_layer_is_trained(engine):
    """The last state is the learned one plus 6 in the first call, and what was carried over plus 6 in the second."""
    inputs = keras.Input((None, 3), batch_size=4)
    layer = counting(stateful=True, state_initializer="learned", engine=engine)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    assert_close(model.train_on_batch(X, np.full((4, 1), 9.0)), 9.0, "float32")
    assert_close(numpy(layer.trainable_variables[0]), [3.0], "float32")
    assert_close(model.train_on_batch(X, np.full((4, 1), 12.0)), 0.0, "float32")
    assert_close(numpy(layer.trainable_variables[0]), [3.0], "float32")


def test_states_that_share_learn_one_start():
    layer = kb.RecurrentSequential(
        [kb.GRUCell(3), kb.GRUCell(3)], state_sync=True, state_initializer="learned", stateful=True
    )
    layer(X)
    layer.reset_states(np.ones((4, 3)))
    assert [numpy(state).tolist() for state in layer.states] == [np.ones((4, 3)).tolist()]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_given_state_of_unknown_length(engine):
    x, h = keras.Input((3,)), keras.Input((None, 3))
    new = h + ops.expand_dims(x, 1)
    layer = kb.RecurrentModel(x, new, h, new, engine=engine)
    start = np.ones((4, 2, 3), "float32")
    assert_close(numpy(layer(X, initial_state=start)), start + X.sum(axis=1, keepdims=True), "float32")


def test_carried_states_of_a_mixed_policy_are_not_rounded():
    """Which are kept as the step has them: 4097 is no number of half precision."""
    x, h = keras.Input((3,), dtype="float32"), keras.Input((1,), dtype="float32")
    new = h + 0.0 * x[:, :1]
    layer = kb.RecurrentModel(x, new, h, new, stateful=True, dtype="mixed_float16", engine="reference")
    layer.reset_states(np.full((4, 1), 4097.0, "float32"))
    for _ in range(2):
        layer(X)
    assert numpy(layer.states[0]).tolist() == [[4097.0]] * 4


def test_carried_states_are_neither_weights_nor_saved(tmp_path):
    """A model whose states were made by a call is saved and loaded; its copy starts anew, as Keras's own do."""
    stock = layers.LSTM(4, stateful=True)
    stock(X)
    layer = kb.LSTMCell(4).get_layer(stateful=True)
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layer(inputs))
    first = numpy(model(X))
    layer.set_weights(stock.get_weights())
    layer.reset_states()
    model(X[:2])  # another batch size: other variables
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    stock.reset_state()
    expected = numpy(stock(X))
    assert np.abs(expected - first).max() > 0.01
    assert_close(numpy(keras.models.load_model(tmp_path / "model.keras")(X)), expected, "float32")
    twin = keras.Model(inputs, kb.LSTMCell(4).get_layer(stateful=True)(inputs))
    twin.load_weights(tmp_path / "model.weights.h5")
    assert_close(numpy(twin(X)), expected, "float32")
    assert len(layer.get_weights()) == len(stock.get_weights()) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_readout_is_carried_over_but_not_returned(engine):
    x, r = keras.Input((1,)), keras.Input((1,))
    y = x + r
    layer = kb.RecurrentModel(x, y, readout_input=r, stateful=True, return_sequences=True, engine=engine)
    ones = np.ones((2, 3, 1), "float32")
    assert_close(numpy(layer(ones))[0, :, 0], [1, 2, 3], "float32")
    assert_close(numpy(layer(ones))[0, :, 0], [4, 5, 6], "float32")
    layer.return_state = True
    assert len(layer(ones)) == 1


def fed_back(**options):
    """The output is the readout alone, plus the input: what is read is seen."""
    x, r = keras.Input((1,)), keras.Input((1,))
    return kb.RecurrentModel(x, x + r, readout_input=r, return_sequences=True, **options)


ZEROS, TRUTH = np.zeros((200, 5, 1), "float32"), np.ones((200, 5, 1), "float32")


@pytest.mark.parametrize("engine", ENGINES)
def test_scheduled_sampling_reads_the_truth_by_chance(engine):
    variable = keras.Variable(0.5)
    layer = fed_back(teacher_force=variable, engine=engine, seed=1)
    y = numpy(layer(ZEROS, ground_truth=TRUTH, training=True))[..., 0]
    # what is read is 1 once a truth was taken, for ever; before that it is 0
    assert (y[:, 0] == 0).all()
    assert np.abs(y.mean(axis=0)[1:] - (1 - 0.5 ** np.arange(1, 5))).max() < 0.15
    variable.assign(0.0)
    assert numpy(layer(ZEROS, ground_truth=TRUTH, training=True)).max() == 0
    variable.assign(1.0)
    assert numpy(layer(ZEROS, ground_truth=TRUTH, training=True))[:, 1:].min() == 1
    assert numpy(layer(ZEROS)).max() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_the_seed_of_a_layer_is_that_of_scheduled_sampling(engine):
    layer = fed_back(teacher_force=0.5, engine=engine, seed=3)
    again = kb.RecurrentModel.from_config(layer.get_config())
    first, second = (numpy(one(ZEROS, ground_truth=TRUTH, training=True)) for one in (layer, again))
    assert (first == second).all()
    assert set(np.unique(first)) == {0.0, 1.0}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_truth_of_whole_numbers_is_read_as_it_is(engine):
    """2**24 + 1 is no number of single precision."""
    x, r = keras.Input((1,)), keras.Input((), dtype="int32")
    layer = kb.RecurrentModel(x, r + 1, readout_input=r, teacher_force=True, return_sequences=True, engine=engine)
    truth = np.array([[2**24 + 1, 7, 1]], "int32")
    assert numpy(layer(ZEROS[:1, :3], ground_truth=truth, training=True)).tolist() == [[1, 2**24 + 2, 8]]


def test_a_variable_probability_is_no_weight_and_is_saved_with_its_value(tmp_path):
    chance = keras.Variable(0.5)
    layer = kb.RecurrentSequential([kb.GRUCell(6), layers.Dense(3)], readout=True, teacher_force=chance)
    x, truth = keras.Input((None, 3)), keras.Input((None, 3))
    model = keras.Model([x, truth], layer(x, ground_truth=truth))
    model.compile("adam", "mse")
    model.fit([X, X], X[:, -1], verbose=0)
    assert numpy(chance) == 0.5
    assert [w.shape for w in layer.get_weights()] == [(3, 18), (6, 18), (2, 18), (6, 3), (3,)]
    assert any(variable is chance for variable in model.non_trainable_variables)
    chance.assign(0.25)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_close(again.predict([X, X], verbose=0), model.predict([X, X], verbose=0), "float32")
    (loaded,) = [each for each in again.layers if isinstance(each, kb.RecurrentSequential)]
    assert numpy(loaded.teacher_force) == 0.25
    assert len(again.trainable_variables) == len(model.trainable_variables) == 5


@pytest.mark.parametrize("engine", ENGINES)
def test_forced_training_and_prediction_without_truth(engine):
    layer = kb.RecurrentSequential([kb.GRUCell(6), layers.Dense(3)], readout=True, teacher_force=True, engine=engine)
    layer = kb.RecurrentSequential.from_config({**layer.get_config(), "return_sequences": True})
    x, truth = keras.Input((None, 3)), keras.Input((None, 3))
    trained = keras.Model([x, truth], layer(x, ground_truth=truth))
    trained.compile(keras.optimizers.Adam(0.02), "mse")
    losses = trained.fit([X, X], X, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    predicted = keras.Model(x, layer(x)).predict(X, verbose=0)
    assert predicted.shape == (4, 6, 3)


def test_explain_and_the_choice_of_engines(monkeypatch):
    kb.set_engine(None)
    layer = counting()
    assert 'engine "keras", the fastest' in layer.explain()  # kernels that Python runs are used only when asked for
    assert "fast: can run this step, run by Python itself" in layer.explain()
    assert "reference: can run this step" in layer.explain()
    x, h = keras.Input((3,)), keras.Input((3,))
    refused = kb.RecurrentModel(x, ops.i0(h), h, x)
    assert "I0" in refused.explain()
    with pytest.raises(kb.TraceError, match="I0"), kb.use_engine("reference"):
        refused(X)
    monkeypatch.setenv("KERAS_BRIDGE_ENGINE", "reference")
    assert 'engine "reference", as set_engine' in layer.explain()
    kb.set_engine("keras")
    assert kb.get_engine() == "keras"
    kb.set_engine(None)
    assert kb.get_engine() == "reference"
    assert 'engine "keras", as the layer asks' in counting(engine="keras").explain()
    with pytest.raises(ValueError, match=r"engine must be one of.*magic"):
        kb.set_engine("magic")


@pytest.mark.parametrize("library", [kb, rsref])
def test_numbers_of_numpy_are_numbers(library):
    options = {"output_length": np.int64(3), "truncate": np.int32(2), "teacher_force": np.float32(0.5)}
    options["state_initializer"] = np.int64(1)
    layer = library.RecurrentSequential([library.GRUCell(3)], decode=True, readout=True, **options)
    assert numpy(layer(X[:, 0])).shape == (4, 3, 3)
    assert numpy(layer(X[:, 0], output_length=np.int64(5))).shape == (4, 5, 3)
    library.GRUCell(3).get_layer(teacher_force=np.False_)(X)
    if library is kb:
        assert {name: layer.get_config()[name] for name in options} == options
        assert all(type(layer.get_config()[name]) in (int, float) for name in options)
        assert layer(keras.Input((3,)), output_length=np.int64(5)).shape == (None, 5, 3)
