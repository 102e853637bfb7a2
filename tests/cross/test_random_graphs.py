"""Random recurrences of rsref, said with Keras's ops, traced back, and run on every engine of the backend at hand."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from keras import ops

from keras_bridge import engines
from keras_bridge.graph_layer import GraphLayer
from keras_bridge.step import KerasRecurrence
from rsref.engine import ReferenceEngine
from rsref.graph import Model
from rsref.testing import step_graphs
from tests.bridge.autodiff import PLACE, function_and_gradients
from tests.covering import examples
from tests.cross.compared import ENGINES, factor, largest_error, precision, tolerance

MANY = settings(max_examples=examples(100, 8), suppress_health_check=list(HealthCheck))


class Opened(keras.layers.Layer):
    """A layer that hides a GraphLayer from the tracer's rule, so that every op is traced back from Keras's own."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.own = list(inner.variables_of_parameters)
        self.built = True

    def call(self, inputs):
        self.inner.variables_of_parameters, kept = self.own, self.inner.variables_of_parameters
        try:
            return self.inner.call(inputs)
        finally:
            self.inner.variables_of_parameters = kept


def keras_recurrence(recurrence):
    """Return a recurrence of rsref as one of Keras, whose step is one layer."""
    graph = recurrence.graph
    leaves = [*graph.sequences, *graph.constants, *graph.states]
    layer = GraphLayer(Model(leaves, [*graph.outputs, *graph.new_states]))
    dtypes = {"float": None, "int": "int32", "bool": "bool"}
    inputs = [keras.Input(batch_shape=leaf.shape, dtype=dtypes[leaf.dtype]) for leaf in leaves]
    model = keras.Model(inputs, Opened(layer)(inputs))
    counts = len(graph.sequences), len(graph.constants), len(graph.states), len(graph.outputs)
    return KerasRecurrence(model, *counts, recurrence.zero_output_for_mask, recurrence.truncate), layer


def narrow(array):
    return array.astype("int32") if array.dtype.kind == "i" else array


def run_keras(engine, example):
    """Return answers and the gradients of their weighed sum by the floating leaves."""
    recurrence, layer = keras_recurrence(example.recurrence)
    arguments, graph = example.arguments, example.recurrence.graph
    for variable, value in zip(layer.variables_of_parameters, arguments.parameters, strict=True):
        variable.assign(value)
    leaves = [narrow(a) for a in (*arguments.sequences, *arguments.constants, *arguments.states)]
    moving = [i for i, leaf in enumerate(leaves) if leaf.dtype.kind == "f"]
    ends = np.cumsum([len(graph.sequences), len(graph.constants), len(graph.states)])
    kinds = {"float": "float64", "int": "int32", "bool": "bool"}

    def answers(*values):
        full = [ops.convert_to_tensor(leaf) for leaf in leaves]
        for i, value in zip(moving, values):
            full[i] = value
        sequences, constants, states = full[: ends[0]], full[ends[0] : ends[1]], full[ends[1] :]
        known = expected_shapes(example)
        specs = [((*k[:1], *k[2:]), kinds[y.dtype]) for k, y in zip(known, graph.outputs, strict=True)]
        mask = None if arguments.mask is None else ops.convert_to_tensor(arguments.mask)
        outputs, final = engines.module_of(engine).run(
            recurrence,
            sequences,
            constants,
            states,
            specs,
            mask,
            arguments.length,
            return_sequences=True,
            training=False,
        )
        return [*outputs, *final]

    def loss(values):
        floats = [v for v in values if "float" in keras.backend.standardize_dtype(v.dtype)]
        return sum(ops.sum(ops.cast(factor(tuple(v.shape)), v.dtype) * v) for v in floats)

    return function_and_gradients(answers, loss, [leaves[i] for i in moving])


def expected_shapes(example):
    outputs, _, _ = example.arguments.forward(ReferenceEngine(example.recurrence))
    return [y.shape for y in outputs]


def run_rsref(example):
    engine = ReferenceEngine(example.recurrence)
    outputs, states, tape = example.arguments.forward(engine)
    weighed = [factor(v.shape) if v.dtype.kind == "f" else None for v in (*outputs, *states)]
    found = engine.backward(tape, weighed[: len(outputs)], weighed[len(outputs) :])
    gradients = [*found.sequences, *found.constants, *found.states]
    leaves = [*example.arguments.sequences, *example.arguments.constants, *example.arguments.states]
    moving = [np.zeros(a.shape) if g is None else g for g, a in zip(gradients, leaves) if a.dtype.kind == "f"]
    return [*outputs, *states], moving


def pairs(engine, example):
    with precision("float64"):
        found, found_gradients = run_keras(engine, example)
    answers, gradients = run_rsref(example)
    right = [*answers, *gradients]
    numbers = [np.asarray(a, np.float64) for a in (*found, *found_gradients)]
    return [(str(i), a, np.asarray(b, np.float64)) for i, (a, b) in enumerate(zip(numbers, right, strict=True))]


@pytest.mark.parametrize("engine", ENGINES)
def test_random_recurrences(engine):
    @seed(PLACE)  # other graphs on each backend
    @MANY
    @given(example=step_graphs(max_ops=6))
    def check(example):
        error = largest_error(pairs(engine, example), least=1.0)
        assert error < tolerance(engine, "float64"), f"{error:.1e}"

    check()
