"""Plain calls on PyTorch go straight to the engine and answer the same; all others go through Keras."""

import copy
import functools

import keras
import numpy as np
import pytest
import torch

import keras_bridge as kb
from keras_bridge import engines
from keras_bridge.loop import RecurrentLayer
from tests.tolerances import assert_close

X = torch.tensor(np.random.default_rng(0).standard_normal((3, 5, 4)).astype("float32"))


@pytest.fixture
def long_way(monkeypatch):
    """The layers that were called the long way, in order."""
    found, original = [], RecurrentLayer.call

    @functools.wraps(original)
    def call(self, *args, **kwargs):
        found.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(RecurrentLayer, "call", call)
    return found


def layer_of(engine="reference", **options):
    keras.utils.set_random_seed(1)
    layer = kb.LSTMCell(6).get_layer(engine=engine, **options)
    layer.build(tuple(X.shape))
    return layer


FORMS = [{}, {"return_sequences": True}, {"return_state": True}, {"return_sequences": True, "return_state": True}]


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_answers_and_gradients(long_way, form, engine):
    layer, judge = layer_of(engine, **form), layer_of("keras", **form)
    layer(X)
    layer.set_weights([w + 0.1 for w in layer.get_weights()])
    judge.set_weights(layer.get_weights())
    found = []
    for own in (layer, judge):
        x = X.clone().requires_grad_()
        answers = own(x)
        answers = answers if isinstance(answers, tuple) else (answers,)
        loss = sum((y * torch.cos(y + 1)).sum() for y in answers)
        found.append([*answers, *torch.autograd.grad(loss, [x, *(v.value for v in own.trainable_variables)])])
    assert long_way == [layer, judge]  # the layer's second call was direct
    for one, other in zip(*found, strict=True):
        assert_close(one.detach().numpy(), other.detach().numpy(), "float32")


def test_inside_a_model_and_without_gradients(long_way):
    inputs = keras.Input((5, 4))
    layer = layer_of()
    model = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    first = model(X)
    count = len(long_way)
    with torch.no_grad():
        assert_close(model(X).numpy(), first.detach().numpy(), "float32")
    assert len(long_way) == count
    assert model(X).requires_grad


def test_a_readout_starts_from_zeros(long_way):
    keras.utils.set_random_seed(1)
    rnn = kb.RecurrentSequential([kb.GRUCell(4)], readout="add", return_sequences=True, engine="reference")
    rnn.build(tuple(X.shape))
    first = rnn(X)
    assert_close(rnn(X).detach().numpy(), first.detach().numpy(), "float32")
    assert len(long_way) == 1


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_outputs_that_are_no_floats_keep_their_dtype(long_way, engine):
    x, h = keras.Input((4,)), keras.Input((4,))
    new = keras.ops.tanh(x + h)
    outputs = [keras.ops.argmax(new, -1), new > 0]
    layer = kb.RecurrentModel(x, outputs, h, new, engine=engine, return_sequences=True)
    layer.build(tuple(X.shape))
    for _ in range(2):
        places, signs = layer(X)
        assert (places.dtype, signs.dtype) == (torch.int32, torch.bool)
    assert long_way == [layer]


def test_gradients_after_a_first_call_in_inference_mode(long_way):
    layer = layer_of()
    with torch.inference_mode():
        first = layer(X)
    answer = layer(X)
    answer.sum().backward()
    assert_close(answer.detach().numpy(), first.numpy(), "float32")
    assert all(v.value.grad is not None for v in layer.trainable_variables)
    assert long_way == [layer]


def test_a_state_that_is_handed_on_may_be_changed_in_place(long_way):
    x, h, kept = (keras.Input((4,)) for _ in range(3))
    new = keras.ops.tanh(x + h + kept)
    layer = kb.RecurrentModel(x, new, [h, kept], [new, kept], engine="reference", return_state=True)
    layer.build(tuple(X.shape))
    first, *_ = layer(X)
    for _ in range(2):
        answer, _, state = layer(X)
        assert torch.equal(answer, first)
        state += 5
    assert long_way == [layer]


