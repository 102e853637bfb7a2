"""Cells that no peer has, against their papers' equations written out in plain loops; gradients by complex steps."""

import numpy as np
import pytest

from rsref import Dense, cells, initializers, set_random_seed
from rsref.cells import basic
from tests.rsref.features.plain import check, greater
from tests.tolerances import assert_close


@pytest.fixture(autouse=True)
def seed():
    set_random_seed(0)


N = 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal(x, epsilon=1e-3):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + epsilon)


def looped(step, states):
    """Return a plain loop over time of step(x, states, weights) -> (output, states), all states starting from zeros."""

    def plain(x, *weights):
        current, outputs = [np.zeros((len(x), N)) for _ in range(states)], []
        for t in range(x.shape[1]):
            y, current = step(x[:, t], current, weights)
            outputs.append(y)
        return [np.stack(outputs, 1)]

    return plain


def minimal_gated(x, states, weights):
    (h,), (w, u, b) = states, weights
    f = sigmoid(x @ w[:, :N] + h @ u[:, :N] + b[:N])
    new = (1 - f) * h + f * np.tanh(x @ w[:, N:] + (f * h) @ u[:, N:] + b[N:])
    return new, [new]


def independent(x, states, weights):
    (h,), (w, u, b) = states, weights
    new = np.tanh(x @ w + h * u + b)
    return new, [new]


def highway(x, states, weights):
    (s,), kernel = states, weights[0]
    for layer in range(2):
        u, b = weights[1 + 2 * layer : 3 + 2 * layer]
        z = s @ u + b + (x @ kernel if layer == 0 else 0)
        t = sigmoid(z[:, N:])
        s = np.tanh(z[:, :N]) * t + s * (1 - t)
    return s, [s]


def weighted_average(x, states, weights):
    """Without the running maximum: sums of u tanh(g) exp(a) and of exp(a)."""
    (h, numerator, denominator, unused), (w, r, b) = states, weights
    u, g, a = np.split(x @ w, 3, axis=-1)
    u, g, a = u + b[:N], g + h @ r[:, :N] + b[N:], a + h @ r[:, N:]
    numerator, denominator = numerator + u * np.tanh(g) * np.exp(a), denominator + np.exp(a)
    new = np.tanh(numerator / denominator)
    return new, [new, numerator, denominator, unused]


def peephole(x, states, weights):
    (h, c), (w, u, b, p) = states, weights
    i, f, g, o = np.split(x @ w + h @ u + b, 4, axis=-1)
    new_c = sigmoid(f + p[1] * c) * c + sigmoid(i + p[0] * c) * np.tanh(g)
    new_h = sigmoid(o + p[2] * new_c) * np.tanh(new_c)
    return new_h, [new_h, new_c]


def normalised_lstm(x, states, weights):
    (h, c), (w, u, b, gain_x, gain_h, gain_c, shift_c) = states, weights
    i, f, g, o = np.split(normal(x @ w) * gain_x + normal(h @ u) * gain_h + b, 4, axis=-1)
    new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    new_h = sigmoid(o) * np.tanh(normal(new_c) * gain_c + shift_c)
    return new_h, [new_h, new_c]


def normalised_gru(x, states, weights):
    (h,), (w, u, b, gain_x, gain_h) = states, weights
    m = 2 * N
    gates = normal((x @ w)[:, :m]) * gain_x[:m] + normal((h @ u)[:, :m]) * gain_h[:m] + b[:m]
    z, r = np.split(sigmoid(gates), 2, axis=-1)
    from_h = normal((h @ u)[:, m:]) * gain_h[m:]
    candidate = np.tanh(normal((x @ w)[:, m:]) * gain_x[m:] + b[m:] + r * from_h)
    new = z * h + (1 - z) * candidate
    return new, [new]


def basic_lstm(x, states, weights):
    (h, c), parts = states, [weights[3 * i : 3 * i + 3] for i in range(4)]
    i, f, g, o = (x @ w + b + h @ u for w, b, u in parts)
    new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    new_h = sigmoid(o) * np.tanh(new_c)
    return new_h, [new_h, new_c]


def basic_gru(x, states, weights):
    (h,), parts = states, [weights[3 * i : 3 * i + 3] for i in range(3)]
    z, r = (sigmoid(x @ w + b + h @ u) for w, b, u in parts[:2])
    w, b, u = parts[2]
    new = z * h + (1 - z) * np.tanh(x @ w + b + (r * h) @ u)
    return new, [new]


