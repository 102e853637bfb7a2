"""The RNN, GRU and LSTM node tests that the onnx package ships, peepholes included, run by rsref's cells."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from rsref import cells
from tests.tolerances import assert_close

ORDERS = {"RNN": [0], "GRU": [0, 1, 2], "LSTM": [0, 2, 3, 1]}  # ONNX's gates: iofc for the LSTM, zrh for the GRU
NAMES = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


def onnx_cases():
    cases = [case for case in collect_testcases(None) if case.model.graph.node[0].op_type in ORDERS]
    return {case.name: case for case in cases}


CASES = onnx_cases()


def arrays_of(case):
    """Return the node, its named inputs and its expected outputs as arrays."""
    node = case.model.graph.node[0]
    inputs, outputs = case.data_sets[0]
    inputs, outputs = ([_array(v) for v in values] for values in (inputs, outputs))
    present = iter(inputs)
    named = {role: next(present) for role, name in zip(NAMES, node.input) if name}
    expected = iter(outputs)
    results = [next(expected) if name else None for name in node.output]
    return node, named, results


def _array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def our_outputs(node, inputs):
    """Return Y (time, directions, batch, units) and the final states of an ONNX node, by rsref."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    x = inputs["X"] if attributes.get("layout", 0) == 1 else inputs["X"].transpose(1, 0, 2)
    directions, units = inputs["W"].shape[0], attributes["hidden_size"]
    direction = attributes.get("direction", b"forward").decode()
    ys, finals = [], []
    for d in range(directions):
        reverse = direction == "reverse" or d == 1
        layer = layer_for(node.op_type, inputs, d, units, attributes, x.shape, reverse)
        starts = [inputs[role] for role in ("initial_h", "initial_c") if role in inputs]
        starts = [s[:, d] if attributes.get("layout", 0) == 1 else s[d] for s in starts]
        y, *states = layer.forward(x, initial_state=starts or None)[0]
        ys.append(y[:, ::-1] if reverse else y)
        finals.append(states)
    y = np.stack(ys).transpose(2, 0, 1, 3)
    return y, [np.stack(states) for states in zip(*finals)]


def layer_for(kind, inputs, d, units, attributes, shape, reverse):
    order = ORDERS[kind]
    gates = len(order)

    def columns(matrix):
        return matrix.reshape(gates, units, -1)[order].reshape(gates * units, -1).T

    bias = inputs["B"][d] if "B" in inputs else np.zeros(2 * gates * units)
    parts = [columns(part)[0] for part in np.split(bias, 2)]
    weights = [columns(inputs["W"][d]), columns(inputs["R"][d])]
    if kind == "LSTM":
        cell = cells.PeepholeLSTMCell(units)
        peephole = inputs["P"][d].reshape(3, units)[[0, 2, 1]] if "P" in inputs else np.zeros((3, units))
        weights += [sum(parts), peephole]
    elif kind == "GRU":
        after = bool(attributes.get("linear_before_reset", 0))
        cell = cells.GRUCell(units, reset_after=after)
        weights.append(np.stack(parts) if after else sum(parts))
    else:
        cell = cells.SimpleRNNCell(units)
        weights.append(sum(parts))
    layer = cell.get_layer(return_sequences=True, return_state=True, go_backwards=reverse)
    layer.build(shape)
    layer.set_weights(weights)
    return layer


def check(case, change=lambda inputs: None):
    node, inputs, expected = arrays_of(case)
    assert "sequence_lens" not in inputs or (inputs["sequence_lens"] == inputs["X"].shape[0]).all()
    change(inputs)
    y, finals = our_outputs(node, inputs)
    layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
    if layout == 1:
        y, finals = y.transpose(2, 0, 1, 3), [s.transpose(1, 0, 2) for s in finals]
    for found, wanted in zip([y, *finals], expected):
        if wanted is not None:
            assert_close(found, wanted, "float32")


def test_all_kinds_are_there():
    kinds = {case.model.graph.node[0].op_type for case in CASES.values()}
    assert kinds == set(ORDERS)
    assert len(CASES) >= 9
    assert any("peephole" in name for name in CASES)


@pytest.mark.parametrize("name", CASES)
def test_node(name):
    check(CASES[name])


@pytest.mark.parametrize("name", [name for name in CASES if "peephole" in name or "initial_bias" in name])
def test_the_check_sees_a_changed_weight(name):
    def shift(inputs):
        inputs["W"] = inputs["W"] + 0.1 * np.arange(inputs["W"].shape[1])[:, None]

    with pytest.raises(AssertionError, match="relative error"):
        check(CASES[name], shift)