CHANGES = {
    "mask": lambda layer: layer(X, mask=torch.tensor([[True, False, True, True, False]] * 3)),
    "state": lambda layer: layer(X, initial_state=[torch.ones(3, 6)] * 2),
    "array": lambda layer: layer(X.numpy()),
    "double": lambda layer: layer(X.double()),
    "longer": lambda layer: layer(torch.cat([X, X], 1)),
    "none": lambda layer: layer(X[:0]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_plain(long_way, change):
    layer, fresh = layer_of(return_sequences=True), layer_of(return_sequences=True)
    layer(X)
    found, expected = CHANGES[change](layer), CHANGES[change](fresh)
    assert long_way == [layer, layer, fresh]
    assert_close(found.detach().numpy(), expected.detach().numpy(), "float32")


def test_a_mask_that_hangs_on_the_tensor(long_way):
    masked = keras.layers.Masking()(torch.cat([X, torch.zeros(3, 2, 4)], 1))
    layer = layer_of()
    for _ in range(2):
        assert_close(layer(masked).detach().numpy(), layer(X).detach().numpy(), "float32")
    assert long_way == [layer] * 3


OPTIONS = {
    "stateful": {"stateful": True},
    "go_backwards": {"go_backwards": True},
    "learned": {"state_initializer": "learned"},
    "ones": {"state_initializer": "ones"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_layers_that_do_more(long_way, name):
    layer = layer_of(**OPTIONS[name])
    layer(X)
    layer(X)
    assert long_way == [layer, layer]


def test_dropout_is_drawn_in_training_only(long_way):
    layer = kb.LSTMCell(6, dropout=0.5).get_layer(engine="reference", seed=1)
    layer.build(tuple(X.shape))
    plain = layer(X)
    assert torch.equal(layer(X), plain)
    one, two = layer(X, training=True), layer(X, training=True)
    assert not torch.equal(one, two)
    assert len(long_way) == 3


def test_training_comes_from_the_layer_around():
    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = kb.LSTMCell(6).get_layer(engine="reference")
            self.drop = keras.layers.Dropout(0.5, seed=1)

        def call(self, x):
            return self.drop(self.inner(x))

    outer = Outer()
    for _ in range(2):
        assert torch.equal(outer(X), outer.inner(X))
        assert not torch.equal(outer(X, training=True), outer.inner(X))


def test_a_layer_that_is_called_in_its_own_way():
    class Doubled(kb.RecurrentSequential):
        @functools.wraps(RecurrentLayer.call)
        def call(self, *args, **kwargs):
            return 2 * super().call(*args, **kwargs)

    keras.utils.set_random_seed(1)
    doubled = Doubled([kb.LSTMCell(6)], engine="reference")
    first = doubled(X)
    assert torch.equal(doubled(X), first)
    plain = layer_of()
    plain.set_weights(doubled.get_weights())
    assert_close(first.detach().numpy(), 2 * plain(X).detach().numpy(), "float32")


def test_options_changed_later():
    layer = layer_of()
    last = layer(X)
    layer(X)
    layer.return_sequences = True
    assert torch.equal(layer(X)[:, -1], last)
    layer.return_sequences = False
    assert torch.equal(layer(X), last)


def test_what_is_set_on_a_layer_later():
    layer = layer_of()
    plain = layer(X)
    assert torch.equal(layer(X), plain)
    layer.activity_regularizer = keras.regularizers.L2(0.5)
    layer(X)
    assert len(layer.losses) == 1
    layer.activity_regularizer = None
    layer.dtype_policy = "bfloat16"
    assert layer(X).dtype == torch.bfloat16
    layer.dtype_policy = "float32"
    own = layer.call
    layer.call = lambda *arguments, **options: own(*arguments, **options) * 0
    assert not layer(X).any()
    del layer.call
    assert torch.equal(layer(X), plain)


def test_hooks_of_a_module():
    layer, seen = layer_of(), []
    plain = layer(X)
    layer(X)
    zeroed = layer.register_forward_pre_hook(lambda _, arguments: (arguments[0] * 0,))
    after = layer.register_forward_hook(lambda *_: seen.append("own"))
    everywhere = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: seen.append("any") if module is layer else None
    )
    for _ in range(2):
        assert_close(layer(X).detach().numpy(), layer_of()(0 * X).detach().numpy(), "float32")
    assert seen == ["any", "own"] * 2
    zeroed.remove()
    after.remove()
    layer(X)
    assert seen == ["any", "own"] * 2 + ["any"]
    everywhere.remove()
    back = layer.register_full_backward_hook(lambda *_: seen.append("back"))
    layer(X).sum().backward()
    assert seen[-1] == "back"
    back.remove()
    assert torch.equal(layer(X), plain)


def test_copies_have_weights_of_their_own():
    layer = layer_of()
    before = layer(X)
    other = copy.deepcopy(layer)
    other.set_weights([w + 1 for w in other.get_weights()])
    assert torch.equal(layer(X), before)
    assert not torch.equal(other(X), before)


def test_stateless_calls_use_the_weights_they_are_given():
    layer = layer_of()
    before = layer(X)
    changed = [v.value.detach() + 1 for v in layer.trainable_variables]
    answer, _ = layer.stateless_call(changed, [v.value for v in layer.non_trainable_variables], X)
    assert not torch.equal(answer, before)
    assert torch.equal(layer(X), before)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_nothing_is_copied(monkeypatch, engine):
    layer = layer_of(engine, return_sequences=True)
    traced = engines.module_of(engine).prepare(layer.recurrence, False)
    seen, original = [], traced.engine.forward

    def forward(sequences, constants, states, parameters, **options):
        found = original(sequences, constants, states, parameters, **options)
        seen.append([a.__array_interface__["data"][0] for a in (*sequences, *parameters, *found[0])])
        return found

    monkeypatch.setattr(traced.engine, "forward", forward)
    weights = [v.value.data_ptr() for v in traced.variables]
    for _ in range(2):  # the long way, and directly
        y = layer(X)
        assert seen[-1] == [X.data_ptr(), *weights, y.data_ptr()]


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_final_state_may_be_changed_in_place(engine):
    """As at the end of an episode: what backward reads is not the caller's."""
    layer = layer_of(engine, return_state=True)
    gradients = []
    for change in (False, True):
        x = X.clone().requires_grad_()
        y, *states = layer(x)
        if change:
            for state in states:
                state.data.zero_()
        (y * torch.cos(torch.arange(6.0))).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_compiled_around():
    """torch.compile leaves our engines as they are: what Python does around them is nothing to look into."""
    inputs = keras.Input(X.shape[1:])
    model = keras.Model(inputs, keras.layers.Dense(1)(layer_of("fast")(inputs)))
    weights, places = [v.value for v in model.trainable_variables], []

    def backend(graph, _):
        places.extend(node.stack_trace for node in graph.graph.nodes if node.stack_trace)
        return graph.forward

    def step():
        y = model(X, training=True)
        y.sum().backward()
        return y

    found = []
    for run in (torch.compile(step, backend=backend), step):  # the first call also traces the step
        y = run()
        found.append([y, *(weight.grad for weight in weights)])
        model.zero_grad()
    for one, other in zip(*found, strict=True):
        assert_close(one.detach().numpy(), other.detach().numpy(), "float32")
    assert places
    assert not any("engine.py" in place for place in places)
