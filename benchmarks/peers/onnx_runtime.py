"""ONNX Runtime's LSTM and GRU nodes."""

from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.peers import THREADS, Run
from benchmarks.problems import Array, Problem

ORDER = {"LSTM": [0, 3, 1, 2], "GRU": [0, 1, 2]}
"""ONNX's gates, in rsref's order."""

FLOAT = onnx.TensorProto.FLOAT


def session_of(problem: Problem, with_state: bool) -> Any:
    case = problem.case
    order = ORDER[case.stock]

    def gates(matrix: Array) -> Array:
        parts = np.split(matrix, len(order), -1)
        return np.concatenate([parts[i] for i in order], -1)

    def info(name: str, shape: list[int]) -> Any:
        return onnx.helper.make_tensor_value_info(name, FLOAT, shape)

    nodes, fixed, source = [], [], "X"
    for i in range(case.layers):
        kernel, recurrent, bias = (gates(w) for w in problem.weights[3 * i : 3 * i + 3])
        biases = bias.reshape(-1) if bias.ndim == 2 else np.concatenate([bias, 0 * bias])
        for name, value in ((f"W{i}", kernel.T), (f"R{i}", recurrent.T), (f"B{i}", biases)):
            fixed.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value[None]), name))
        options = {"linear_before_reset": 1} if case.stock == "GRU" else {}
        inputs = [source, f"W{i}", f"R{i}", f"B{i}", *(["", "H0", "C0"] if with_state else [])]
        outputs = ["", "H", "C"] if with_state else [f"Y{i}"]  # a step's new state is its output
        nodes.append(onnx.helper.make_node(case.stock, inputs, outputs, hidden_size=case.units, **options))
        if not with_state:
            nodes.append(onnx.helper.make_node("Squeeze", [f"Y{i}", "axis"], [f"S{i}"]))
            source = f"S{i}"
    if not with_state:
        fixed.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "axis"))
    state = [1, case.batch, case.units]
    graph = onnx.helper.make_graph(
        nodes,
        "rnn",
        [info("X", [case.steps, case.batch, case.features]), *([info(n, state) for n in ("H0", "C0") if with_state])],
        [info(n, state) for n in ("H", "C")] if with_state else [info(source, [case.steps, case.batch, case.units])],
        fixed,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(problem: Problem) -> Run:
    session = session_of(problem, False)
    x = np.ascontiguousarray(problem.x.transpose(1, 0, 2))  # time first: the layout that it is fastest in
    return lambda: {"y": session.run(None, {"X": x})[0].transpose(1, 0, 2)}


def stream(problem: Problem) -> Run:
    case, session = problem.case, session_of(problem, True)
    x = np.ascontiguousarray(problem.x.transpose(1, 0, 2))
    state = [np.zeros((1, case.batch, case.units), np.float32)] * 2

    def step() -> dict[str, Any]:
        state[:] = session.run(None, {"X": x, "H0": state[0], "C0": state[1]})
        return {"y": state[0]}

    return step