def basic_simple(x, states, weights):
    (h,), (w, b, u) = states, weights
    new = np.tanh(x @ w + b + h @ u)
    return new, [new]


def scalar_memory(x, states, weights):
    """sLSTM of one head, unstabilised: exponential gates as they are."""
    (h, c, n), (w, r, b) = states, weights
    i, f, g, o = np.split(x @ w + h @ r + b, 4, axis=-1)
    new_c, new_n = sigmoid(f) * c + np.exp(i) * np.tanh(g), sigmoid(f) * n + np.exp(i)
    new = sigmoid(o) * new_c / new_n
    return new, [new, new_c, new_n]


def scalar_memory_of_heads(x, states, weights):
    """sLSTM of N heads of one unit each, with an exponential forget gate: the recurrent kernel is a row."""
    (h, c, n), (w, r, b) = states, weights
    i, f, g, o = np.split(x @ w + np.tile(h, 4) * r[0] + b, 4, axis=-1)
    new_c, new_n = np.exp(f) * c + np.exp(i) * np.tanh(g), np.exp(f) * n + np.exp(i)
    new = sigmoid(o) * new_c / new_n
    return new, [new, new_c, new_n]


def matrix_memory(heads, forget):
    """mLSTM, unstabilised, head by head."""

    def step(x, states, weights):
        (memories, norms), (w, b, gate_w, gate_b) = states, weights
        q, k, v, o = np.split(x @ w + b, 4, axis=-1)
        i, f = np.split(x @ gate_w + gate_b, 2, axis=-1)
        size, outputs, new = N // heads, [], ([], [])
        for head in range(heads):
            cut = slice(head * size, (head + 1) * size)
            key = k[:, cut] / np.sqrt(size)
            kept, added = forget(f[:, head])[:, None], np.exp(i[:, head])[:, None]
            old = 0 if memories is None else memories[head]
            memory = kept[..., None] * old + added[..., None] * v[:, cut, None] * key[:, None, :]
            norm = kept * (0 if norms is None else norms[head]) + added * key
            inner = (norm * q[:, cut]).sum(-1, keepdims=True)
            inner = np.where(np.real(inner) < 0, -inner, inner)
            outputs.append((memory @ q[:, cut, None])[..., 0] / greater(inner, np.ones_like(inner)))
            new[0].append(memory)
            new[1].append(norm)
        return sigmoid(o) * np.concatenate(outputs, -1), list(new)

    def plain(x, *weights):
        current, outputs = [None, None], []
        for t in range(x.shape[1]):
            y, current = step(x[:, t], current, weights)
            outputs.append(y)
        return [np.stack(outputs, 1)]

    return plain


def minimal_gru(x, states, weights):
    (h,), (w, b) = states, weights
    z, candidate = np.split(x @ w + b, 2, axis=-1)
    new = (1 - sigmoid(z)) * h + sigmoid(z) * candidate
    return new, [new]


def minimal_lstm(x, states, weights):
    (h,), (w, b) = states, weights
    f, i, candidate = np.split(x @ w + b, 3, axis=-1)
    f, i = sigmoid(f), sigmoid(i)
    new = (f * h + i * candidate) / (f + i)
    return new, [new]


def wrapped_layer(x, states, weights):
    (h,), (w, b) = states, weights
    new = np.tanh(np.concatenate([x, h], -1) @ w + b)
    return new, [new]


