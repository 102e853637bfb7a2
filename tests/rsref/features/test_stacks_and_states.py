"""Stacks, nesting, synchronised states, initial states, carried states and dropout, judged by plain loops."""

import itertools
import pickle
import threading
import time

import numpy as np
import pytest

from rsref import (
    Dense,
    Dropout,
    Embedding,
    Input,
    Learned,
    Model,
    RecurrentModel,
    RecurrentSequential,
    RNNCellFromModel,
    SimpleRNNCell,
    ops,
    set_random_seed,
)
from rsref.layers.base import watched
from tests.rsref.features.plain import check
from tests.rsref.features.test_readout import TanhCell
from tests.tolerances import assert_close


@pytest.fixture(autouse=True)
def seed():
    set_random_seed(0)


def sample(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def cell(x, h, w, b, u):
    return np.tanh(x @ w + b + h @ u)


def stacked_loop(x, *weights):
    h, g = np.zeros((2, 3)), np.zeros((2, 3))
    outputs = []
    for t in range(4):
        h = cell(x[:, t], h, *weights[:3])
        g = cell(np.sin(h), g, *weights[3:])
        outputs.append(g)
    return [np.stack(outputs, 1), h, g]


def test_stack_of_cells_layers_and_functions():
    layer = RecurrentSequential([TanhCell(3), ops.sin, TanhCell(3)], return_sequences=True, return_states=True)
    check(layer, stacked_loop, x=sample(2, 4, 2))
    assert layer.num_states == 2


def test_nesting_three_deep_is_the_same_network():
    inner = RecurrentSequential([TanhCell(3)])
    middle = RecurrentSequential([inner.get_cell(), ops.sin])
    outer = RecurrentSequential(return_sequences=True, return_state=True)
    outer.add(middle.get_cell())
    outer.add(TanhCell(3))
    check(outer, stacked_loop, x=sample(2, 4, 2))


def test_cells_called_inside_a_step_share_their_weights():
    shared, x, h, g = TanhCell(3), Input((3,)), Input((3,)), Input((3,))
    y, new_h = shared([x, h])
    z, new_g = shared([y, g])
    layer = RecurrentModel(x, z, [h, g], [new_h, new_g], return_sequences=True)
    assert len(layer.weights) == 3

    def plain(x, w, b, u):
        h, g, outputs = np.zeros((2, 3)), np.zeros((2, 3)), []
        for t in range(4):
            h = cell(x[:, t], h, w, b, u)
            g = cell(h, g, w, b, u)
            outputs.append(g)
        return [np.stack(outputs, 1)]

    check(layer, plain, x=sample(2, 4, 3))


def synchronised_loop(x, *weights):
    h, outputs = np.zeros((2, 3)), []
    for t in range(4):
        h = cell(x[:, t], h, *weights[:3])
        h = cell(h, h, *weights[3:])
        outputs.append(h)
    return [np.stack(outputs, 1), h]


def test_synchronised_cells_read_what_the_cell_before_wrote():
    cells = [TanhCell(3), TanhCell(3)]
    layer = RecurrentSequential(cells, state_sync=True, return_sequences=True, return_state=True)
    check(layer, synchronised_loop, x=sample(2, 4, 2))
    apart = RecurrentSequential([TanhCell(3), TanhCell(3)], return_sequences=True)
    apart(sample(2, 4, 2))
    apart.set_weights(layer.get_weights())
    assert np.abs(apart(sample(2, 4, 2)) - layer(sample(2, 4, 2))[0]).max() > 1e-3


def test_cell_from_a_model_and_back():
    x, h = Input((2,)), Input((3,))
    new = ops.tanh(Dense(3)(x) + Dense(3, use_bias=False)(h))
    given = RNNCellFromModel(Model([x, h], [new, new]))
    layer = given.get_layer(return_sequences=True)
    again = layer.get_cell().get_layer(return_sequences=True)
    x = sample(2, 4, 2)
    assert_close(again(x), layer(x))
    kernel, bias, recurrent = layer.get_weights()
    state, expected = np.zeros((2, 3)), []
    for t in range(4):
        state = cell(x[:, t], state, kernel, bias, recurrent)
        expected.append(state)
    assert_close(layer(x), np.stack(expected, 1))


def test_readout_becomes_a_state_of_the_cell():
    layer = RecurrentSequential([TanhCell(2)], readout="add", return_sequences=True)
    x = sample(2, 4, 2)
    expected = layer(x)
    outer = layer.get_cell().get_layer(return_sequences=True, return_state=True)
    y, _, readout = outer(x)
    assert_close(y, expected)
    assert_close(readout, expected[:, -1])


@pytest.mark.parametrize(
    ("initializer", "value"),
    [("ones", 1.0), (0.25, 0.25), (np.array([1.0, 2.0, 3.0]), [1, 2, 3]), (lambda shape: np.full(shape, -2.0), -2.0)],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_state_initializers_with_any_batch(initializer, value, batch):
    layer = TanhCell(3).get_layer(state_initializer=initializer)
    x = sample(batch, 1, 2)
    w, b, u = (layer(x), layer.get_weights())[1]
    assert_close(layer(x), cell(x[:, 0], np.broadcast_to(value, (batch, 3)), w, b, u))


def test_a_shorter_list_leaves_zeros_and_learned_states_learn():
    layer = RecurrentSequential([TanhCell(3), TanhCell(3)], state_initializer=[Learned("ones")], return_sequences=True)

    def plain(x, w, b, u, v, d, k, start):
        h, g, outputs = np.zeros((2, 3)) + start, np.zeros((2, 3)), []
        for t in range(4):
            h = cell(x[:, t], h, w, b, u)
            g = cell(h, g, v, d, k)
            outputs.append(g)
        return [np.stack(outputs, 1)]

    check(layer, plain, x=sample(2, 4, 2))
    assert (layer.get_weights()[-1] == 1).all()
    _, tape = layer.forward(sample(2, 4, 2), initial_state=[np.zeros((2, 3))] * 2)
    assert not layer.backward(tape, np.ones((2, 4, 3))).weights[-1].any()


def test_a_layer_built_again_keeps_its_learned_states():
    layer = TanhCell(3).get_layer(state_initializer="learned")
    layer.build((None, None, 2))
    before = layer.weights
    layer.set_weights([np.full(w.shape, 0.5) for w in before])
    y = layer(sample(2, 4, 2))
    layer.build((2, 4, 2))
    assert layer.weights == before
    assert_close(layer(sample(2, 4, 2)), y)


def test_stateful_chunks_are_one_long_call():
    whole = RecurrentSequential([TanhCell(2)], readout="add", return_sequences=True)
    x = sample(2, 6, 2)
    expected = whole(x)
    chunked = RecurrentSequential([TanhCell(2)], readout="add", return_sequences=True, stateful=True)
    chunked.build(x.shape)
    chunked.set_weights(whole.get_weights())
    assert_close(np.concatenate([chunked(x[:, :1]), chunked(x[:, 1:4]), chunked(x[:, 4:])], 1), expected)
    with pytest.raises(ValueError, match=r"reset_states.*batch size 2.*1 is needed"):
        chunked(x[:1])
    chunked.reset_states()
    assert_close(chunked(x), expected)
    chunked.reset_states(np.ones((1, 2)))
    assert chunked(x[:1]).shape == (1, 6, 2)


def test_carried_states_are_no_arrays_of_the_caller():
    x, h = Input((1,)), Input((1,))
    delay = RecurrentModel(x, h, h, x, stateful=True, return_sequences=True, return_state=True)
    ones = np.ones((1, 2, 1))
    _, state = delay(ones)
    ones[:] = state[:] = delay.states[0][:] = 5
    assert delay(ones)[0][0, 0, 0] == 1
    start = np.full((1, 1), 2.0)
    delay.reset_states(start)
    start[:] = 5
    assert delay(ones)[0][0, 0, 0] == 2


@pytest.mark.parametrize("per", ["step", "sequence"])
def test_dropout_masks_are_explicit(per):
    x, h = Input((2,)), Input((2,))
    new = ops.tanh(Dense(2)(Dropout(0.5, per=per)(x)) + h)
    layer = RecurrentModel(x, new, h, new, return_sequences=True, seed=3)
    values = sample(2, 4, 2)
    masks = np.random.default_rng(0).integers(0, 2, (2, 4, 2) if per == "step" else (2, 2)) * 2.0
    assert layer.noise_shapes == [(per, (None, 2))]

    def plain(x, w, b):
        h, outputs = np.zeros((2, 2)), []
        for t in range(4):
            h = np.tanh((x[:, t] * (masks[:, t] if per == "step" else masks)) @ w + b + h)
            outputs.append(h)
        return [np.stack(outputs, 1)]

    check(layer, plain, x=values, arguments={"dropout_masks": [masks], "training": True})
    assert_close(layer(values, training=False), layer(values, dropout_masks=[np.ones(masks.shape)]))
    first, second = layer(values, training=True), layer(values, training=True)
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("per", ["step", "sequence"])
@pytest.mark.parametrize("decode", [True, False])
def test_dropout_over_an_axis_of_unknown_length(per, decode):
    encoded, h = Input((None, 2)), Input((2,))
    new = ops.tanh(ops.sum(Dropout(0.5, per=per)(encoded * 2), 1) + h)
    places = {"input": encoded} if decode else {"constants": encoded, "input": Input((1,))}
    options = {"decode": True, "output_length": 3} if decode else {"return_sequences": True}
    layer = RecurrentModel(**places, output=new, initial_states=h, final_states=new, seed=3, **options)
    for length in (5, 4):
        values = sample(2, length, 2)
        call = {"x": values} if decode else {"x": np.zeros((2, 3, 1)), "constants": values}
        masks = np.random.default_rng(0).integers(0, 2, (2, 3 if per == "step" else 1, length, 2)) * 2.0
        given = masks if per == "step" else masks[:, 0]
        assert_close(layer(**call), plain_decoder(values, np.ones_like(masks)))
        assert_close(layer(**call, dropout_masks=[given]), plain_decoder(values, masks))
    drawn = layer(**call, training=True)
    assert np.abs(drawn - layer(**call)).max() > 1e-3


@pytest.mark.parametrize("per", ["step", "sequence"])
def test_dropout_of_a_sequence_of_lists_of_any_length(per):
    x = Input((None, 2))
    layer = RecurrentModel(x, ops.sum(Dropout(0.5, per=per)(x), 1), return_sequences=True, dtype="float32")
    values = sample(2, 3, 5, 2)
    masks = np.random.default_rng(0).integers(0, 2, (2, 3, 5, 2) if per == "step" else (2, 5, 2)) * 2.0
    found = layer(values, dropout_masks=[masks])
    assert_close(found, (values * (masks if per == "step" else masks[:, None])).sum(2), "float32")
    assert {y.dtype for y in (found, layer(values), layer(values, training=True))} == {np.dtype(np.float32)}


def plain_decoder(values, masks):
    h, outputs = np.zeros((len(values), 2)), []
    for t in range(3):
        h = np.tanh((2 * values * masks[:, t % masks.shape[1]]).sum(1) + h)
        outputs.append(h)
    return np.stack(outputs, 1)


def token_cell():
    token, h = Input((), dtype="int"), Input((2,))
    new, state = SimpleRNNCell(2)([Embedding(5, 2)(token), h])
    return RNNCellFromModel(Model([token, h], [new, state]))


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [Embedding(5, 2), SimpleRNNCell(2)],
        lambda: [RecurrentSequential([Embedding(5, 2), SimpleRNNCell(2)]).get_cell()],
        lambda: [RecurrentSequential([RecurrentSequential([Embedding(5, 2)]).get_cell(), SimpleRNNCell(2)]).get_cell()],
        lambda: [token_cell()],
    ],
)
def test_a_stack_that_begins_with_an_embedding_reads_indices(layers):
    layer = RecurrentSequential(layers(), return_sequences=True)
    tokens = np.array([[4, 0, 3]])
    y = layer(tokens)
    table, kernel, recurrent, bias = layer.get_weights()
    h = np.zeros((1, 2))
    for t in range(3):
        h = np.tanh(table[tokens[:, t]] @ kernel + h @ recurrent + bias)
        assert_close(y[:, t], h)


