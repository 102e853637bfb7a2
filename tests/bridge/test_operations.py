"""Every operation that the tracer knows has Keras's values and gradients; one that it does not know is named."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.ops.nn import DotProductAttention

from keras_bridge.emission import evaluate
from keras_bridge.reference_engine import prepare
from keras_bridge.rules import RULES, kind_of
from keras_bridge.step import KerasRecurrence
from keras_bridge.trace import trace
from keras_bridge.trace_error import TraceError
from rsref import ops as rsref_ops
from rsref.tensor import Input
from tests.bridge.autodiff import BACKEND, KERAS_KIND, function_and_gradients
from tests.bridge.operation_cases import CASES, FAULTS, POSITIVE, SINGLE
from tests.bridge.operation_inputs import image
from tests.covering import examples
from tests.tolerances import assert_close

pytestmark = pytest.mark.usefixtures("float64")
EVERY_CASE = [
    (name, i) for name, cases in CASES.items() for i in range(len(cases)) if (name, i) not in FAULTS.get(BACKEND, ())
]
ELSEWHERE = dict.fromkeys([*dict(reversed(EVERY_CASE)).items(), *sorted(FAULTS["tensorflow"])])
HERE = examples(EVERY_CASE, EVERY_CASE if BACKEND == "tensorflow" else [*ELSEWHERE])
"""All where Keras computes in float64, elsewhere the first of each operation, and what TensorFlow gets wrong."""


def test_every_operation_has_a_case():
    assert sorted(CASES) == sorted(RULES)


def sample(name):
    x = np.random.default_rng(5).uniform(0.15, 1.9, (2, 4, 6))
    signs = np.random.default_rng(6).choice([-1.0, 1.0], x.shape)
    return list(x if name in POSITIVE else x * signs)


def drawn(case):
    x, y = keras.Input((6,)), keras.Input((6,))
    return keras.Model([x, y], keras.tree.flatten(case(x, y)))


def operations_of(model):
    """Return the names of the operations of a model, those inside its layers too."""
    names = set()
    for operation in model._operations:
        names.add(type(operation).__name__)
        if isinstance(operation, keras.layers.Layer) and not isinstance(operation, keras.layers.InputLayer):
            node = operation._inbound_nodes[0]
            inner = keras.tree.map_structure(
                lambda t: keras.KerasTensor(t.shape, t.dtype) if isinstance(t, keras.KerasTensor) else t,
                node.arguments.args,
            )
            fresh = [t for t in keras.tree.flatten(inner) if isinstance(t, keras.KerasTensor)]
            names |= {type(o).__name__ for o in keras.Function(fresh, operation.call(*inner))._operations}
    return names


def is_float(array):
    return np.asarray(array).dtype.kind == "f"


def factor(shape):
    """Fixed numbers by which answers are weighed in the loss, so that no gradient is like another."""
    return np.cos(np.arange(np.prod(shape, dtype=int))).reshape(shape)


def of_keras(model, arrays):
    """Return the step's values and the gradients of their weighted sum by its inputs, by the backend's autodiff."""

    def answers(*inputs):
        return keras.tree.flatten(model(list(inputs), training=False))

    def loss(values):
        floats = [v for v in values if "float" in keras.backend.standardize_dtype(v.dtype)]
        return sum(ops.sum(ops.cast(factor(tuple(v.shape)), v.dtype) * v) for v in floats)

    return function_and_gradients(answers, loss, arrays)


def of_rsref(model, arrays):
    """The same by rsref: one timestep."""
    counts = {"sequences": len(arrays), "constants": 0, "states": 0, "outputs": len(model.outputs)}
    recurrence = prepare(KerasRecurrence(model, **counts))
    weights = [np.asarray(ops.convert_to_numpy(v.value), np.float64) for v in recurrence.variables]
    given = [*(a[:, None] for a in arrays), *weights]
    answers, ticket = recurrence.forward(given, 1, True)
    weighed = [factor((len(v), *v.shape[2:]))[:, None] if is_float(v) else np.zeros(v.shape) for v in answers]
    gradients = recurrence.backward(given, weighed, 1, ticket)[: len(arrays)]
    return [v[:, 0] for v in answers], [g[:, 0] for g in gradients]


@pytest.mark.parametrize(("name", "i"), HERE, ids=[f"{name}-{i}" for name, i in HERE])
def test_values_and_gradients(name, i):
    model = drawn(CASES[name][i])
    assert name in operations_of(model)
    rng = np.random.default_rng(7)
    model.set_weights([rng.uniform(0.2, 1.0, w.shape) for w in model.get_weights()])
    arrays = sample(name)
    values, gradients = of_keras(model, arrays)
    found, found_gradients = of_rsref(model, arrays)
    for one, other in zip([*found, *found_gradients], [*values, *gradients], strict=True):
        assert kind_of(one.dtype) == kind_of(other.dtype)
        assert_close(one.astype(float), other.astype(float), "float32" if name in SINGLE else KERAS_KIND)


WITH_TUPLES = ("GetItem", "Pad", "Split", "Sum", "Tensordot", "Tile", "Transpose")


@pytest.mark.parametrize(("name", "i"), [(name, i) for name, i in HERE if name in WITH_TUPLES])
def test_a_saved_step_is_traced_like_the_drawn_one(name, i):
    """Where tuples are lists, which JSON has instead."""
    model = drawn(CASES[name][i])
    plain = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    again = keras.saving.deserialize_keras_object(plain)
    for one, other in zip(*(of_rsref(step, sample(name))[0] for step in (again, model)), strict=True):
        np.testing.assert_array_equal(one, other)


UNKNOWN = {
    "Quantile.*lengths": lambda x: ops.quantile(x, 0.3),
    'Quantile.*method "lower"': lambda x: ops.quantile(x, 0.3, axis=1, method="lower"),
    "Quantile.*q is known": lambda x: ops.quantile(x, ops.mean(x), axis=1),
    "Sort.*up to 1024 .* got 2000": lambda x: ops.sort(x @ np.ones((6, 2000))),
    "Pad.*reflect": lambda x: ops.pad(x, ((0, 0), (1, 1)), mode="reflect"),
    "Round.*decimals": lambda x: ops.round(x, 1),
    "Power.*exponent": lambda x: ops.cast(x, "int32") ** ops.cast(x, "int32"),
    "Where": lambda x: ops.where(x > 0)[0],
    "cast.*complex64": lambda x: ops.absolute(ops.cast(x, "complex64")),
    "cast.*float8_e5m2": lambda x: ops.cast(x, "float8_e5m2"),
    "Repeat": lambda x: ops.repeat(x, 2),
    "Conv.*channels_first": lambda x: ops.conv(image(x), np.ones((2, 2, 6, 3)), data_format="channels_first"),
    "MaxPool.*channels_first": lambda x: ops.max_pool(image(x), 2, data_format="channels_first"),
    "Norm.*order 2": lambda x: ops.norm(ops.reshape(x, (-1, 2, 3)), ord=2, axis=(1, 2)),
    "Roll.*length": lambda x: ops.roll(x, 1, axis=0),
    "Diag.*lengths": lambda x: ops.diag(x[:, 0]),
    "Attention.*soft_cap": lambda x: DotProductAttention(attn_logits_soft_cap=1.0)(
        *[ops.reshape(x, (-1, 3, 1, 2))] * 3
    ),
    "Cross.*3 numbers; got 2": lambda x: ops.cross(x[:, :2], x[:, 2:4], axis=-1),
    "TakeAlongAxis.*lengths": lambda x: ops.take_along_axis(x, ops.argmax(x, axis=-1, keepdims=True), axis=0),
    "SliceUpdate.*3 values from place 4 .*length 6": lambda x: ops.slice_update(x, (0, 4), x[:, :3]),
    "SliceUpdate.*computed": lambda x: ops.slice_update(x, (0, ops.argmax(x[0])), x[:, :3]),
    "Slice.*from 1 of -1 .*length None": lambda x: ops.slice(x, (1, 0), (-1, 3)),
    "Cumprod.*unknown length": lambda x: ops.cumprod(x, axis=0),
    "TopK.*no 9 greatest of 6": lambda x: ops.top_k(x, 9)[0],
    "TopK.*lengths": lambda x: ops.top_k(ops.transpose(x), 2)[0],
    "LayerNorm.*rms_scaling": lambda x: ops.layer_normalization(x, rms_scaling=True),
}


@pytest.mark.parametrize("words", UNKNOWN)
def test_what_has_no_counterpart_is_named(words):
    x = keras.Input((6,))
    with pytest.raises(TraceError, match=words):
        trace(keras.Model(x, UNKNOWN[words](x)))


def defaults(function):
    """Return the default of every parameter that has one."""
    parameters = inspect.signature(function).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


SAME_BY_MEANING = {"dtype", "constant_values"}  # "float" and 0, for which Keras writes None


def test_functions_of_the_same_name_have_the_same_defaults():
    for name in [name for name in rsref_ops.__all__ if hasattr(ops, name)]:
        own, theirs = defaults(getattr(rsref_ops, name)), defaults(getattr(ops, name))
        shared = own.keys() & theirs.keys() - SAME_BY_MEANING
        assert {k: own[k] for k in shared} == {k: theirs[k] for k in shared}, name


def test_sparsemax_of_places_that_are_left_out_or_no_numbers():
    leaf = Input((3,))
    rows = [[1.0, 1.0, -np.inf], [1.0, np.nan, 2.0], [1.0, np.inf, 2.0], [-np.inf] * 3, [1e20, 1.0, 2.0]]
    scores = ops.convert_to_tensor(np.array(rows, "float32"))
    (y,) = evaluate([rsref_ops.sparsemax(leaf)], {leaf: scores}, "float32")
    expected = [[0.5, 0.5, 0.0], *[[np.nan] * 3] * 3, [1.0, 0.0, 0.0]]
    np.testing.assert_array_equal(ops.convert_to_numpy(y), expected)


def test_the_order_of_equal_numbers_and_of_what_is_none():
    """As NumPy's; TensorFlow has another one."""
    x = keras.Input((7,))
    rows = np.array([[1.0, np.nan, -np.inf, 1.0, np.inf, np.nan, 0.5], [2.0, -0.0, 2.0, 0.0, 2.0, 3.0, -np.inf]])
    answers = [ops.sort(x), ops.argsort(x), *ops.top_k(x, 4)]
    (ascending, places, top, top_places), _ = of_rsref(keras.Model(x, answers), [rows])
    np.testing.assert_array_equal(ascending, np.sort(rows))
    np.testing.assert_array_equal(places, np.argsort(rows, kind="stable"))
    np.testing.assert_array_equal(top, np.sort(rows)[:, :-5:-1])
    np.testing.assert_array_equal(top_places, [[1, 5, 4, 0], [5, 0, 2, 4]])


def test_places_along_an_axis_that_are_out_of_range():
    x = keras.Input((6,))
    model = keras.Model(x, ops.take_along_axis(x, ops.cast(x, "int32"), axis=-1))
    with pytest.raises(IndexError, match="6"):
        of_rsref(model, [np.full((2, 6), 6.0)])


def test_the_check_sees_a_wrong_rule(monkeypatch):
    monkeypatch.setitem(RULES, "Maximum", RULES["Minimum"])
    with pytest.raises(AssertionError, match="relative error"):
        test_values_and_gradients("Maximum", 0)