def image_lstm(x, weights):
    """ConvLSTM over one spatial axis of 5 places, window 3, stride 2, channels 2: position by position."""
    w, u, b = weights
    h = c = np.zeros((len(x), 2, N))
    outputs = []
    for t in range(x.shape[1]):
        around = np.concatenate([np.zeros((len(x), 1, N)), h, np.zeros((len(x), 1, N))], 1)
        z = np.stack(
            [sum(x[:, t, 2 * p + k] @ w[k] + around[:, p + k] @ u[k] for k in range(3)) + b for p in range(2)],
            1,
        )
        i, f, g, o = np.split(z, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return [np.stack(outputs, 1)]


CELLS = {
    "sLSTM": (lambda: cells.SLSTMCell(N), scalar_memory, 3),
    "sLSTM of heads": (lambda: cells.SLSTMCell(N, heads=N, forget_gate="exp"), scalar_memory_of_heads, 3),
    "mLSTM": (lambda: cells.MLSTMCell(N), matrix_memory(1, sigmoid), None),
    "mLSTM of heads": (lambda: cells.MLSTMCell(N, heads=N, forget_gate="exp"), matrix_memory(N, np.exp), None),
    "minGRU": (lambda: cells.MinGRUCell(N), minimal_gru, 1),
    "minLSTM": (lambda: cells.MinLSTMCell(N), minimal_lstm, 1),
    "layer": (lambda: cells.LayerCell(Dense(N, activation="tanh"), N), wrapped_layer, 1),
    "minimal gated": (lambda: cells.MinimalGatedCell(N), minimal_gated, 1),
    "independent": (lambda: cells.IndRNNCell(N, activation="tanh"), independent, 1),
    "highway": (lambda: cells.RHNCell(N, 2), highway, 1),
    "weighted average": (lambda: cells.RWACell(N), weighted_average, 4),
    "peephole": (lambda: cells.PeepholeLSTMCell(N), peephole, 2),
    "normalised lstm": (lambda: cells.LayerNormLSTMCell(N), normalised_lstm, 2),
    "normalised gru": (lambda: cells.LayerNormGRUCell(N), normalised_gru, 1),
    "basic lstm": (lambda: basic.LSTMCell(N), basic_lstm, 2),
    "basic gru": (lambda: basic.GRUCell(N), basic_gru, 1),
    "basic simple": (lambda: basic.SimpleRNNCell(N), basic_simple, 1),
}


def layer_and_loop(name):
    make, step, states = CELLS[name]
    layer = make().get_layer(return_sequences=True)
    layer.build((2, 4, 2))
    rng = np.random.default_rng(2)
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.weights])
    return layer, step if states is None else looped(step, states)


@pytest.mark.parametrize("name", CELLS)
def test_cell_is_its_equations(name):
    layer, plain = layer_and_loop(name)
    check(layer, plain, x=np.random.default_rng(1).standard_normal((2, 4, 2)))


@pytest.mark.parametrize("name", CELLS)
def test_the_check_sees_a_changed_weight(name):
    layer, plain = layer_and_loop(name)

    def shifted(x, *weights):
        return plain(x, weights[0] + 0.1 * np.sin(np.arange(weights[0].size)).reshape(weights[0].shape), *weights[1:])

    with pytest.raises(AssertionError, match="relative error"):
        check(layer, shifted, x=np.random.default_rng(1).standard_normal((2, 4, 2)))


def test_the_vector_of_attention_is_a_column_to_initializers():
    shapes = []

    def orthogonal(shape):
        shapes.append(shape)
        return initializers.orthogonal(shape)

    cell = cells.AttentionDecoderCell(4, attention_units=9, kernel_initializer=orthogonal)
    cell.build((None, None, 5))
    (vector,) = (p.value for p in cell.parameters if p.name.endswith("attention_vector"))
    assert vector.shape == (9,)
    assert (9, 1) in shapes
    assert_close(np.linalg.norm(vector), 1.0)


@pytest.mark.parametrize(
    ("gate", "z_f", "z_i", "kept"),
    [
        ("sigmoid", -100.0, -100.0, 0.5),
        ("sigmoid", -101.0, -100.0, 1 / (1 + np.e)),  # the gates are exp(-101) and exp(-100), but for rounding
        ("hard_sigmoid", -3.0, -3.0, 0.5),
        ("hard_sigmoid", 0.0, -1.5, 2 / 3),
    ],
)
def test_gates_that_vanish_keep_their_ratio(gate, z_f, z_i, kept):
    layer = cells.MinLSTMCell(1, recurrent_activation=gate).get_layer(dtype="float32")
    layer.build((None, None, 1))
    layer.set_weights([np.array([[z_f, z_i, 1]]), np.zeros(3)])
    y, tape = layer.forward(np.ones((1, 3, 1)))
    np.testing.assert_allclose(y, [[1 - kept**3]], rtol=1e-5)
    gradients = layer.backward(tape, np.ones_like(y))
    assert all(np.isfinite(g).all() for g in (gradients.x, *gradients.weights))


def test_initial_memory_has_its_gradient_though_it_is_empty():
    layer, _ = layer_and_loop("sLSTM")
    zeros = [np.zeros((2, N)) for _ in range(4)]

    def plain(x, h, c, n, m, *weights):
        states, outputs = [h, c * np.exp(m), n * np.exp(m)], []
        for t in range(x.shape[1]):
            y, states = scalar_memory(x[:, t], states, weights)
            outputs.append(y)
        return [np.stack(outputs, 1)]

    x = np.random.default_rng(1).standard_normal((2, 4, 2))
    check(layer, plain, x=x, arguments={"initial_state": zeros}, leaves=zeros, read=lambda g: g.initial_state)