@pytest.mark.parametrize("values", [np.array([[[1, 2, 3]]]), np.array([[[True, False, True]]])])
def test_a_model_of_floats_takes_integers_and_booleans_as_floats(values):
    x, h = Input((3,)), Input((6,))
    both, kernel = ops.concatenate([x, h], -1), np.arange(6.0).reshape(3, 2)
    model = Model([x, h], [ops.softmax(x), x + x, -x, ops.matmul(x, kernel), both])
    given, old = Input((3,), dtype="bool" if values.dtype == bool else "int"), Input((6,))
    layer = RecurrentModel(given, model([given, old]), old, old, return_sequences=True)
    v = values.astype(float)
    expected = [np.exp(v) / np.exp(v).sum(-1), 2 * v, -v, v @ kernel, np.concatenate([v, np.zeros((1, 1, 6))], -1)]
    for found, value in zip(layer(values, initial_state=np.zeros((1, 6))), expected, strict=True):
        assert_close(found, value, "float32")
    cell = RNNCellFromModel(Model([x, h], [both[:, :6] * 0.5, both[:, 3:]]))
    new, state = cell([given, old])
    y, last = RecurrentModel(given, new, old, state, return_state=True)(values, initial_state=np.ones((1, 6)))
    assert_close(y, np.concatenate([v[:, 0], np.ones((1, 3))], -1) / 2)
    assert_close(last, np.ones((1, 6)))


