"""Each engine as a function of no arguments that computes a case, at its best: compiled, warm, two threads, no copies.

It answers y and, for training, the gradients of x and of the weights, under rsref's names where they correspond.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Case

Array = np.ndarray
Run = Callable[[], dict[str, Any]]
THREADS = 2


def rsref_fast(case: Case, layer: Any, x: Array, dy: Array, weights: dict[str, Array]) -> Run:
    import rsref_fast
    from benchmarks.problems import name_of

    recurrence = layer.recurrence
    engine = rsref_fast.compile(recurrence)
    rsref_fast.set_num_threads(THREADS)
    states = [np.zeros((case.batch, *t.shape[1:]), np.float32) for t in recurrence.graph.states]
    names = [name_of(p.name) for p in recurrence.graph.parameters]
    own = [weights[name] for name in names]

    def run() -> dict[str, Any]:
        outputs, _, tape = engine.forward([x], [], states, own, taped=case.training)
        if not case.training:
            return {"y": outputs[0]}
        found = engine.backward(tape, [dy], [None] * len(states))
        return {"y": outputs[0], "x": found.sequences[0], **dict(zip(names, found.parameters))}

    return run


def torch(case: Case, layer: Any, x: Array, dy: Array, weights: dict[str, Array]) -> Run:
    import torch

    torch.set_num_threads(THREADS)
    lstm = torch.nn.LSTM(case.features, case.units, batch_first=True)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.tensor(weights["kernel"].T.copy()))
        lstm.weight_hh_l0.copy_(torch.tensor(weights["recurrent_kernel"].T.copy()))
        lstm.bias_ih_l0.copy_(torch.tensor(weights["bias"]))
        lstm.bias_hh_l0.zero_()
    given, cotangent = torch.tensor(x, requires_grad=case.training), torch.tensor(dy)

    def infer() -> dict[str, Any]:
        with torch.inference_mode():
            return {"y": lstm(given)[0].numpy()}

    def train() -> dict[str, Any]:
        lstm.zero_grad()
        given.grad = None
        y = lstm(given)[0]
        y.backward(cotangent)
        return {
            "y": y.detach().numpy(),
            "x": given.grad.numpy(),  # type: ignore[union-attr]
            "kernel": lstm.weight_ih_l0.grad.numpy().T,
            "recurrent_kernel": lstm.weight_hh_l0.grad.numpy().T,
            "bias": lstm.bias_ih_l0.grad.numpy(),
        }

    return train if case.training else infer


def onnxruntime(case: Case, layer: Any, x: Array, dy: Array, weights: dict[str, Array]) -> Run:
    import onnx
    import onnxruntime

    def gates(matrix: Array) -> Array:  # from i, f, c, o to i, o, f, c
        i, f, c, o = np.split(matrix, 4, -1)
        return np.concatenate([i, o, f, c], -1)

    kernel, recurrent, bias = (gates(weights[name]) for name in ("kernel", "recurrent_kernel", "bias"))
    fixed = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(value[None]), name)
        for name, value in (("W", kernel.T), ("R", recurrent.T), ("B", np.concatenate([bias, 0 * bias])))
    ]
    node = onnx.helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], hidden_size=case.units)
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "lstm",
        [onnx.helper.make_tensor_value_info("X", float32, [case.steps, case.batch, case.features])],
        [onnx.helper.make_tensor_value_info("Y", float32, [case.steps, 1, case.batch, case.units])],
        fixed,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = np.ascontiguousarray(x.transpose(1, 0, 2))  # time first: the layout that it is fastest in
    return lambda: {"y": session.run(None, {"X": given})[0][:, 0].transpose(1, 0, 2)}


def jax_scan(case: Case, layer: Any, x: Array, dy: Array, weights: dict[str, Array]) -> Run:
    import jax
    import jax.numpy as jnp

    def outputs(x: Any, w: Any) -> Any:
        def step(state: Any, z: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(z + h @ w["recurrent_kernel"], 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        projected = jnp.swapaxes(x @ w["kernel"] + w["bias"], 0, 1)
        zeros = jnp.zeros((case.batch, case.units), jnp.float32)
        return jnp.swapaxes(jax.lax.scan(step, (zeros, zeros), projected)[1], 0, 1)

    def loss(x: Any, w: Any) -> Any:
        y = outputs(x, w)
        return jnp.sum(y * dy), y

    given = jnp.asarray(x), {name: jnp.asarray(value) for name, value in weights.items()}
    if not case.training:
        function = jax.jit(outputs)
        return lambda: {"y": jax.block_until_ready(function(*given))}
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    def train() -> dict[str, Any]:
        (_, y), (dx, dw) = jax.block_until_ready(gradient(*given))
        return {"y": y, "x": dx, **dw}

    return train


def keras_layer(case: Case, layer: Any, x: Array, dy: Array, weights: dict[str, Array], drawn: bool) -> Run:
    """Keras's own LSTM layer, or a drawn cell with Keras's ops, on the backend of the environment."""
    import keras

    from benchmarks.problems import name_of

    if drawn:
        import keras_bridge

        cell = getattr(keras_bridge.cells, case.cell)(case.units)
        own = cell.get_layer(return_sequences=True, engine="keras")
    else:
        own = keras.layers.LSTM(case.units, return_sequences=True)
    own.build(x.shape)
    for variable in own.weights:
        variable.assign(weights[name_of(variable.path)] if drawn else weights[variable.path.split("/")[-1]])
    names = [name_of(v.path) if drawn else v.path.split("/")[-1] for v in own.trainable_variables]
    return BACKENDS[keras.backend.backend()](case, own, names, x, dy)


def _on_jax(case: Case, own: Any, names: list[str], x: Array, dy: Array) -> Run:
    import jax
    import keras

    variables = own.trainable_variables

    def outputs(x: Any, values: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            return own(x)

    def loss(x: Any, values: Any) -> Any:
        y = outputs(x, values)
        return (y * dy).sum(), y

    given = jax.numpy.asarray(x), [v.value for v in variables]
    if not case.training:
        function = jax.jit(outputs)
        return lambda: {"y": jax.block_until_ready(function(*given))}
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

    def train() -> dict[str, Any]:
        (_, y), (dx, dw) = jax.block_until_ready(gradient(*given))
        return {"y": y, "x": dx, **dict(zip(names, dw))}

    return train


def _on_tensorflow(case: Case, own: Any, names: list[str], x: Array, dy: Array) -> Run:
    import tensorflow as tf

    given, cotangent = tf.constant(x), tf.constant(dy)
    values = [v.value for v in own.trainable_variables]

    @tf.function
    def infer() -> Any:
        return own(given)

    @tf.function
    def train() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = own(given)
        return y, tape.gradient(y, [given, *values], cotangent)

    def run() -> dict[str, Any]:
        if not case.training:
            return {"y": infer().numpy()}
        y, (dx, *dw) = train()
        return {"y": y.numpy(), "x": dx.numpy(), **{n: tf.convert_to_tensor(g).numpy() for n, g in zip(names, dw)}}

    return run


def _on_torch(case: Case, own: Any, names: list[str], x: Array, dy: Array) -> Run:
    import torch

    torch.set_num_threads(THREADS)
    given, cotangent = torch.tensor(x, requires_grad=case.training), torch.tensor(dy)
    values = [v.value for v in own.trainable_variables]

    def run() -> dict[str, Any]:
        if not case.training:
            with torch.inference_mode():
                return {"y": own(given).numpy()}
        y = own(given)
        dx, *dw = torch.autograd.grad(y, [given, *values], cotangent)
        return {"y": y.detach().numpy(), "x": dx.numpy(), **{n: g.numpy() for n, g in zip(names, dw)}}

    return run


BACKENDS = {"jax": _on_jax, "tensorflow": _on_tensorflow, "torch": _on_torch}
PLAIN = {"rsref_fast": rsref_fast, "torch": torch, "onnxruntime": onnxruntime, "jax scan": jax_scan}


def make(engine: str, case: Case, *arrays: Any) -> Run:
    """Return an engine's function for a case."""
    if engine in PLAIN:
        return PLAIN[engine](case, *arrays)
    kind, backend = engine.split()
    if os.environ.get("KERAS_BACKEND") != backend:
        raise SystemExit(f"{engine} needs KERAS_BACKEND={backend}")
    return keras_layer(case, *arrays, drawn=kind == "drawn")