def image_layer():
    layer = cells.ConvLSTMCell(N, 3, strides=2).get_layer(return_sequences=True)
    layer.build((2, 3, 5, 2))
    rng = np.random.default_rng(2)
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.weights])
    return layer, rng.standard_normal((2, 3, 5, 2))


def test_convolutional_cell_is_its_equations():
    layer, x = image_layer()
    check(layer, lambda x, *weights: image_lstm(x, weights), x=x)


def test_the_check_sees_a_turned_window():
    layer, x = image_layer()
    with pytest.raises(AssertionError, match="relative error"):
        check(layer, lambda x, w, *weights: image_lstm(x, (w[::-1], *weights)), x=x)


@pytest.mark.parametrize("name", ["sLSTM", "sLSTM of heads", "mLSTM", "mLSTM of heads"])
def test_exponential_gates_are_stable(name):
    """Inputs that overflow exp: the output keeps to the limit, the gradients are finite."""
    layer, _ = layer_and_loop(name)
    for scale in (3e3, -3e3):
        y, tape = layer.forward(scale * np.random.default_rng(1).standard_normal((2, 4, 2)))
        gradients = layer.backward(tape, np.ones_like(y))
        assert np.isfinite(y).all()
        assert all(np.isfinite(g).all() for g in (gradients.x, *gradients.weights))


def test_attention_decoder_weighs_the_valid_places():
    cell = cells.AttentionDecoderCell(N, attention_units=2)
    layer = cell.get_layer(decode=True, output_length=3)
    layer.build((2, 5, 2))
    rng = np.random.default_rng(2)
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.weights])
    lengths = np.array([5, 2])

    def plain(x, kernel, recurrent, bias, vector, w, u, b):
        h, outputs = np.zeros((2, N)), []
        for _ in range(3):
            scores = np.tanh(x @ kernel + (h @ recurrent)[:, None] + bias) @ vector
            context = []
            for row, n in enumerate(lengths):
                e = np.exp(scores[row, :n])
                context.append((e / e.sum()) @ x[row, :n])
            from_x, from_h = np.stack(context) @ w + b[0], h @ u + b[1]
            z, r = np.split(sigmoid(from_x[:, : 2 * N] + from_h[:, : 2 * N]), 2, axis=-1)
            h = z * h + (1 - z) * np.tanh(from_x[:, 2 * N :] + r * from_h[:, 2 * N :])
            outputs.append(h)
        return [np.stack(outputs, 1)]

    x = rng.standard_normal((2, 5, 2))
    check(layer, plain, x=x, arguments={"lengths": lengths})
    with pytest.raises(AssertionError, match="relative error"):
        check(layer, plain, x=x)
    nothing = layer(rng.standard_normal((2, 5, 2)), lengths=[0, 0])
    assert np.isfinite(nothing).all()


def test_weighted_average_is_stable():
    layer, _ = layer_and_loop("weighted average")
    y, tape = layer.forward(1e4 * np.random.default_rng(1).standard_normal((2, 4, 2)))
    gradients = layer.backward(tape, np.ones_like(y))
    assert np.isfinite(y).all()
    assert all(np.isfinite(g).all() for g in (gradients.x, *gradients.weights))


@pytest.mark.parametrize("cell", [cells.SimpleRNNCell, cells.GRUCell, cells.LSTMCell])
def test_full_cells_take_keras_options(cell):
    layer = cell(output_dim=4, input_dim=2, dropout=0.5, recurrent_dropout=0.5).get_layer(return_sequences=True, seed=0)
    x = np.random.default_rng(0).standard_normal((2, 3, 2))
    assert layer(x).shape == (2, 3, 4)
    assert sorted(per for per, _ in layer.noise_shapes) == ["sequence", "sequence"]
    assert np.abs(layer(x, training=True) - layer(x)).max() > 1e-3
    ones = [np.ones((2, shape[-1])) for _, shape in layer.noise_shapes]
    assert_close(layer(x, dropout_masks=ones), layer(x))
    with pytest.raises(ValueError, match="input_dim=9"):
        cell(4, input_dim=9).get_layer()(x)