def test_layers_that_another_thread_builds_meanwhile_stay_built():
    layer = Dense(3)
    with watched() as built:
        thread = threading.Thread(target=lambda: layer(Input((2,))))
        thread.start()
        thread.join()
    assert layer.built
    assert not built


def test_a_layer_that_several_threads_call_first_is_built_once():
    made, called = [], threading.Barrier(2)

    def initializer(shape):
        made.append(shape)
        time.sleep(0.05)  # the other thread calls meanwhile
        return np.ones(shape)

    layer = RecurrentSequential([SimpleRNNCell(3, kernel_initializer=initializer)])

    def call():
        called.wait(10)
        layer(np.zeros((2, 5, 4)))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [(4, 3)]


@pytest.mark.parametrize("start", ["learned", "glorot_uniform", 0.5], ids=str)
def test_a_layer_is_pickled_with_its_weights_and_states(start):
    """What another process is given computes the same, with weights of its own."""
    x = np.random.default_rng(0).standard_normal((2, 5, 4))
    inner = RecurrentSequential([SimpleRNNCell(4, activation="gelu"), Dropout(0.2), Dense(4)], readout="max")
    layer = RecurrentSequential([inner.get_cell(), Dropout(0.2)], stateful=True, state_initializer=start, seed=1)
    layer(x)
    other = pickle.loads(pickle.dumps(layer))
    assert_close(other(x, training=True), layer(x, training=True))
    expected = layer.get_weights()
    other.set_weights([0 * w for w in other.get_weights()])
    for weight, value in zip(layer.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_weights_made_after_reading_a_pickle_come_after_its_own(monkeypatch):
    """In a new process, which has counted none yet: the order of weights is that of the process that wrote it."""
    x = np.random.default_rng(0).standard_normal((2, 5, 4))
    inner = SimpleRNNCell(4).get_layer()
    inner(x)
    layer = RecurrentSequential([inner.get_cell(), SimpleRNNCell(4)])
    text = pickle.dumps(layer)
    monkeypatch.setattr("rsref.tensor._serial", itertools.count())
    other = pickle.loads(text)
    other(x)
    monkeypatch.undo()
    expected = layer(x)
    other.set_weights(layer.get_weights())
    assert_close(other(x), expected)
