"""Readout, teacher forcing, scheduled sampling and decoders, judged by plain loops."""

import numpy as np
import pytest

from rsref import (
    Dense,
    Embedding,
    Input,
    LSTMCell,
    Model,
    RecurrentModel,
    RecurrentSequential,
    RNNCell,
    ops,
    set_random_seed,
)
from tests.rsref.features.plain import check, complex_gradients, factor, greater
from tests.tolerances import assert_close


@pytest.fixture(autouse=True)
def seed():
    set_random_seed(0)


def sample(*shape):
    return np.random.default_rng(1).standard_normal(shape)


class TanhCell(RNNCell):
    """h' = tanh(x W + b + h U)."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build_model(self, input_shape):
        x, h = Input(batch_shape=input_shape), Input((self.units,))
        new = ops.tanh(Dense(self.units)(x) + Dense(self.units, use_bias=False)(h))
        return Model([x, h], [new, new])


MERGES = {
    "add": lambda x, r: x + r,
    "mul": lambda x, r: x * r,
    "avg": lambda x, r: (x + r) / 2,
    "max": greater,
    "readout_only": lambda x, r: r,
}


@pytest.mark.parametrize("mode", MERGES)
def test_readout_modes(mode):
    layer = RecurrentSequential([TanhCell(4), Dense(3)], readout=mode, readout_activation="tanh", return_sequences=True)
    start = sample(2, 3)

    def plain(x, readout, w, b, u, v, d):
        h, outputs = np.zeros((2, 4)), []
        for t in range(4):
            h = np.tanh(MERGES[mode](x[:, t], np.tanh(readout)) @ w + b + h @ u)
            readout = h @ v + d
            outputs.append(readout)
        return [np.stack(outputs, 1)]

    check(
        layer,
        plain,
        x=sample(2, 4, 3) + 0.3,
        arguments={"initial_readout": start},
        leaves=[start],
        read=lambda gradients: [gradients.initial_readout],
    )


def test_a_refused_first_call_leaves_the_layer_as_it_was():
    layer = RecurrentSequential([TanhCell(5)], readout="add")
    with pytest.raises(ValueError, match="shapes must agree"):
        layer(np.zeros((2, 7, 4)))
    assert layer(np.zeros((2, 7, 5))).shape == (2, 5)
    assert layer.weights[0].shape == (5, 5)


def test_readout_only_is_drawn_on_the_output_alone():
    """The input, of another length than the output, tells the number of steps and nothing else."""
    dense, x = Dense(4), np.ones((2, 3, 5))
    start = sample(2, 4)
    layer = RecurrentSequential([lambda readout: dense(readout)], readout="readout_only", return_sequences=True)
    y = layer(x, initial_readout=start)
    kernel, bias = layer.get_weights()
    expected = []
    for _ in range(3):
        expected.append((expected[-1] if expected else start) @ kernel + bias)
    assert_close(y, np.stack(expected, 1))
    named = LSTMCell(4, input_dim=4).get_layer(readout="readout_only")
    assert named(x).shape == (2, 4)
    assert [w.shape for w in named.weights] == [(4, 16), (4, 16), (16,)]


def forced_layer(**options):
    x, h, readout = Input((2,)), Input((3,)), Input((2,))
    new = ops.tanh(Dense(3)(ops.concatenate([x, readout], -1)) + Dense(3, use_bias=False)(h))
    return RecurrentModel(x, Dense(2)(new), h, new, readout, return_sequences=True, **options)


def forced_loop(mask, forced=True):
    """A masked step changes nothing, so the truth of the last valid step is what the next valid one reads."""

    def plain(x, readout, truth, w, b, u, v, d):
        h, held, outputs = np.zeros((2, 3)), np.zeros((2, 2)), []
        for t in range(4):
            valid = np.ones((2, 1), bool) if mask is None else mask[:, t, None]
            h = np.where(valid, np.tanh(np.concatenate([x[:, t], readout], -1) @ w + b + h @ u), h)
            y = h @ v + d
            held = np.where(valid, y, held)
            readout = np.where(valid, truth[:, t] if forced else y, readout)
            outputs.append(held)
        return [np.stack(outputs, 1)]

    return plain


@pytest.mark.parametrize("mask", [None, np.array([[0, 1, 1, 1], [1, 1, 0, 1]], bool)])
@pytest.mark.parametrize("probability", [True, 1.0, lambda: 1, np.array(1.0)])
def test_teacher_forcing_reads_the_truth_of_the_step_before(mask, probability):
    start, truth = sample(2, 2), sample(2, 4, 2) * 2
    check(
        forced_layer(teacher_force=probability),
        forced_loop(mask),
        x=sample(2, 4, 2),
        arguments={"ground_truth": truth, "initial_readout": start, "mask": mask, "training": True},
        leaves=[start, truth],
        read=lambda gradients: [gradients.initial_readout, gradients.ground_truth],
    )


def test_the_loop_sees_a_truth_shifted_by_one():
    start, truth = sample(2, 2), sample(2, 4, 2)
    with pytest.raises(AssertionError, match="relative error"):
        check(
            forced_layer(teacher_force=True),
            forced_loop(None),
            x=sample(2, 4, 2),
            arguments={"ground_truth": np.roll(truth, 1, axis=1), "initial_readout": start, "training": True},
            leaves=[start, truth],
            read=lambda gradients: [gradients.initial_readout, gradients.ground_truth],
        )


@pytest.mark.parametrize("training", [False, None])
def test_inference_needs_no_truth(training):
    layer, x, start = forced_layer(teacher_force=True), sample(2, 4, 2), np.zeros((2, 2))
    y = layer(x, training=training)
    assert_close(y, forced_loop(None, forced=False)(x, start, np.zeros((2, 4, 2)), *layer.get_weights())[0])


def test_scheduled_sampling_draws_each_sample_and_step_alone():
    x, readout = Input((1,)), Input((1,))
    options = {"readout_input": readout, "return_sequences": True}
    layer = RecurrentModel(x, x + readout, **options, teacher_force=0.3, seed=5)
    shape = (400, 20, 1)
    y = layer(np.zeros(shape), ground_truth=np.ones(shape), training=True)
    # the output is what was read: 1 once the truth was chosen, and ever after
    first = (y[:, :, 0] == 0).sum(axis=1) - 1
    expected = 0.7 / 0.3
    assert abs(first[first < 19].mean() - expected) < 0.3
    again = RecurrentModel(x, x + readout, **options, teacher_force=0.3, seed=5)
    assert (again(np.zeros(shape), ground_truth=np.ones(shape), training=True) == y).all()
    never = RecurrentModel(x, x + readout, **options, teacher_force=0.0)
    assert not never(np.zeros(shape), ground_truth=np.ones(shape), training=True).any()


def test_decoder_sees_the_whole_input_at_every_step():
    layer = RecurrentSequential([TanhCell(3), Dense(2)], decode=True, output_length=4)

    def plain(x, w, b, u, v, d):
        h, outputs = np.zeros((2, 3)), []
        for _ in range(4):
            h = np.tanh(x @ w + b + h @ u)
            outputs.append(h @ v + d)
        return [np.stack(outputs, 1)]

    check(layer, plain, x=sample(2, 3))
    assert layer(sample(2, 3), output_length=7).shape == (2, 7, 2)


@pytest.mark.parametrize("forced", [False, True])
def test_a_decoder_with_inputs_constants_and_truths(forced):
    """Each finds its own gradients among them."""
    a, b, c, d, readout = (Input((2,)) for _ in range(5))
    options = {"decode": True, "output_length": 3, "teacher_force": forced, "readout_input": readout}
    layer = RecurrentModel([a, b], ops.tanh(a + b * readout - 2 * c * d), constants=[c, d], **options)
    arrays = list(sample(6, 2, 3, 2))
    inputs, constants, start, truth = (
        [v[:, 0] for v in arrays[:2]],
        [v[:, 1] for v in arrays[2:4]],
        arrays[4][:, 0],
        arrays[5],
    )

    def plain(a, b, c, d, readout, truth):
        outputs = []
        for t in range(3):
            outputs.append(np.tanh(a + b * readout - 2 * c * d))
            readout = truth[:, t] if forced else outputs[-1]
        return [np.stack(outputs, 1)]

    given = {"ground_truth": truth, "training": True} if forced else {}
    y, tape = layer.forward(inputs, constants=constants, initial_readout=start, **given)
    leaves = [*inputs, *constants, start, truth]
    assert_close(y, plain(*leaves)[0])
    found = layer.backward(tape, factor(y.shape))
    assert (found.ground_truth is not None) == forced
    expected = complex_gradients(plain, leaves)[: 6 if forced else 5]
    gradients = [*found.x, *found.constants, found.initial_readout, *([found.ground_truth] if forced else [])]
    for one, other in zip(gradients, expected, strict=True):
        assert_close(one, other)


def test_attention_over_a_masked_sequence():
    encoded, mask, h = Input((None, 2)), Input((None,), dtype="bool"), Input((2,))
    scores = ops.einsum("btf,bf->bt", encoded, h)
    weights = ops.softmax(ops.where(mask, scores, -1e30))
    new = ops.tanh(ops.einsum("bt,btf->bf", weights, encoded) + h)
    layer = RecurrentModel(encoded, new, h, new, mask_input=mask, decode=True, output_length=3)
    x, state = sample(2, 5, 2), sample(2, 2)
    lengths = np.array([5, 2])

    def plain(x, h):
        outputs = []
        for _ in range(3):
            context = []
            for row, n in enumerate(lengths):
                e = np.exp(x[row, :n] @ h[row])
                context.append((e / e.sum()) @ x[row, :n])
            h = np.tanh(np.stack(context) + h)
            outputs.append(h)
        return [np.stack(outputs, 1)]

    check(
        layer,
        plain,
        x=x,
        arguments={"initial_state": state, "lengths": lengths},
        leaves=[state],
        read=lambda gradients: gradients.initial_state,
    )


def test_a_model_that_is_given_no_mask_lets_every_place_count():
    encoded, mask, h = Input((None, 2)), Input((None,), dtype="bool"), Input((2,))
    places = ops.sum(ops.cast(mask, "float"), 1, keepdims=True)
    new = ops.tanh(ops.sum(ops.where(mask[:, :, None], encoded, 0.0), 1) / places + h)
    model = Model([encoded, h], [new, new], mask_input=mask)
    inputs = Input((None, 2)), Input((2,))
    output, state = model(inputs)
    layer = RecurrentModel(inputs[0], output, inputs[1], state, decode=True, output_length=2)

    def plain(x):
        first = np.tanh(x.mean(1))
        return [np.stack([first, np.tanh(x.mean(1) + first)], 1)]

    check(layer, plain, x=sample(3, 4, 2))


def test_two_readouts():
    x, a, b = Input((2,)), Input((2,)), Input((2,))
    layer = RecurrentModel(x, [x + 0.5 * b, x * a], readout_input=[a, b], return_sequences=True)
    values, starts = sample(2, 3, 2), [sample(2, 2), sample(2, 2) + 1]
    (y, z), tape = layer.forward(values, initial_readout=starts)
    gradients = layer.backward(tape, [factor(y.shape), factor(z.shape)])

    def plain(x, a, b):
        ys, zs = [], []
        for t in range(3):
            a, b = x[:, t] + 0.5 * b, x[:, t] * a
            ys.append(a)
            zs.append(b)
        return [np.stack(ys, 1), np.stack(zs, 1)]

    for one, other in zip((y, z), plain(values, *starts)):
        assert_close(one, other)
    expected = complex_gradients(plain, [values, *starts])
    for one, other in zip([gradients.x, *gradients.initial_readout], expected):
        assert_close(one, other)


@pytest.mark.parametrize("forced", [False, True])
def test_a_decoder_of_words_reads_the_word_before(forced):
    x, word, h = Input((4,)), Input((), dtype="int"), Input((4,))
    new = ops.tanh(Embedding(6, 4)(word) + x - h)
    scores = Dense(6)(new)
    options = {"readout_input": word, "decode": True, "output_length": 5, "teacher_force": forced}
    layer = RecurrentModel(x, [ops.argmax(scores, -1), scores], h, new, **options)
    truth = np.array([[1, 5, 0, 2, 5]] * 3)

    def plain(x, table, kernel, bias):
        word, h, answers = np.zeros(3, int), np.zeros((3, 4)), []
        for t in range(5):
            h = np.tanh(table[word] + x - h)
            scores = h @ kernel + bias
            chosen = np.argmax(scores.real, -1)
            answers.append((chosen, scores))
            word = truth[:, t] if forced else chosen
        return [np.stack(values, 1) for values in zip(*answers)]

    check(layer, plain, x=3 * sample(3, 4), arguments={"ground_truth": truth, "training": True} if forced else {})


def test_a_flag_is_read_back_and_forced():
    x, seen = Input(()), Input((), dtype="bool")
    layer = RecurrentModel(
        x, ops.logical_or(seen, x > 0), readout_input=seen, teacher_force=True, return_sequences=True
    )
    values, truth = np.array([[-1.0, 1.0, -1.0, -1.0]]), np.array([[True, False, False, True]])
    np.testing.assert_array_equal(layer(values), [[False, True, True, True]])
    forced = layer(values, ground_truth=truth, training=True)
    np.testing.assert_array_equal(forced, [[False, True, False, False]])


def test_a_decoder_without_input_has_the_batch_of_what_it_starts_from():
    h, readout = Input((3,)), Input((3,))
    options = {"readout_input": readout, "decode": True, "output_length": 2, "stateful": True, "teacher_force": True}
    layer = RecurrentModel(None, ops.tanh(h + readout), h, ops.sin(h), **options)

    def plain(h, readout, steps, truth=None):
        outputs = []
        for t in range(steps):
            h, output = np.sin(h), np.tanh(h + readout)
            readout = output if truth is None else truth[:, t]
            outputs.append(output)
        return np.stack(outputs, 1)

    start, zeros = sample(4, 3), np.zeros((4, 3))
    expected = plain(start, zeros, 4)
    assert_close(layer(initial_state=start.tolist()), expected[:, :2])
    assert_close(layer(), expected[:, 2:])
    layer.reset_states(start)
    assert_close(layer(), expected[:, :2])
    layer.reset_states()
    assert_close(layer(initial_readout=start), plain(zeros, start, 2))
    layer.reset_states()
    truth = sample(4, 2, 3)
    assert_close(layer(ground_truth=truth, training=True), plain(zeros, zeros, 2, truth))
    layer.reset_states()
    assert layer().shape == (1, 2, 3)
