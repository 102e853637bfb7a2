"""Drawn steps in the loop: states, inputs, outputs, masks, direction, truncation; judged by plain loops."""

import numpy as np
import pytest

from rsref import (
    AttentionDecoderCell,
    Dense,
    Embedding,
    Flatten,
    Input,
    LayerCell,
    RecurrentModel,
    RecurrentSequential,
    SimpleRNNCell,
    generation,
    ops,
    set_random_seed,
)
from rsref.engine import ReferenceEngine
from tests.rsref.features.plain import check, factor
from tests.tolerances import assert_close

MASKS = {
    "none": None,
    "right": np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool),
    "left and middle": np.array([[0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]], bool),
}


@pytest.fixture(autouse=True)
def seed():
    set_random_seed(0)


def sample(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def layer_with_two_states(**options):
    x, h, c = Input((2,)), Input((3,)), Input((3,))
    z = Dense(3, bias_initializer="random_normal")(x) + Dense(3, use_bias=False)(h)
    new_c = 0.5 * c + ops.tanh(z)
    new_h = np.sin(new_c)
    return RecurrentModel(x, Dense(2)(new_h), [h, c], [new_h, new_c], return_state=True, **options)


def two_states_loop(mask, *, sequences=True, zero=False, backwards=False):
    def plain(x, h, c, w, b, u, v, d):
        valid_rows = None if mask is None else (mask[:, ::-1] if backwards else mask)
        x = x[:, ::-1] if backwards else x
        held, outputs = np.zeros((len(x), 2), x.dtype), []
        for t in range(x.shape[1]):
            valid = np.ones((len(x), 1), bool) if mask is None else valid_rows[:, t, None]
            new_c = 0.5 * c + np.tanh(x[:, t] @ w + b + h @ u)
            h, c = np.where(valid, np.sin(new_c), h), np.where(valid, new_c, c)
            held = np.where(valid, h @ v + d, 0 * held if zero else held)
            outputs.append(held)
        return [np.stack(outputs, 1) if sequences else held, h, c]

    return plain


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("backwards", [True, False])
def test_states_outputs_and_masks(mask, sequences, zero, backwards):
    layer = layer_with_two_states(return_sequences=sequences, zero_output_for_mask=zero, go_backwards=backwards)
    states = [sample(3, 3), sample(3, 3) + 1]
    check(
        layer,
        two_states_loop(MASKS[mask], sequences=sequences, zero=zero, backwards=backwards),
        x=sample(3, 4, 2),
        arguments={"initial_state": states, "mask": MASKS[mask]},
        leaves=states,
        read=lambda gradients: gradients.initial_state,
    )


def test_the_loop_sees_a_dropped_mask():
    states = [sample(3, 3), sample(3, 3)]
    with pytest.raises(AssertionError, match="relative error"):
        check(
            layer_with_two_states(return_sequences=True),
            two_states_loop(MASKS["right"]),
            x=sample(3, 4, 2),
            arguments={"initial_state": states},
            leaves=states,
            read=lambda gradients: gradients.initial_state,
        )


def test_the_loop_sees_swapped_states():
    states = [sample(3, 3), sample(3, 3) + 1]
    with pytest.raises(AssertionError, match="relative error"):
        check(
            layer_with_two_states(return_sequences=True),
            two_states_loop(None),
            x=sample(3, 4, 2),
            arguments={"initial_state": states[::-1]},
            leaves=states,
            read=lambda gradients: gradients.initial_state,
        )


def test_lengths_are_a_mask_and_padding_is_never_read():
    layer = layer_with_two_states(return_sequences=True)
    x = sample(3, 4, 2)
    (y, *_), _ = layer.forward(x, mask=MASKS["right"])
    broken = np.where(MASKS["right"][..., None], x, np.nan)
    (again, *_), tape = layer.forward(broken, lengths=[4, 2, 0])
    assert_close(again, y)
    gradients = layer.backward(tape, [np.ones_like(y), None, None])
    assert all(np.isfinite(g).all() for g in (gradients.x, *gradients.weights, *gradients.initial_state))
    assert not gradients.x[~MASKS["right"]].any()


def test_several_inputs_outputs_and_constants_of_any_rank():
    image, vector, fixed, h = Input((2, 2)), Input((2,)), Input((2,)), Input((2, 2))
    new = ops.tanh(image + 0.5 * ops.matmul(h, image) + ops.expand_dims(vector * fixed, 1))
    layer = RecurrentModel([image, vector], [new, ops.sum(new, -1)], h, new, constants=fixed, return_sequences=True)
    images, vectors, constant = sample(2, 3, 2, 2), sample(2, 3, 2), sample(2, 2)
    (y, sums), tape = layer.forward([images, vectors], constants=constant)
    state = np.zeros((2, 2, 2))
    for t in range(3):
        state = np.tanh(images[:, t] + 0.5 * state @ images[:, t] + (vectors[:, t] * constant)[:, None])
        assert_close(y[:, t], state)
        assert_close(sums[:, t], state.sum(-1))
    gradients = layer.backward(tape, [factor(y.shape), factor(sums.shape)])

    def loss(step):
        answers = layer([images, vectors], constants=constant + step * factor(constant.shape))
        return sum((factor(v.shape) * v).sum() for v in answers)

    moved = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert_close((gradients.constants[0] * factor(constant.shape)).sum(), moved, "differences")
    assert [g.shape for g in gradients.x] == [images.shape, vectors.shape]


def test_tokens_run_from_the_end_have_no_gradient_and_their_table_has():
    layer = RecurrentSequential([Embedding(5, 2), SimpleRNNCell(2)], go_backwards=True)
    y, tape = layer.forward(np.array([[4, 0, 3]]))
    gradients = layer.backward(tape, np.ones_like(y))
    assert gradients.x is None
    assert gradients.weights[0].any(axis=1).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize(("start", "first"), [(None, 0), (3, 3), (["ones"], 1)])
def test_an_integer_state_counts_steps(start, first):
    x, count = Input((1,)), Input((), dtype="int")
    layer = RecurrentModel(x, x + count[:, None], count, count + 1, state_initializer=start, return_state=True)
    for outer in (layer, RecurrentSequential([layer.get_cell()], return_state=True) if start is None else layer):
        y, end = outer(np.full((2, 4, 1), 0.5))
        np.testing.assert_array_equal(y, np.full((2, 1), first + 3.5))
        assert (end.dtype.kind, end.tolist()) == ("i", [first + 4] * 2)


def test_no_states_is_a_map_over_time():
    x = Input((2,))
    layer = RecurrentModel(x, ops.tanh(Dense(3)(x)), return_sequences=True)
    check(layer, lambda x, w, b: [np.tanh(x @ w + b)], x=sample(2, 5, 2))


def test_truncation_cuts_the_gradient_and_not_the_states():
    k, x = 2, sample(2, 5, 2)
    layer = layer_with_two_states(return_sequences=True, truncate=k)
    (y, h, _), tape = layer.forward(x)
    gradients = layer.backward(tape, [factor(y.shape), None, None])
    whole = two_states_loop(None)
    zeros = np.zeros((2, 3))
    expected, states = np.zeros_like(x), (zeros, zeros)
    for start in range(0, 5, k):
        chunk = x[:, start : start + k]
        outputs, *new_states = whole(chunk, *states, *layer.get_weights())
        for place in np.ndindex(*chunk.shape):
            moved = chunk.astype(complex)
            moved[place] += 1e-30j
            found = whole(moved, *states, *layer.get_weights())[0]
            row, t, feature = place
            weights = factor(y.shape)[:, start : start + k]
            expected[row, start + t, feature] = (weights * found).sum().imag / 1e-30
        assert_close(y[:, start : start + k], outputs)
        states = new_states
    assert_close(gradients.x, expected)
    assert_close(h, states[0])
    uncut = layer_with_two_states(return_sequences=True)
    uncut.set_weights(layer.get_weights())
    _, tape = uncut.forward(x)
    assert np.abs(uncut.backward(tape, [factor(y.shape), None, None]).x - expected).max() > 1e-3


def test_the_loop_goes_by_options_that_are_set_later():
    layer = layer_with_two_states(return_sequences=True)
    x, mask = sample(3, 4, 2), MASKS["left and middle"]
    states, d = [np.ones((3, 3)), np.ones((3, 3))], [np.ones((3, 4, 2)), None, None]
    layer.backward(layer.forward(x, initial_state=states)[1], d)
    layer.zero_output_for_mask = True
    answer, _ = layer.forward(x, initial_state=states, mask=mask)
    expected = two_states_loop(mask, zero=True)(x, *states, *layer.get_weights())
    for found, value in zip(answer, expected, strict=True):
        assert_close(found, value)
    layer.truncate = 4  # the last step is the fourth
    whole = layer.backward(layer.forward(x, initial_state=states)[1], d)
    layer.truncate = np.int64(1)
    cut = layer.backward(layer.forward(x, initial_state=states)[1], d)
    alone = layer.backward(layer.forward(x[:, :1], initial_state=states)[1], [d[0][:, :1], None, None])
    assert layer.truncate == 1
    assert_close(cut.initial_state[0], alone.initial_state[0])
    assert np.abs(whole.initial_state[0] - cut.initial_state[0]).max() > 0.01
    made = []
    layer.make_engine = lambda recurrence: made.append(recurrence) or ReferenceEngine(recurrence)
    layer.forward(x)
    assert [one.truncate for one in made] == [1]


def test_a_tape_keeps_the_options_of_its_run():
    layer = layer_with_two_states(return_sequences=True, go_backwards=True)
    x = sample(3, 4, 2)
    answer, tape = layer.forward(x)
    d = [sample(*part.shape) for part in answer]
    expected = layer.backward(tape, d)
    layer.go_backwards = layer.return_sequences = layer.return_state = False
    found = layer.backward(tape, d)
    np.testing.assert_array_equal(found.x, expected.x)
    assert np.abs(expected.x - expected.x[:, ::-1]).max() > 0.01
    for one, other in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_last_output_is_an_array_of_its_own():
    """Not a part of all steps' outputs, which it would keep."""
    layer = layer_with_two_states()
    y, *_ = layer(sample(3, 40, 2))
    assert y.base is None
    assert y.flags.owndata


def test_unroll_changes_nothing_and_float32_stays():
    plain, unrolled = (layer_with_two_states(return_sequences=True, unroll=u, dtype="float32") for u in (False, True))
    unrolled.set_weights(plain.get_weights())
    answers, tape = plain.forward(sample(2, 3, 2))
    for one, other in zip(answers, unrolled(sample(2, 3, 2))):
        assert one.dtype == np.float32
        assert (one == other).all()
    assert all(g.dtype == np.float32 for g in plain.backward(tape, answers).weights)


@pytest.mark.parametrize("shape", [(0, 4, 2), (3, 0, 2)])
def test_nothing_is_answered_by_nothing(shape):
    layer = layer_with_two_states(return_sequences=True)
    (y, h, _), tape = layer.forward(np.zeros(shape), lengths=[0] * shape[0])
    assert y.shape == (*shape[:2], 2)
    assert not h.any()
    gradients = layer.backward(tape, [np.zeros_like(y), None, None])
    assert gradients.x.shape == shape
    assert not any(g.any() for g in gradients.weights)


def test_attention_to_no_places_is_attention_to_padded_ones():
    layer = RecurrentSequential([AttentionDecoderCell(4)], decode=True, output_length=3)
    layer.build((None, None, 5))
    h = sample(2, 4)
    padded = layer(sample(2, 3, 5), initial_state=h, mask=np.zeros((2, 3), bool))
    y, tape = layer.forward(np.zeros((2, 0, 5)), initial_state=h)
    np.testing.assert_array_equal(y, padded)
    assert layer.backward(tape, np.ones_like(y)).x.shape == (2, 0, 5)


@pytest.mark.parametrize("padding", [np.nan, np.inf])
def test_attention_does_not_see_what_padding_holds(padding):
    layer = RecurrentSequential([AttentionDecoderCell(4)], decode=True, output_length=3)
    layer.build((None, None, 5))
    x, lengths = sample(2, 6, 5), [6, 4]
    spoilt = x.copy()
    spoilt[1, 4:] = padding
    (y, tape), (found, spoilt_tape) = (layer.forward(given, lengths=lengths) for given in (x, spoilt))
    np.testing.assert_array_equal(found, y)
    wanted, got = (layer.backward(t, np.ones_like(y)) for t in (tape, spoilt_tape))
    np.testing.assert_array_equal(got.x, wanted.x)
    for g, w in zip(got.weights, wanted.weights):
        np.testing.assert_array_equal(g, w)


@pytest.mark.parametrize("nested", [False, True])
def test_a_decoder_takes_encoded_sequences_of_any_length(nested):
    cell = AttentionDecoderCell(4)
    layers = [RecurrentSequential([cell]).get_cell() if nested else cell]
    layer = RecurrentSequential(layers, decode=True, output_length=3)
    layer(sample(2, 7, 5))
    x = sample(2, 6, 5)
    padded, mask = np.concatenate([x, sample(2, 1, 5)], 1), np.arange(7) < np.full((2, 1), 6)
    assert_close(layer(x), layer(padded, mask=mask))


@pytest.mark.parametrize("nested", [False, True])
def test_a_decoder_whose_layers_need_a_known_length_keeps_it(nested):
    flat, kept = [Flatten(), SimpleRNNCell(2)], [LayerCell(Dense(3), merge="add")]
    for cells in (flat, kept):
        layers = [RecurrentSequential(cells).get_cell()] if nested else cells
        layer = RecurrentSequential(layers, decode=True, output_length=3)
        layer(sample(2, 4, 3))
        assert [w.shape for w in layer.weights] == ([(12, 2), (2, 2), (2,)] if cells is flat else [(3, 3), (3,)])
        with pytest.raises(ValueError, match=r"\(2, 5, 3\) is given"):
            layer(sample(2, 5, 3))


@pytest.mark.parametrize("flat", [False, True])
def test_a_product_over_no_features_is_zero_and_the_bias_learns(flat):
    x = Input((3, 0))
    layer = RecurrentModel(x, Dense(2)(Flatten()(x) if flat else x), return_sequences=True)
    y, tape = layer.forward(np.zeros((2, 4, 3, 0)))
    np.testing.assert_array_equal(y, np.zeros((2, 4, 2) if flat else (2, 4, 3, 2)))
    kernel, bias = layer.backward(tape, np.ones_like(y)).weights
    assert kernel.shape == (0, 2)
    np.testing.assert_array_equal(bias, [8, 8] if flat else [24, 24])


def test_a_call_keeps_nothing_for_backward():
    """Nor does generation: an engine is told so, and answers the same."""
    asked = []

    class Watched(ReferenceEngine):
        def forward(self, *arrays, taped=True, **options):
            asked.append(taped)
            return super().forward(*arrays, taped=taped, **options)

    token, h = Input((), dtype="int"), Input((3,))
    new = ops.tanh(Embedding(4, 3)(token) + h)
    layer = RecurrentModel(token, Dense(4)(new), h, new, engine=Watched)
    tokens = np.array([[0, 2, 3]])
    y, tape = layer.forward(tokens)
    np.testing.assert_array_equal(layer(tokens), y)
    generation.greedy(layer, tokens[:, 0], 2)
    assert asked == [True, False, False, False]
    assert tape.tape is not None
